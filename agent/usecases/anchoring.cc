#include "agent/usecases/anchoring.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "agent/audit/checkpoint.h"
#include "agent/audit/note.h"
#include "envelope/base/pause_point.h"

namespace keyescrow::agent {
namespace {

constexpr std::int64_t kAnchorPeriodSeconds = 3600;
constexpr std::int64_t kReleaseGraceSeconds = 86400;
constexpr int kMaxCertificates = 5;

Error Mismatch(const std::string& what) {
  return Error(ErrorCode::kAnchorMismatch, Action::kCallOperator, what,
               "keep a copy of the state folder; compare the log with checkpoints that were kept "
               "elsewhere; when it is explained, 'keyescrow audit anchor --accept REASON'");
}

std::string Describe(audit::CounterVerdict verdict, std::uint64_t found,
                     const audit::AnchorState& state, std::uint64_t base) {
  const std::uint64_t expected = state.intent.value_or(state.counter.value_or(base));
  if (verdict == audit::CounterVerdict::kStoreWentBack) {
    return fmt::format(
        "an older store was put back: the tpm's counter is at {}, and the newest anchor in the log "
        "is {}",
        found, expected);
  }
  return fmt::format(
      "the tpm's memory was put back: its counter is at {}, and the log was anchored at {}", found,
      expected);
}

// EntryOf reads the anchor entry that a setting names. An entry that is not there, or is another,
// is a store that contradicts itself.
Result<std::optional<audit::Event>> EntryOf(Agent& agent, std::string_view setting) {
  ASSIGN_OR_RETURN(const auto value, agent.store().GetSetting(setting));
  if (!value) return std::optional<audit::Event>();
  const std::uint64_t seq = std::strtoull(value->c_str(), nullptr, 10);
  auto entry = agent.store().Entry(seq);
  auto event = entry ? audit::ParseEvent(AsText(entry->bytes))
                     : Result<audit::Event>(std::move(entry).error());
  if (!event || event->source_seq != seq || event->source != agent.identity().origin) {
    return Error(ErrorCode::kLogDamaged, Action::kCallOperator,
                 fmt::format("entry {} is not the one that the store remembers", seq),
                 "run 'keyescrow verify'");
  }
  return std::optional(std::move(*event));
}

// LoadState tells where the log says that the counter is. The last certificate is checked: a store
// whose rows were edited cannot name another counter.
Result<audit::AnchorState> LoadState(Agent& agent) {
  const AnchorIdentity& anchor = *agent.identity().anchor;
  std::vector<audit::Event> events;
  for (const std::string_view setting :
       {kAnchorSetting, kAnchorIntentSetting, kAnchorMismatchSetting}) {
    ASSIGN_OR_RETURN(auto event, EntryOf(agent, setting));
    if (!event || !event->anchor) continue;
    // What an earlier counter said does not bind this one.
    if (!(envelope::AnchorKey{event->anchor->key, event->anchor->index} == anchor.key)) continue;
    if (setting == kAnchorSetting) RETURN_IF_ERROR(audit::CheckAnchor(*event, {anchor.key}));
    events.push_back(std::move(*event));
  }
  std::ranges::sort(events, {}, &audit::Event::source_seq);
  audit::AnchorTrail trail({});
  // Entries between these three are not read: how far the counter rose is verify's to check.
  for (const audit::Event& event : events) static_cast<void>(trail.Add(event));
  return trail.state();
}

audit::Event NewEvent(audit::EventType type, audit::Outcome outcome, const AnchorIdentity& anchor,
                      std::uint64_t counter) {
  audit::Event event;
  event.type = type;
  event.outcome = outcome;
  event.anchor = audit::EventAnchor{
      counter, anchor.key.nv_index, anchor.key.attestation_public, {}, std::nullopt};
  return event;
}

Result<std::unique_ptr<envelope::Anchor>> OpenAnchor(Agent& agent) {
  const AnchorIdentity& anchor = *agent.identity().anchor;
  ASSIGN_OR_RETURN(SecretBytes auth, LoadAnchorAuth(agent.environment().state_dir));
  return agent.environment().devices->OpenAnchor({anchor.key, anchor.tpm_private, anchor.base},
                                                 std::move(auth), agent.identity().origin);
}

Status CreateAnchor(Agent& agent) {
  ASSIGN_OR_RETURN(const SecretBytes auth,
                   MakeAnchorAuth(agent.environment().state_dir, *agent.environment().random));
  ASSIGN_OR_RETURN(TpmAnchorBlob made,
                   agent.environment().devices->CreateAnchor(auth, agent.identity().origin));
  return agent.SetAnchor({std::move(made.key), std::move(made.attestation_private), made.base});
}

// RecordMismatch tells the log, once a finding.
Error RecordMismatch(Agent& agent, const audit::AnchorState& state, std::uint64_t found,
                     const std::string& what) {
  if (!state.mismatch_open) {
    audit::Event event = NewEvent(audit::EventType::kAnchorMismatch, audit::Outcome::kFailure,
                                  *agent.identity().anchor, found);
    event.error = ErrorCodeName(ErrorCode::kAnchorMismatch);
    event.reason = what;
    auto recorded = agent.journal().Append(std::move(event));
    if (!recorded) return Mismatch(what).WithContext("it could not be logged either");
  }
  return Mismatch(what);
}

// Certificate has the TPM certify the newest checkpoint and puts that into the log. Where another
// process commits in between, the newer checkpoint is certified; nothing is counted for that.
Result<AppendReceipt> Certificate(Agent& agent, envelope::Anchor& anchor, std::uint64_t counter) {
  for (int attempt = 0; attempt < kMaxCertificates; ++attempt) {
    ASSIGN_OR_RETURN(const std::string checkpoint, agent.journal().LatestCheckpoint());
    const Bytes32 hash = audit::CheckpointHash(audit::NoteText(checkpoint));
    ASSIGN_OR_RETURN(envelope::AnchorStatement statement, anchor.Certify(hash));
    PausePoint("anchor-certified");
    audit::Event event = NewEvent(audit::EventType::kAnchorTpm, audit::Outcome::kSuccess,
                                  *agent.identity().anchor, counter);
    ASSIGN_OR_RETURN(const envelope::AnchorFacts facts,
                     envelope::CheckAnchorStatement(agent.identity().anchor->key,
                                                    agent.identity().origin, statement));
    if (facts.counter != counter) {
      return RecordMismatch(agent, {}, facts.counter,
                            fmt::format("the tpm certified the counter at {} where {} was reached: "
                                        "somebody else counts",
                                        facts.counter, counter));
    }
    event.anchor->attest = std::move(statement.attest);
    event.anchor->signature = statement.signature;
    agent.environment().devices->LastSignature();
    ASSIGN_OR_RETURN(auto receipt, agent.journal().AppendAfter(hash, std::move(event)));
    if (receipt) return std::move(*receipt);
  }
  return Error(ErrorCode::kStoreBusy, Action::kRetry,
               "other processes commit faster than the tpm certifies", "try again in a moment");
}

}  // namespace

Result<AnchorResult> AnchorLog(Agent& agent, const AnchorRequest& request) {
  ASSIGN_OR_RETURN(const StateLock lock, StateLock::Take(agent.environment().state_dir));
  AnchorResult result;
  if (request.renew && agent.identity().anchor) {
    ASSIGN_OR_RETURN(const auto old, OpenAnchor(agent));
    if (auto read = old->Read(); read) {
      return Error(ErrorCode::kAlreadyExists, Action::kFixInput,
                   "the log's counter is there and answers", "leave --new out");
    } else if (read.error().code() != ErrorCode::kAnchorMissing) {
      return std::move(read).error();
    }
  }
  if (!agent.identity().anchor || request.renew) {
    RETURN_IF_ERROR(CreateAnchor(agent));
    result.made = true;
  }
  ASSIGN_OR_RETURN(audit::AnchorState state, LoadState(agent));
  ASSIGN_OR_RETURN(const auto anchor, OpenAnchor(agent));
  ASSIGN_OR_RETURN(const std::uint64_t found, anchor->Read());
  const std::uint64_t base = agent.identity().anchor->base;
  audit::CounterVerdict verdict = audit::JudgeCounter(state, base, found);
  const bool is_off = verdict == audit::CounterVerdict::kStoreWentBack ||
                      verdict == audit::CounterVerdict::kCounterWentBack;
  if (is_off || state.mismatch_open) {
    const std::string what =
        is_off ? Describe(verdict, found, state, base) : std::string(state.mismatch);
    if (request.accept.empty()) return RecordMismatch(agent, state, found, what);
    audit::Event event = NewEvent(audit::EventType::kAnchorMismatch, audit::Outcome::kSuccess,
                                  *agent.identity().anchor, found);
    event.reason = "accepted: " + request.accept;
    RETURN_IF_ERROR(agent.journal().Append(std::move(event)));
    result.settled = true;
    verdict = audit::CounterVerdict::kRight;
  }
  result.counter = found;
  if (verdict == audit::CounterVerdict::kRight) {
    RETURN_IF_ERROR(
        agent.journal().Append(NewEvent(audit::EventType::kAnchorTpm, audit::Outcome::kPending,
                                        *agent.identity().anchor, found + 1)));
    PausePoint("anchor-intended");
  }
  if (verdict != audit::CounterVerdict::kRedoCertify) {
    ASSIGN_OR_RETURN(result.counter, anchor->Increment(found));
    PausePoint("anchor-counted");
  }
  ASSIGN_OR_RETURN(const AppendReceipt receipt, Certificate(agent, *anchor, result.counter));
  result.log_seq = receipt.seq;
  return result;
}

Result<bool> AnchorIsDue(Agent& agent) {
  if (!agent.identity().anchor) return false;
  ASSIGN_OR_RETURN(const audit::AnchorState state, LoadState(agent));
  if (!state.counter || state.intent) return true;
  const std::int64_t age = agent.Now() - state.time;
  if (age < 0 || age >= kAnchorPeriodSeconds) return true;
  ASSIGN_OR_RETURN(const auto release, EntryOf(agent, kReleaseSetting));
  ASSIGN_OR_RETURN(const auto last, EntryOf(agent, kAnchorSetting));
  return release && last && release->source_seq > last->source_seq;
}

AnchorCheck CheckCounter(Agent& agent) {
  AnchorCheck check;
  if (!agent.identity().anchor) {
    check.what = "the log has no counter in a tpm: an older store that is put back is not seen";
    check.remedy = "where there is a tpm, 'keyescrow audit anchor' makes one";
    return check;
  }
  const auto judge = [&]() -> Status {
    ASSIGN_OR_RETURN(const StateLock lock, StateLock::Take(agent.environment().state_dir));
    ASSIGN_OR_RETURN(const audit::AnchorState state, LoadState(agent));
    ASSIGN_OR_RETURN(const auto anchor, OpenAnchor(agent));
    ASSIGN_OR_RETURN(const std::uint64_t found, anchor->Read());
    const std::uint64_t base = agent.identity().anchor->base;
    const audit::CounterVerdict verdict = audit::JudgeCounter(state, base, found);
    if (verdict == audit::CounterVerdict::kStoreWentBack ||
        verdict == audit::CounterVerdict::kCounterWentBack) {
      return Mismatch(Describe(verdict, found, state, base));
    }
    if (state.mismatch_open) return Mismatch(state.mismatch);
    check.checked = true;
    check.what = fmt::format("the tpm's counter is at {}, where the log has it", found);
    return Ok();
  };
  const Status judged = judge();
  if (judged) return check;
  const Error& error = judged.error();
  switch (error.code()) {
    case ErrorCode::kAnchorMismatch:
    case ErrorCode::kAnchorMissing:
    case ErrorCode::kAnchorInvalid:
    case ErrorCode::kLogDamaged: check.error = error; break;
    default: break;
  }
  check.what = "the tpm's counter: " + error.message();
  check.remedy = error.hint();
  return check;
}

Result<std::vector<Finding>> AnchorFindings(Agent& agent) {
  std::vector<Finding> findings;
  if (!agent.identity().anchor) return findings;
  const auto state = LoadState(agent);
  if (!state) {
    findings.push_back({"anchor_invalid", "", agent.identity().host, Severity::kCritical,
                        state.error().message(), state.error().hint()});
    return findings;
  }
  if (state->mismatch_open) {
    const Error error = Mismatch(state->mismatch);
    findings.push_back({"anchor_mismatch", "", agent.identity().host, Severity::kCritical,
                        error.message(), error.hint()});
    return findings;
  }
  ASSIGN_OR_RETURN(const auto release, EntryOf(agent, kReleaseSetting));
  ASSIGN_OR_RETURN(const auto last, EntryOf(agent, kAnchorSetting));
  if (release && (!last || release->source_seq > last->source_seq) &&
      agent.Now() - release->time > kReleaseGraceSeconds) {
    findings.push_back({"release_not_anchored", "", agent.identity().host, Severity::kWarning,
                        "the restore of " + FormatUtc(release->time) +
                            " has not been anchored in the tpm for a day",
                        "run 'keyescrow audit anchor', best by a timer every hour"});
  }
  return findings;
}

}  // namespace keyescrow::agent
