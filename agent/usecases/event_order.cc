#include "agent/usecases/event_order.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "agent/audit/event_limits.h"
#include "agent/usecases/imported_event.h"
#include "agent/usecases/interrupted_restores.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"
#include "envelope/base/utf8.h"

namespace keyescrow::agent {
namespace {

using audit::EventType;
using audit::LogFault;

constexpr std::string_view kTrustAdded = "trust added: ";
constexpr std::string_view kTrustRemoved = "trust removed: ";
constexpr std::string_view kLimits = "; limits ";
constexpr std::string_view kPolicySet = "policy set, mode ";
constexpr std::string_view kSigners = ", signers ";
constexpr std::string_view kEvidence = "evidence ";
constexpr std::string_view kInitialised = "initialised by keyescrow ";
constexpr std::string_view kWithTpm = ", no simulated tpm";
constexpr std::string_view kWithSimulator = ", the tpm is a simulator";
constexpr std::size_t kThumbprintChars = 43;
constexpr std::string_view kAfterRules = ": ";

// Two processes take the time before they wait for each other: a commit waits up to half a minute.
constexpr std::int64_t kClockToleranceSeconds = 60;

bool MattersInOrder(EventType type) {
  switch (type) {
    case EventType::kRestoreRequested:
    case EventType::kRestoreReleased:
    case EventType::kRestoreCompleted:
    case EventType::kRestoreFailed:
    case EventType::kRestoreDenied:
    case EventType::kAgentStarted:
    case EventType::kFactorEnrolled:
    case EventType::kFactorRemoved:
    case EventType::kKeyRotated:
    case EventType::kKeyDestroyed:
    case EventType::kPolicyChanged:
    case EventType::kInventoryFound:
    case EventType::kInventoryGone:
    case EventType::kGateOverridden: return true;
    default: return false;
  }
}

constexpr ErrorCode kTellingOfPaths[] = {
    ErrorCode::kEnvelopeUnwrap,   ErrorCode::kEnvelopeMac,        ErrorCode::kFactorBad,
    ErrorCode::kTokenDataInvalid, ErrorCode::kTokenKeyNotFound,   ErrorCode::kTokenKeyUsage,
    ErrorCode::kTpmPcrMismatch,   ErrorCode::kTpmPolicySignature, ErrorCode::kTpmSrkUntrusted,
    ErrorCode::kTpmWrongDevice,
};

// DrillsARecoveryKey: the entry tells that one was opened, or that it cannot be.
bool DrillsARecoveryKey(const audit::EventFacts& facts) {
  if (facts.has_key || facts.factor_kind != kRecoveryKeyKind) return false;
  return facts.type == EventType::kDrillPassed ||
         (facts.type == EventType::kDrillFailed && TellsOfThePath(facts.error));
}

// WordAfter returns what stands behind `mark` in a text that begins with `begin`, or "".
std::string WordAfter(std::string_view text, std::string_view begin, std::string_view mark) {
  const std::size_t at = text.find(mark);
  if (!text.starts_with(begin) || at == std::string_view::npos) return "";
  return std::string(text.substr(at + mark.size()));
}

// InDoubt is how interrupted_ keeps a request whose end another of the same process number may have
// told: numbers come again, in other containers and after a boot.
std::string InDoubt(std::uint64_t seq) { return fmt::format("entry {}", seq); }

std::string Joined(const std::vector<std::string>& patterns) {
  if (patterns.empty()) return "any";
  return fmt::format("{}", fmt::join(patterns, " "));
}

void ReportBackward(audit::LogFindings& findings, std::uint64_t seq, std::int64_t before,
                    std::int64_t time) {
  findings.Add(LogFault::kClockBackward, seq,
               fmt::format("entry {} is of {}, the one before it of {}", seq, FormatUtc(time),
                           FormatUtc(before)));
}

}  // namespace

bool TellsOfThePath(std::string_view error_name) {
  return std::ranges::any_of(kTellingOfPaths,
                             [&](ErrorCode code) { return ErrorCodeName(code) == error_name; });
}

bool FailsAPath(const audit::EventFacts& facts) {
  const bool fails = facts.type == EventType::kRestoreFailed ||
                     facts.type == EventType::kDrillFailed ||
                     facts.type == EventType::kEscrowFailed;
  return fails && facts.outcome == audit::Outcome::kFailure && facts.has_key &&
         facts.has_envelope && !facts.path_id.empty() && TellsOfThePath(facts.error);
}

std::string TrustLimits(const std::vector<std::string>& hosts,
                        const std::vector<std::string>& keys) {
  std::string text = "hosts\n";
  for (const std::string& pattern : hosts) text += pattern + "\n";
  text += "keys\n";
  for (const std::string& pattern : keys) text += pattern + "\n";
  return EncodeBase64Url(Sha256(AsBytes(text)));
}

std::string TrustReason(const store::TrustRecord& record) {
  return fmt::format("{}{}{}{}; hosts {}; keys {}", kTrustAdded, record.thumbprint, kLimits,
                     TrustLimits(record.hosts, record.keys), Joined(record.hosts),
                     Joined(record.keys));
}

std::string TrustRemovedReason(const std::string& thumbprint) {
  return std::string(kTrustRemoved) + thumbprint;
}

std::string PolicyReason(std::string_view mode, std::string_view signers) {
  return fmt::format("{}{}{}{}", kPolicySet, mode, kSigners, PolicySigners(signers));
}

std::string PolicySigners(std::string_view signers) {
  return EncodeBase64Url(Sha256(AsBytes(signers)));
}

std::string EvidenceReason(std::string_view evidence) {
  return std::string(kEvidence) + TokenEvidence(evidence);
}

std::string TokenEvidence(std::string_view evidence) {
  return EncodeBase64Url(Sha256(AsBytes(evidence)));
}

std::string OverrideReason(std::string_view rules, std::string_view reason) {
  return fmt::format("{}{}{}", rules, kAfterRules, reason);
}

bool IsOverrideFor(const GateOverride& gate, std::string_view reason) {
  const std::string_view rules =
      std::string_view(gate.reason).substr(0, gate.reason.find(kAfterRules));
  const std::string whole = OverrideReason(rules, reason);
  if (gate.reason == CutUtf8(whole, audit::kMaxReasonBytes)) return true;
  // An event that is too long has less of its reason, or none.
  return gate.truncated &&
         (gate.reason.empty() || gate.reason == CutUtf8(whole, audit::kMaxShortReasonBytes));
}

std::string StartReason(std::string_view version, bool tpm_simulator) {
  return fmt::format("{}{}{}", kInitialised, version, tpm_simulator ? kWithSimulator : kWithTpm);
}

void NoticedSegment::CompareTime(std::uint64_t seq, std::int64_t time) {
  if (!has_times) {
    has_times = true;
    first_time = time;
    first_time_seq = seq;
  } else if (time + kClockToleranceSeconds < last_time) {
    ReportBackward(findings, seq, last_time, time);
  }
  last_time = time;
}

void NoticedSegment::Notice(std::uint64_t seq, const audit::EventFacts& facts) {
  const bool stateless = facts.source == audit::kStatelessSource;
  if (!stateless) CompareTime(seq, facts.time);
  const bool anchors = facts.event != nullptr && facts.event->anchor.has_value();
  std::optional<PathFailure> failure;
  const bool drills_recovery_key = !stateless && DrillsARecoveryKey(facts);
  if (!stateless &&
      (FailsAPath(facts) || (drills_recovery_key && facts.type == EventType::kDrillFailed))) {
    failure = PathFailure{seq, facts.time, std::string(facts.error), facts.revision,
                          facts.envelope_sha256};
  }
  if (!stateless && !anchors && !failure && !drills_recovery_key && !MattersInOrder(facts.type)) {
    return;
  }
  const bool sets_policy = facts.type == EventType::kPolicyChanged && facts.has_policy &&
                           facts.outcome == audit::Outcome::kSuccess && !stateless;
  events.push_back({seq,
                    facts.type,
                    facts.outcome,
                    facts.time,
                    facts.id,
                    stateless,
                    facts.uid,
                    facts.pid,
                    std::string(facts.key_name),
                    facts.key_version,
                    std::string(facts.factor_id),
                    facts.factor_kind == kRecoveryKeyKind,
                    facts.factor_key_sha256,
                    std::string(facts.reason),
                    sets_policy ? std::optional(PolicySet{
                                      seq, facts.time, facts.policy_serial, facts.policy_sha256,
                                      WordAfter(facts.reason, kPolicySet, kSigners)})
                                : std::nullopt,
                    anchors ? std::make_shared<const audit::Event>(*facts.event) : nullptr,
                    facts.has_envelope,
                    failure ? std::string(facts.path_id) : std::string(),
                    failure,
                    facts.truncated});
}

void EventOrder::Add(NoticedSegment segment, audit::LogFindings& findings) {
  if (segment.has_times) {
    if (last_time_ && segment.first_time + kClockToleranceSeconds < *last_time_) {
      ReportBackward(findings, segment.first_time_seq, *last_time_, segment.first_time);
    }
    last_time_ = segment.last_time;
  }
  findings.Append(std::move(segment.findings));
  for (const NoticedEvent& event : segment.events) AddOne(event, findings);
}

void EventOrder::AddOne(const NoticedEvent& event, audit::LogFindings& findings) {
  if (event.stateless) {
    const auto [first, is_new] = imported_.emplace(event.id, event.seq);
    if (!is_new) {
      findings.Add(LogFault::kEntryChain, event.seq,
                   fmt::format("entries {} and {} are one imported event: it counts once",
                               first->second, event.seq));
    }
    // Nothing signed it: what it says of tokens, trust and policy vouches for nothing.
    if (!CanBeImported(event.type)) {
      findings.Add(LogFault::kImportedDrill, event.seq,
                   fmt::format("entry {} is imported, and no run without state writes {}",
                               event.seq, audit::EventTypeName(event.type)));
      return;
    }
  }
  if (event.anchor) {
    const envelope::AnchorKey key{event.anchor->anchor->key, event.anchor->anchor->index};
    const bool known =
        std::find(anchor_keys_.begin(), anchor_keys_.end(), key) != anchor_keys_.end();
    if (auto fault = (known ? anchors_ : other_anchors_).Add(*event.anchor)) {
      const bool mismatch = event.type == EventType::kAnchorMismatch;
      findings.Add(mismatch ? LogFault::kAnchorMismatch : LogFault::kAnchor, event.seq,
                   fmt::format("entry {}: {}", event.seq, *fault));
    }
    return;
  }
  if (event.failure && !event.key_name.empty()) {
    path_failures_[{event.key_name, event.key_version, event.path_id}] = *event.failure;
  }
  switch (event.type) {
    case EventType::kAgentStarted:
      if (event.reason.starts_with(kInitialised)) {
        if (event.reason.ends_with(kWithTpm)) tpm_simulator_ = false;
        if (event.reason.ends_with(kWithSimulator)) tpm_simulator_ = true;
      }
      return;
    case EventType::kFactorEnrolled:
    case EventType::kFactorRemoved:
      // With a key the entry tells of a path of that key, else of a token or recovery key in a
      // list.
      if (event.key_name.empty()) {
        (event.is_recovery_key ? recovery_keys_ : tokens_)[event.name] = {
            event.seq, event.type == EventType::kFactorEnrolled, event.key_sha256,
            WordAfter(event.reason, kEvidence, kEvidence)};
      }
      return;
    case EventType::kKeyRotated:
      life_.AddRotated({event.key_name, event.key_version},
                       {event.seq, event.outcome, OldVersionIn(event.reason, event.key_version)},
                       findings);
      return;
    case EventType::kKeyDestroyed:
      // Without an envelope it tells of a previous generation that was removed beside a key.
      if (event.has_envelope && event.outcome == audit::Outcome::kSuccess) {
        life_.AddDestroyed({event.key_name, event.key_version}, event.seq, findings);
        gate_overrides_.erase(event.key_name);  // its row went with the key
      }
      return;
    case EventType::kPolicyChanged: {
      if (event.policy) policies_.push_back(*event.policy);
      const std::string_view reason = event.reason;
      const bool added = reason.starts_with(kTrustAdded);
      if (!added && !reason.starts_with(kTrustRemoved)) return;
      const std::string_view rest =
          reason.substr(added ? kTrustAdded.size() : kTrustRemoved.size());
      std::string_view limits = rest.substr(std::min(kThumbprintChars, rest.size()));
      limits = limits.starts_with(kLimits) ? limits.substr(kLimits.size(), kThumbprintChars)
                                           : std::string_view();
      trust_[std::string(rest.substr(0, kThumbprintChars))].push_back(
          {event.seq, added, std::string(limits)});
      return;
    }
    case EventType::kGateOverridden:
      gate_overrides_[event.key_name] = {event.seq, event.time, event.key_version, event.reason,
                                         event.truncated};
      return;
    case EventType::kInventoryFound:
    case EventType::kInventoryGone: AddForeign(event); return;
    case EventType::kDrillPassed:
      if (event.stateless) break;
      AddRecoveryKeyDrill(event);
      return;
    case EventType::kDrillFailed:
      // No end of a restore, whichever process tells it; the same of a failed escrow.
      if (event.key_name.empty() && !event.stateless) AddRecoveryKeyDrill(event);
      return;
    case EventType::kEscrowFailed: return;
    default: break;
  }
  if (event.type == EventType::kRestoreReleased) {
    const std::uint64_t before = num_interrupted_;
    AddInterrupted(event);
    const auto seq = InterruptedSeq(event.type, event.outcome, event.reason);
    if (!seq || event.stateless || num_interrupted_ != before) return;
    if (interrupted_.erase(InDoubt(*seq)) != 0) return;
    findings.Add(LogFault::kReleaseUnasked, event.seq,
                 fmt::format("entry {} says that the restore of entry {} was interrupted, and no "
                             "restore of that entry was open",
                             event.seq, *seq));
    return;
  }
  // A restore is one process that asks and tells the end.
  const std::string who = fmt::format("{} {} {} {} {}", event.stateless, event.uid, event.pid,
                                      event.key_version, event.key_name);
  const auto open = open_.find(who);
  if (event.type == EventType::kRestoreRequested) {
    if (!event.stateless) ++num_releases_;
    if (open != open_.end()) {
      findings.Add(LogFault::kReleaseOpen, open->second.seq, open->second.text);
      interrupted_.insert(InDoubt(open->second.seq));
    }
    open_[who] = {event.seq,
                  fmt::format("the restore of {} version {} of {} by uid {} has no end",
                              event.key_name, event.key_version, FormatUtc(event.time), event.uid)};
    return;
  }
  if (open != open_.end()) {
    if (interrupted_.contains(who)) interrupted_.insert(InDoubt(open->second.seq));
    open_.erase(open);
  } else if (event.type == EventType::kRestoreCompleted && interrupted_.erase(who) == 0) {
    findings.Add(event.stateless ? LogFault::kImportedDrill : LogFault::kReleaseUnasked, event.seq,
                 fmt::format("{} version {} was restored, and no entry asked for it",
                             event.key_name, event.key_version));
  }
}

void EventOrder::AddForeign(const NoticedEvent& event) {
  const bool found = event.type == EventType::kInventoryFound;
  if (const auto mark = ReadForeignMark(event.reason)) {
    foreign_escrows_[mark->name] = {event.seq, event.time, found, mark->content};
  } else if (found) {
    unmarked_foreign_.insert(event.reason);
  }
}

// A drill that opened it ends the failure of whichever record bore the name.
void EventOrder::AddRecoveryKeyDrill(const NoticedEvent& event) {
  failed_recovery_keys_.erase(event.name);
  if (!event.failure) return;
  failed_recovery_keys_[event.name] = {event.seq, event.time, event.failure->error,
                                       event.key_sha256};
}

void EventOrder::AddInterrupted(const NoticedEvent& event) {
  const auto seq = InterruptedSeq(event.type, event.outcome, event.reason);
  if (!seq || event.stateless) return;
  const auto open = std::find_if(open_.begin(), open_.end(),
                                 [&](const auto& item) { return item.second.seq == *seq; });
  if (open == open_.end()) return;
  ++num_interrupted_;
  interrupted_.insert(open->first);
  open_.erase(open);
}

void EventOrder::Finish(audit::LogFindings& findings) {
  for (const auto& [who, request] : open_) {
    findings.Add(LogFault::kReleaseOpen, request.seq, request.text);
  }
}

}  // namespace keyescrow::agent
