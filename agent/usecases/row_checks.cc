// Rows that tell of failures, and of what other tools escrowed, held against the log.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <utility>

#include "agent/usecases/recovery_key_failure.h"
#include "agent/usecases/registration_check.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent {

using audit::EventType;
using audit::LogFault;
using store::StoreReader;

bool NamesPath(const audit::EventFacts& facts, std::string_view path_id) {
  if (facts.path_id == path_id) return true;
  if (facts.event == nullptr) return false;
  return std::any_of(facts.event->paths.begin(), facts.event->paths.end(),
                     [&](const audit::EventPath& path) { return path.id == path_id; });
}

// IsOfTime: the row's failure is one of that time, or was put at the time of a proof that a clock
// of before had dated later.
bool IsOfTime(const store::PathState& state, std::int64_t time) {
  return std::llabs(*state.failed - time) <= kProofToleranceSeconds ||
         (state.proven == state.failed && time < *state.failed);
}

// StillFails: the envelope that failed is one that is kept, was the newest one then, and its path
// has not opened or been made anew since.
Result<bool> StillFails(StoreReader& reader, const PathName& path, const PathFailure& failure) {
  ASSIGN_OR_RETURN(const auto kept,
                   reader.EnvelopeSha256(path.key_name, path.key_version, failure.revision));
  if (kept != failure.envelope_sha256) return false;
  audit::EventReader events;
  bool fails = true;
  RETURN_IF_ERROR(reader.EntriesOfKey(path.key_name, [&](const store::EntryRow& row) {
    const auto facts = events.Read(AsText(row.bytes));
    if (!facts || facts->key_version != path.key_version ||
        facts->source == audit::kStatelessSource) {
      return true;
    }
    if (row.seq > failure.seq) {
      const bool ends =
          facts->type == EventType::kDrillPassed || facts->type == EventType::kRestoreCompleted ||
          facts->type == EventType::kFactorEnrolled || facts->type == EventType::kFactorRemoved;
      fails =
          !(ends && facts->outcome == audit::Outcome::kSuccess && NamesPath(*facts, path.path_id));
      return fails;
    }
    const bool writes =
        facts->type == EventType::kEscrowCreated || facts->type == EventType::kEscrowRewrapped;
    if (!writes || facts->outcome != audit::Outcome::kSuccess) return true;
    fails = facts->revision == failure.revision;
    return false;
  }));
  return fails;
}

Status RegistrationChecker::CheckFailures(StoreReader& reader) {
  if (reader.schema_version() < kSchemaWithEntryIndex) return Ok();
  std::map<PathName, PathFailure> missing;
  for (const auto& [path, failure] : order_.path_failures()) {
    if (order_.life().destroyed().contains({path.key_name, path.key_version})) continue;
    ASSIGN_OR_RETURN(const bool fails, StillFails(reader, path, failure));
    if (fails) missing.emplace(path, failure);
  }
  std::vector<store::PathState> unknown;  // failures whose entry is not the path's last one
  std::set<PathName> opened;
  RETURN_IF_ERROR(reader.PathStates([&](const store::PathState& state) {
    PathName path{state.key_name, state.key_version, state.path_id};
    const auto found = missing.find(path);
    const bool is_it = found != missing.end() && state.failed &&
                       state.failure == found->second.error && IsOfTime(state, found->second.time);
    if (is_it) {
      missing.erase(found);
    } else if (state.failed && state.failed >= state.proven.value_or(0)) {
      unknown.push_back(state);
    }
    if (state.proven && !is_it) opened.insert(std::move(path));
    return true;
  }));
  for (const auto& [path, failure] : missing) {
    // That another host's TPM is not here was never taken for a failure, and such a path never
    // opened here.
    if (failure.error.starts_with("tpm_") && !opened.contains(path)) continue;
    Add(LogFault::kProofUnlogged, failure.seq,
        fmt::format("entry {}: the path {} of {} version {} failed, and the store does not say so",
                    failure.seq, path.path_id, path.key_name, path.key_version));
  }
  audit::EventReader events;
  for (const store::PathState& state : unknown) {
    bool told = false;
    RETURN_IF_ERROR(reader.EntriesOfKey(state.key_name, [&](const store::EntryRow& row) {
      const auto facts = events.Read(AsText(row.bytes));
      told = facts && facts->key_version == state.key_version && facts->error == state.failure &&
             IsOfTime(state, facts->time);
      return !told;
    }));
    if (told) continue;
    Add(LogFault::kProofUnlogged, 0,
        fmt::format("{} version {}: no entry tells that the path {} failed at {}", state.key_name,
                    state.key_version, state.path_id, FormatUtc(*state.failed)));
  }
  return Ok();
}

void CompareRecoveryKeyFailures(const std::vector<store::RecoveryKeyRecord>& rows,
                                const std::vector<store::Setting>& settings,
                                const EventOrder& order, audit::LogFindings& findings) {
  for (const store::RecoveryKeyRecord& row : rows) {
    const auto setting =
        std::ranges::find(settings, RecoveryKeyFailureSetting(row.name), &store::Setting::name);
    const auto kept = setting == settings.end() || !setting->value
                          ? std::nullopt
                          : ParseFailure(*setting->value, row);
    const auto found = order.failed_recovery_keys().find(row.name);
    const bool is_logged = found != order.failed_recovery_keys().end() &&
                           found->second.sha256.value_or(row.sha256) == row.sha256;
    if (!is_logged) {
      if (!kept) continue;
      findings.Add(LogFault::kProofUnlogged, 0,
                   fmt::format("no entry tells that the recovery key {} failed at {}", row.name,
                               FormatUtc(kept->time)));
      continue;
    }
    const FailedRecoveryKey& logged = found->second;
    if (kept && kept->code == logged.error &&
        std::llabs(kept->time - logged.time) <= kProofToleranceSeconds) {
      continue;
    }
    findings.Add(LogFault::kProofUnlogged, logged.seq,
                 fmt::format("entry {}: the recovery key {} failed at {} with {}, and the store "
                             "does not say so",
                             logged.seq, row.name, FormatUtc(logged.time), logged.error));
  }
}

Status RegistrationChecker::CheckRecoveryKeyFailures(StoreReader& reader) {
  ASSIGN_OR_RETURN(const auto rows, reader.RecoveryKeys());
  ASSIGN_OR_RETURN(const auto settings, reader.Settings());
  audit::LogFindings findings;
  CompareRecoveryKeyFailures(rows, settings, order_, findings);
  const std::lock_guard lock(mutex_);
  tally_.findings.Append(std::move(findings));
  return Ok();
}

void CompareForeign(const std::vector<store::ForeignEscrowRecord>& rows, const EventOrder& order,
                    audit::LogFindings& findings) {
  std::set<std::string> known;
  for (const store::ForeignEscrowRecord& row : rows) {
    const ForeignMark mark = MarkForeign(row);
    const auto logged = order.foreign_escrows().find(mark.name);
    if (logged != order.foreign_escrows().end()) {
      known.insert(mark.name);
      const ForeignChange& change = logged->second;
      if (change.found && change.content == mark.content &&
          std::llabs(change.time - row.found) <= kProofToleranceSeconds) {
        continue;
      }
    } else if (std::ranges::any_of(order.unmarked_foreign(), [&](const std::string& reason) {
                 return IsUnmarkedFor(reason, row);
               })) {
      continue;
    }
    findings.Add(LogFault::kForeignUnlogged,
                 logged == order.foreign_escrows().end() ? 0 : logged->second.seq,
                 fmt::format("no entry tells of {} in {} of {} as the store does", row.kind,
                             row.item, row.place));
  }
  for (const auto& [name, change] : order.foreign_escrows()) {
    if (!change.found || known.contains(name)) continue;
    findings.Add(LogFault::kForeignUnlogged, change.seq,
                 fmt::format("entry {} tells of a foreign escrow, and the store does not know it",
                             change.seq));
  }
}

Status RegistrationChecker::CheckForeign(StoreReader& reader) {
  ASSIGN_OR_RETURN(const auto rows, reader.ForeignEscrows());
  audit::LogFindings findings;
  CompareForeign(rows, order_, findings);
  const std::lock_guard lock(mutex_);
  tally_.findings.Append(std::move(findings));
  return Ok();
}

}  // namespace keyescrow::agent
