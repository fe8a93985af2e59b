#include "agent/usecases/registration_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <utility>

#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/registered_recovery_key.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"
#include "envelope/base/p256.h"

namespace keyescrow::agent {
namespace {

using audit::EventType;
using audit::LogFault;
using store::StoreReader;

constexpr int kSchemaWithOverrides = 5;

// CameByImport: an envelope that another host made may be of any version.
Result<bool> CameByImport(StoreReader& reader, std::int64_t envelope_id) {
  std::uint64_t seq = 0;
  RETURN_IF_ERROR(reader.Envelopes(envelope_id, envelope_id, [&](const store::EnvelopeRow& row) {
    seq = static_cast<std::uint64_t>(row.log_seq);
    return false;
  }));
  ASSIGN_OR_RETURN(const auto bytes, reader.EntryBytes(seq));
  if (!bytes) return false;
  const auto event = audit::ParseEvent(AsText(*bytes));
  return event && event->reason.starts_with(kImportedReason);
}

bool Proves(const audit::EventFacts& facts, const store::PathState& state) {
  const bool is_proof =
      facts.type == EventType::kDrillPassed || facts.type == EventType::kRestoreCompleted;
  // An imported event proves no path of this host: nothing signed it when it was written.
  return is_proof && facts.source != audit::kStatelessSource &&
         facts.outcome == audit::Outcome::kSuccess && facts.key_name == state.key_name &&
         facts.key_version == state.key_version && facts.revision == state.proven_revision &&
         NamesPath(facts, state.path_id) &&
         std::llabs(facts.time - *state.proven) <= kProofToleranceSeconds;
}

}  // namespace

void RegistrationChecker::Add(LogFault fault, std::uint64_t position, std::string text) {
  const std::lock_guard lock(mutex_);
  tally_.findings.Add(fault, position, std::move(text));
}

Status RegistrationChecker::CheckEnvelopeIndex(StoreReader& reader) {
  KeyedSum sum(key_);
  std::string name;
  std::int64_t version = 0;
  std::int64_t revision = 0;
  std::uint64_t num_keys = 0;
  Status status;
  const auto check_gap = [&](const store::EnvelopeKeyRow& row) -> Status {
    const bool same_name = row.key_name == name;
    const bool next = same_name && row.key_version == version
                          ? row.revision == revision + 1
                          : row.revision == 1 && row.key_version == (same_name ? version + 1 : 1);
    if (!same_name) {
      name = row.key_name;
      ++num_keys;
    }
    version = row.key_version;
    revision = row.revision;
    if (next) return Ok();
    ASSIGN_OR_RETURN(const bool imported, CameByImport(reader, row.id));
    if (imported) return Ok();
    Add(LogFault::kVersionGap, 0,
        fmt::format("{} version {} revision {}: what comes before it is not in the store", name,
                    version, revision));
    return Ok();
  };
  RETURN_IF_ERROR(reader.EnvelopeKeys([&](const store::EnvelopeKeyRow& row) {
    sum.Add(row.key_name, static_cast<std::uint64_t>(row.key_version),
            static_cast<std::uint64_t>(row.revision), static_cast<std::uint64_t>(row.id));
    status = check_gap(row);
    return status.has_value();
  }));
  RETURN_IF_ERROR(std::move(status));
  if (!(sum == envelope_keys_)) {
    Add(LogFault::kIndex, 0, "the index of envelopes by key does not hold what the table holds");
  }
  const std::lock_guard lock(mutex_);
  tally_.num_keys = num_keys;
  return Ok();
}

Status RegistrationChecker::CheckEntryIndex(StoreReader& reader) {
  if (reader.schema_version() < kSchemaWithEntryIndex) return Ok();
  KeyedSum sum(key_);
  RETURN_IF_ERROR(reader.EntryKeys([&](std::string_view key_name, std::uint64_t seq) {
    sum.Add(key_name, seq);
    return true;
  }));
  if (!(sum == entry_keys_)) {
    Add(LogFault::kIndex, 0, "the index of entries by key does not hold what the table holds");
  }
  return Ok();
}

Status RegistrationChecker::CheckProofs(StoreReader& reader, unsigned part, unsigned num_parts) {
  if (quick_ || reader.schema_version() < kSchemaWithEntryIndex) return Ok();
  audit::EventReader events;
  std::uint64_t num_proofs = 0;
  std::uint64_t num_signed = 0;
  Status status;
  RETURN_IF_ERROR(reader.PathStates([&](const store::PathState& state) {
    if (!state.proven) return true;
    const std::uint64_t share = KeyedSum::RowHash(key_, state.key_name, 0, 0, 2);
    if (share % num_parts != part) return true;
    bool proven = false;
    bool is_signed = false;
    status = reader.EntriesOfKey(state.key_name, [&](const store::EntryRow& row) {
      const auto facts = events.Read(AsText(row.bytes));
      proven = facts && Proves(*facts, state) && row.seq == state.proof_seq.value_or(row.seq);
      is_signed = proven && facts->event != nullptr && facts->event->drill &&
                  !std::binary_search(bad_drills_.begin(), bad_drills_.end(), row.seq);
      return !proven;
    });
    if (!status) return false;
    if (proven) {
      ++num_proofs;
      num_signed += is_signed ? 1U : 0U;
    } else {
      Add(LogFault::kProofUnlogged, 0,
          fmt::format("{} version {}: no entry proves the path {} at {}", state.key_name,
                      state.key_version, state.path_id, FormatUtc(*state.proven)));
    }
    return true;
  }));
  RETURN_IF_ERROR(std::move(status));
  const std::lock_guard lock(mutex_);
  tally_.num_proofs += num_proofs;
  tally_.num_signed_proofs += num_signed;
  return Ok();
}

void CompareTokens(const std::vector<store::TokenRecord>& rows, const TokenChanges& logged,
                   audit::LogFindings& findings) {
  std::set<std::string> registered;
  for (const store::TokenRecord& token : rows) {
    registered.insert(token.name);
    const auto change = logged.find(token.name);
    if (change == logged.end() || !change->second.added) {
      findings.Add(LogFault::kTokenUnlogged, 0,
                   fmt::format("no entry registers the token {}", token.name));
    } else if (change->second.key_sha256 && *change->second.key_sha256 != Sha256(token.spki)) {
      findings.Add(LogFault::kTokenUnlogged, change->second.seq,
                   fmt::format("the token {} was registered with another key", token.name));
    }
  }
  for (const auto& [name, change] : logged) {
    if (change.added && !registered.contains(name)) {
      findings.Add(LogFault::kTokenUnlogged, change.seq,
                   fmt::format("the token {} was registered, and is not in the list", name));
    }
  }
}

Status RegistrationChecker::CheckTokens(StoreReader& reader) {
  ASSIGN_OR_RETURN(const auto rows, reader.Tokens());
  audit::LogFindings findings;
  CompareTokens(rows, order_.tokens(), findings);
  for (const store::TokenRecord& token : rows) {
    const auto change = order_.tokens().find(token.name);
    if (change == order_.tokens().end() || change->second.evidence.empty()) continue;
    if (change->second.evidence == TokenEvidence(token.evidence)) continue;
    findings.Add(LogFault::kTokenUnlogged, change->second.seq,
                 fmt::format("what the store says of the token {} is not what was seen when it was "
                             "registered",
                             token.name));
  }
  const std::lock_guard lock(mutex_);
  tally_.findings.Append(std::move(findings));
  tally_.num_tokens = rows.size();
  return Ok();
}

void CompareRecoveryKeyList(const std::vector<store::RecoveryKeyRecord>& rows,
                            const TokenChanges& logged, audit::LogFindings& findings) {
  std::set<std::string> registered;
  for (const store::RecoveryKeyRecord& row : rows) {
    registered.insert(row.name);
    const auto change = logged.find(row.name);
    if (change == logged.end() || change->second.added == row.retired.has_value()) {
      findings.Add(LogFault::kTokenUnlogged, change == logged.end() ? 0 : change->second.seq,
                   fmt::format("no entry {} the recovery key {}",
                               row.retired ? "retires" : "registers", row.name));
    } else if (change->second.key_sha256 && *change->second.key_sha256 != row.sha256) {
      findings.Add(LogFault::kTokenUnlogged, change->second.seq,
                   fmt::format("the recovery key {} was registered with another record", row.name));
    }
  }
  for (const auto& [name, change] : logged) {
    if (registered.contains(name)) continue;
    findings.Add(LogFault::kTokenUnlogged, change.seq,
                 fmt::format("the recovery key {} was registered, and is not in the list", name));
  }
}

void CompareRecoveryKeys(const std::vector<store::RecoveryKeyRecord>& rows,
                         const TokenChanges& logged, audit::LogFindings& findings) {
  CompareRecoveryKeyList(rows, logged, findings);
  for (const store::RecoveryKeyRecord& row : rows) {
    if (ReadRegistered(row)) continue;
    findings.Add(LogFault::kTokenUnlogged, 0,
                 fmt::format("the record of the recovery key {} is not the one that its row names",
                             row.name));
  }
}

void CompareTrust(const std::vector<store::TrustRecord>& rows, const TrustChanges& logged,
                  audit::LogFindings& findings) {
  std::set<std::string> known;
  for (const store::TrustRecord& row : rows) {
    known.insert(row.thumbprint);
    const auto changes = logged.find(row.thumbprint);
    if (changes == logged.end()) {
      findings.Add(LogFault::kTrustUnlogged, 0,
                   fmt::format("no entry adds the trusted agent {}", row.thumbprint));
      continue;
    }
    const TrustChange& last = changes->second.back();
    if (last.added == row.removed.has_value()) {
      findings.Add(
          LogFault::kTrustUnlogged, last.seq,
          fmt::format("the agent {} is {} in the store, and {} in the log", row.thumbprint,
                      row.removed ? "removed" : "trusted", last.added ? "trusted" : "removed"));
    }
    const auto added = std::find_if(changes->second.rbegin(), changes->second.rend(),
                                    [](const TrustChange& change) { return change.added; });
    if (added != changes->second.rend() && !added->limits.empty() &&
        added->limits != TrustLimits(row.hosts, row.keys)) {
      findings.Add(LogFault::kTrustUnlogged, added->seq,
                   fmt::format("the agent {} was trusted for other hosts or keys", row.thumbprint));
    }
    const auto point = row.spki.empty() ? std::nullopt : P256Point::FromSpki(row.spki);
    if (!row.spki.empty() && (!point || JwkThumbprint(*point) != row.thumbprint)) {
      findings.Add(LogFault::kTrustUnlogged, last.seq,
                   fmt::format("the key kept for the agent {} is another", row.thumbprint));
    }
  }
  for (const auto& [thumbprint, changes] : logged) {
    if (!known.contains(thumbprint)) {
      findings.Add(LogFault::kTrustUnlogged, changes.back().seq,
                   fmt::format("the agent {} was trusted, and is not in the list", thumbprint));
    }
  }
}

Status RegistrationChecker::CheckRecoveryKeys(StoreReader& reader) {
  ASSIGN_OR_RETURN(const auto rows, reader.RecoveryKeys());
  audit::LogFindings findings;
  CompareRecoveryKeys(rows, order_.recovery_keys(), findings);
  audit::EventReader events;
  for (const store::RecoveryKeyRecord& row : rows) {
    if (!row.drilled) continue;
    ASSIGN_OR_RETURN(const auto entry, reader.EntryBytes(row.drill_seq.value_or(0)));
    const auto facts =
        entry ? events.Read(AsText(*entry))
              : Result<audit::EventFacts>(
                    Error(ErrorCode::kLogDamaged, Action::kCallOperator, "no entry", "none"));
    if (facts && facts->type == EventType::kDrillPassed &&
        facts->source != audit::kStatelessSource && facts->factor_kind == kRecoveryKeyKind &&
        facts->factor_id == row.name && facts->factor_key_sha256 == row.sha256 &&
        std::llabs(facts->time - *row.drilled) <= kProofToleranceSeconds) {
      continue;
    }
    findings.Add(LogFault::kProofUnlogged, row.drill_seq.value_or(0),
                 fmt::format("no entry tells that the recovery key {} was opened at {}", row.name,
                             FormatUtc(*row.drilled)));
  }
  const std::lock_guard lock(mutex_);
  tally_.findings.Append(std::move(findings));
  tally_.num_recovery_keys = rows.size();
  return Ok();
}

Status RegistrationChecker::CheckTrust(StoreReader& reader) {
  ASSIGN_OR_RETURN(const auto rows, reader.Trust());
  audit::LogFindings findings;
  CompareTrust(rows, order_.trust(), findings);
  const std::lock_guard lock(mutex_);
  tally_.findings.Append(std::move(findings));
  tally_.num_trusted = rows.size();
  return Ok();
}

Status RegistrationChecker::CheckImported(StoreReader& reader) {
  std::uint64_t num_good = 0;
  RETURN_IF_ERROR(reader.ImportedEvents([&](const store::ImportedRow& row) {
    Bytes16 id{};
    if (row.event_id.size() == id.size()) std::ranges::copy(row.event_id, id.begin());
    const auto found = order_.imported().find(id);
    if (found == order_.imported().end() || static_cast<std::int64_t>(found->second) != row.seq) {
      Add(LogFault::kImportUnlogged, static_cast<std::uint64_t>(std::max<std::int64_t>(row.seq, 0)),
          fmt::format("entry {} is not the imported event that the store says", row.seq));
    } else {
      ++num_good;
    }
    return true;
  }));
  if (num_good < order_.imported().size()) {
    Add(LogFault::kImportUnlogged, 0,
        fmt::format("{} imported events could be imported again",
                    order_.imported().size() - num_good));
  }
  const std::lock_guard lock(mutex_);
  tally_.num_imported = num_good;
  return Ok();
}

void CompareOverrides(const std::vector<store::GateOverrideRecord>& rows,
                      const std::map<std::string, GateOverride>& logged,
                      audit::LogFindings& findings) {
  std::set<std::string> kept;
  for (const store::GateOverrideRecord& row : rows) {
    kept.insert(row.key_name);
    const auto found = logged.find(row.key_name);
    if (found != logged.end() && found->second.key_version == row.key_version &&
        std::llabs(found->second.time - row.time) <= kProofToleranceSeconds) {
      if (IsOverrideFor(found->second, row.reason)) continue;
      findings.Add(LogFault::kOverrideUnlogged, found->second.seq,
                   fmt::format("entry {} gives another reason for the override of the gate for {}",
                               found->second.seq, row.key_name));
      continue;
    }
    findings.Add(LogFault::kOverrideUnlogged, found == logged.end() ? 0 : found->second.seq,
                 fmt::format("no entry tells that the gate was overridden for {} version {} at {}",
                             row.key_name, row.key_version, FormatUtc(row.time)));
  }
  for (const auto& [name, gate] : logged) {
    if (kept.contains(name)) continue;
    findings.Add(LogFault::kOverrideUnlogged, gate.seq,
                 fmt::format("entry {} overrides the gate for {}, and the store does not say so",
                             gate.seq, name));
  }
}

Status RegistrationChecker::CheckOverrides(StoreReader& reader) {
  if (reader.schema_version() < kSchemaWithOverrides) return Ok();
  ASSIGN_OR_RETURN(const auto rows, reader.GateOverrides());
  audit::LogFindings findings;
  CompareOverrides(rows, order_.gate_overrides(), findings);
  const std::lock_guard lock(mutex_);
  tally_.findings.Append(std::move(findings));
  return Ok();
}

Status RegistrationChecker::CheckLife(StoreReader& reader) {
  ASSIGN_OR_RETURN(const auto rotations, reader.Rotations());
  ASSIGN_OR_RETURN(const auto destroyed, reader.Destroyed());
  audit::LogFindings findings;
  CompareRotations(rotations, order_.life(), findings);
  CompareDestroyed(destroyed, order_.life(), findings);
  const std::lock_guard lock(mutex_);
  tally_.findings.Append(std::move(findings));
  tally_.num_rotations = rotations.size();
  return Ok();
}

Status RegistrationChecker::CheckRows(StoreReader& reader) {
  RETURN_IF_ERROR(CheckTokens(reader));
  RETURN_IF_ERROR(CheckRecoveryKeys(reader));
  RETURN_IF_ERROR(CheckTrust(reader));
  RETURN_IF_ERROR(CheckImported(reader));
  RETURN_IF_ERROR(CheckOverrides(reader));
  RETURN_IF_ERROR(CheckLife(reader));
  RETURN_IF_ERROR(CheckFailures(reader));
  RETURN_IF_ERROR(CheckRecoveryKeyFailures(reader));
  RETURN_IF_ERROR(CheckForeign(reader));
  ASSIGN_OR_RETURN(const auto settings, reader.Settings());
  std::vector<std::string> names;
  for (const store::Setting& setting : settings) names.push_back(setting.name);
  const bool simulator = std::ranges::count(names, kTpmSimulatorSetting) != 0;
  if (order_.tpm_simulator().value_or(simulator) != simulator) {
    Add(LogFault::kTokenUnlogged, 0,
        fmt::format("the store says that the tpm is {}, and the log's first entry another thing",
                    simulator ? "a simulator" : "no simulator"));
  }
  const std::lock_guard lock(mutex_);
  tally_.settings = std::move(names);
  return Ok();
}

}  // namespace keyescrow::agent
