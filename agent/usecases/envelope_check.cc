#include "agent/usecases/envelope_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "agent/audit/event.h"
#include "agent/usecases/path_set.h"
#include "agent/usecases/registration_check.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

using audit::EventType;
using audit::LogFault;

constexpr std::size_t kTagOffset = 24;
constexpr std::string_view kPayloadStart = R"({"payload":")";

Bytes32 HashColumn(ByteView blob) {
  Bytes32 hash{};
  if (blob.size() == hash.size()) std::copy(blob.begin(), blob.end(), hash.begin());
  return hash;
}

bool MatchesAny(const std::vector<std::string>& patterns, std::string_view name) {
  return patterns.empty() ||
         std::any_of(patterns.begin(), patterns.end(), [&](const std::string& pattern) {
           return envelope::NamePatternMatches(pattern, name);
         });
}

// HasItsTime holds a row's time, by which a rule's grace is counted, to those that are signed. It
// is when the envelope was sealed: made, or edited by an agent of the log's own. One that was
// imported is as old as its key, whichever revision of it came.
Result<bool> HasItsTime(store::StoreReader& reader, const store::EnvelopeRow& row,
                        const envelope::Header& header, bool is_own) {
  const auto is_near = [&](std::optional<std::int64_t> time) {
    return time && row.created <= *time + kProofToleranceSeconds &&
           row.created + kProofToleranceSeconds >= *time;
  };
  const auto created = ParseUtc(header.created);
  if (is_near(created)) return true;
  if (header.revision > 1 && is_own && is_near(ParseUtc(header.updated))) return true;
  if (!created || row.created > *created) return false;
  // Its maker's clock was ahead: no row is later than its import.
  ASSIGN_OR_RETURN(const auto bytes, reader.EntryBytes(static_cast<std::uint64_t>(row.log_seq)));
  if (!bytes) return false;
  const auto event = audit::ParseEvent(AsText(*bytes));
  return event && is_near(event->time);
}

}  // namespace

std::optional<Bytes32> PayloadHash(ByteView file) {
  const std::string_view text = AsText(file);
  if (!text.starts_with(kPayloadStart)) return std::nullopt;
  const std::size_t end = text.find('"', kPayloadStart.size());
  if (end == std::string_view::npos) return std::nullopt;
  return Sha256(AsBytes(text.substr(kPayloadStart.size(), end - kPayloadStart.size())));
}

// ---- ExpectedEnvelopes

bool EscrowsEnvelope(const audit::EventFacts& facts) {
  const bool escrows =
      facts.type == EventType::kEscrowCreated || facts.type == EventType::kEscrowRewrapped;
  return escrows && facts.has_envelope && facts.has_key && facts.source != audit::kStatelessSource;
}

Bytes32 ExpectedEnvelopes::Slot(const Bytes32& sha256, std::string_view key_name,
                                std::uint64_t version, std::uint64_t revision,
                                std::string_view envelope_id) const {
  const std::uint64_t tag = KeyedSum::RowHash(key_, key_name, version, revision, 0) ^
                            std::rotl(KeyedSum::RowHash(key_, envelope_id, 0, 0, 1), 1);
  Bytes32 slot = sha256;
  std::uint64_t last = 0;
  std::memcpy(&last, slot.data() + kTagOffset, sizeof last);
  last ^= tag;
  std::memcpy(slot.data() + kTagOffset, &last, sizeof last);
  return slot;
}

void ExpectedEnvelopes::Expect(std::uint64_t seq, const audit::EventFacts& facts) {
  if (!EscrowsEnvelope(facts) || seq >= slots_.size()) return;
  slots_[seq] = Slot(facts.envelope_sha256, facts.key_name, facts.key_version, facts.revision,
                     facts.envelope_id);
}

ExpectedEnvelopes::Match ExpectedEnvelopes::Take(const store::EnvelopeRow& row) {
  const auto seq = static_cast<std::uint64_t>(row.log_seq);
  if (row.log_seq < 0 || seq >= slots_.size() || slots_[seq] == Bytes32{}) return Match::kOther;
  const Bytes32 slot =
      Slot(HashColumn(row.sha256), row.key_name, static_cast<std::uint64_t>(row.key_version),
           static_cast<std::uint64_t>(row.revision), row.envelope_id);
  if (slot != slots_[seq]) return Match::kOther;
  const std::uint64_t bit = std::uint64_t{1} << (seq % 64);
  const bool twice = (seen_[seq / 64].fetch_or(bit, std::memory_order_relaxed) & bit) != 0;
  return twice ? Match::kTwice : Match::kGood;
}

void ExpectedEnvelopes::Missing(const std::function<void(std::uint64_t)>& visit) const {
  for (std::uint64_t seq = 0; seq < slots_.size(); ++seq) {
    const bool seen = (seen_[seq / 64].load(std::memory_order_relaxed) >> (seq % 64) & 1) != 0;
    if (!seen && slots_[seq] != Bytes32{}) visit(seq);
  }
}

// ---- TrustTimeline

TrustTimeline::TrustTimeline(std::vector<std::string> own,
                             std::map<std::string, std::vector<TrustChange>> changes,
                             std::vector<store::TrustRecord> rows)
    : own_(std::move(own)), changes_(std::move(changes)) {
  for (store::TrustRecord& row : rows) rows_.emplace(row.thumbprint, std::move(row));
}

bool TrustTimeline::IsOwn(const std::string& thumbprint) const {
  return std::find(own_.begin(), own_.end(), thumbprint) != own_.end();
}

bool TrustTimeline::Allows(const envelope::Header& header, std::uint64_t seq) const {
  if (IsOwn(header.agent)) return true;
  const auto changes = changes_.find(header.agent);
  const auto row = rows_.find(header.agent);
  if (changes == changes_.end() || row == rows_.end()) return false;
  const TrustChange* last = nullptr;
  for (const TrustChange& change : changes->second) {
    if (change.seq < seq) last = &change;
  }
  if (last == nullptr || !last->added) return false;
  // Limits of before the agent was added again are told by their hash alone.
  const store::TrustRecord& limits = row->second;
  if (last->limits != TrustLimits(limits.hosts, limits.keys) && last != &changes->second.back()) {
    return true;
  }
  return MatchesAny(row->second.hosts, header.host) &&
         MatchesAny(row->second.keys, header.key_name);
}

// ---- EnvelopeChecker

void EnvelopeChecker::Add(LogFault fault, const store::EnvelopeRow& row, std::string_view what) {
  tally_.findings.Add(fault, static_cast<std::uint64_t>(std::max<std::int64_t>(row.log_seq, 0)),
                      fmt::format("{} version {} revision {}: {}", row.key_name, row.key_version,
                                  row.revision, what));
}

Status EnvelopeChecker::Check(const store::EnvelopeRow& row) {
  ++tally_.num_envelopes;
  switch (expected_.Take(row)) {
    case ExpectedEnvelopes::Match::kGood: break;
    case ExpectedEnvelopes::Match::kOther:
      Add(LogFault::kEnvelopeUnlogged, row,
          fmt::format("entry {} does not escrow this envelope", row.log_seq));
      break;
    case ExpectedEnvelopes::Match::kTwice:
      Add(LogFault::kEnvelopeUnlogged, row,
          fmt::format("entry {} escrows another row too", row.log_seq));
      break;
  }
  if (CheckGone(row)) return Ok();
  const Bytes32 kept_hash = HashColumn(row.sha256);
  const auto hash = PayloadHash(row.bytes);
  const bool is_good = hash && *hash == kept_hash;
  if (quick_ && is_good) return Ok();
  if (hash && !is_good) {
    Add(LogFault::kEnvelopeHash, row, "the kept envelope was changed");
    return Ok();
  }
  return CheckContent(row, kept_hash);
}

bool EnvelopeChecker::CheckGone(const store::EnvelopeRow& row) {
  if (!row.bytes.empty() && life_.destroyed().empty()) return false;
  const auto destroyed = life_.destroyed().find(
      {std::string(row.key_name), static_cast<std::uint32_t>(row.key_version)});
  if (destroyed == life_.destroyed().end()) {
    if (!row.bytes.empty()) return false;
    Add(LogFault::kDestroyed, row, "its envelope is gone, and no entry destroys it");
  } else if (!row.bytes.empty()) {
    Add(LogFault::kDestroyed, row,
        fmt::format("entry {} destroys it, and its envelope is here", destroyed->second));
  } else {
    ++tally_.num_destroyed;
  }
  return true;
}

Status EnvelopeChecker::CheckContent(const store::EnvelopeRow& row, const Bytes32& kept_hash) {
  envelope::ReadOptions any;
  any.accept_unknown_agent = true;
  const auto sealed = envelope::SealedEnvelope::Read(row.bytes, any);
  if (!sealed) {
    Add(LogFault::kEnvelopeSignature, row, sealed.error().message());
    return Ok();
  }
  ++tally_.num_signatures;
  if (sealed->hash() != kept_hash) {
    Add(LogFault::kEnvelopeHash, row, "the kept envelope was changed");
    return Ok();
  }
  const envelope::Header& header = sealed->header();
  if (header.key_name != row.key_name || header.key_version != row.key_version ||
      header.revision != row.revision || header.envelope_id != row.envelope_id) {
    Add(LogFault::kEnvelopeColumn, row,
        fmt::format("the envelope is of {} version {} revision {}", header.key_name,
                    header.key_version, header.revision));
  }
  if (!row.path_set.empty()) {
    const auto set = PathSetDigest(header);
    if (!set || !std::equal(set->begin(), set->end(), row.path_set.begin(), row.path_set.end())) {
      Add(LogFault::kEnvelopeColumn, row, "path_set says other paths than the envelope has");
    }
  }
  if (!trust_.Allows(header, static_cast<std::uint64_t>(row.log_seq))) {
    Add(LogFault::kEnvelopeSignature, row,
        fmt::format("the agent {} was not trusted for it then", header.agent));
  }
  for (const envelope::PathRecord& path : header.paths) {
    ++tally_.num_paths;
    for (const envelope::FactorRecord& factor : path.factors) {
      if (std::holds_alternative<envelope::Tpm2Record>(factor)) ++tally_.num_tpm_objects;
    }
  }
  ASSIGN_OR_RETURN(const bool has_its_time,
                   HasItsTime(reader_, row, header, trust_.IsOwn(header.agent)));
  if (!has_its_time) {
    Add(LogFault::kEnvelopeColumn, row,
        fmt::format("its row is of {}, the envelope was made at {}", FormatUtc(row.created),
                    header.created));
  }
  RETURN_IF_ERROR(CheckPolicy(row, header));
  return CheckPrevious(row, header);
}

Status EnvelopeChecker::CheckPolicy(const store::EnvelopeRow& row, const envelope::Header& header) {
  // An envelope that was imported was made under the policy of another agent.
  if (!trust_.IsOwn(header.agent)) return Ok();
  auto first_created = ParseUtc(header.created);
  if (policies_.asks_age()) {
    ASSIGN_OR_RETURN(first_created, reader_.FirstCreated(row.key_name));
  }
  const auto seq = static_cast<std::uint64_t>(row.log_seq);
  const std::int64_t created = first_created.value_or(row.created);
  std::string violation = policies_.Violation(header, seq, created);
  ++tally_.num_held_to_policy;
  if (!violation.empty() && header.revision > 1) {
    // An edit need not mend what the revision before it lacked already; it may break nothing.
    ASSIGN_OR_RETURN(const auto bytes,
                     reader_.EnvelopeBytes(row.key_name, row.key_version, row.revision - 1));
    envelope::ReadOptions any;
    any.accept_unknown_agent = true;
    if (bytes) {
      const auto before = envelope::SealedEnvelope::Read(*bytes, any);
      if (before) violation = policies_.Violation(header, seq, created, &before->header());
    }
  }
  if (!violation.empty()) Add(LogFault::kPolicyNotMet, row, violation);
  return Ok();
}

Status EnvelopeChecker::CheckPrevious(const store::EnvelopeRow& row,
                                      const envelope::Header& header) {
  if (header.revision == 1) return Ok();
  ASSIGN_OR_RETURN(const auto previous,
                   reader_.EnvelopeSha256(row.key_name, row.key_version, row.revision - 1));
  // One that is not here is told by the gap that it leaves.
  if (previous && EncodeBase64Url(*previous) != header.previous) {
    Add(LogFault::kRevisionChain, row, "it does not name the revision before it");
  }
  return Ok();
}

}  // namespace keyescrow::agent
