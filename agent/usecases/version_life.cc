#include "agent/usecases/version_life.h"

#include <fmt/core.h>

#include <charconv>

namespace keyescrow::agent {
namespace {

using audit::LogFault;
using audit::Outcome;

audit::Outcome OutcomeOf(store::RotationStep step) {
  switch (step) {
    case store::RotationStep::kConfirmed: return Outcome::kSuccess;
    case store::RotationStep::kAbandoned: return Outcome::kFailure;
    default: return Outcome::kPending;
  }
}

std::string Text(const KeyVersion& version) {
  return fmt::format("{} version {}", version.first, version.second);
}

}  // namespace

std::string RotationReason(std::uint32_t old_version, std::uint32_t version, std::string_view how) {
  return fmt::format("version {} to {}: {}", old_version, version, how);
}

std::optional<std::uint32_t> OldVersionIn(std::string_view reason, std::uint32_t version) {
  constexpr std::string_view kBegin = "version ";
  if (!reason.starts_with(kBegin)) return std::nullopt;
  std::uint32_t old_version = 0;
  const char* const digits = reason.data() + kBegin.size();
  const auto [end, error] = std::from_chars(digits, reason.data() + reason.size(), old_version);
  if (error != std::errc() || !reason.starts_with(RotationReason(old_version, version, ""))) {
    return std::nullopt;
  }
  return old_version;
}

void VersionLife::AddRotated(const KeyVersion& version, const RotationChange& last,
                             audit::LogFindings& findings) {
  RotationChange& change = rotations_[version];
  if (change.begun && change.outcome != Outcome::kPending) {
    findings.Add(LogFault::kRotationUnlogged, last.seq,
                 fmt::format("entry {}: the rotation to {} had ended", last.seq, Text(version)));
  }
  change.begun = change.begun || last.outcome != Outcome::kSuccess;
  change.seq = last.seq;
  change.outcome = last.outcome;
  change.old_version = last.old_version;
}

void VersionLife::AddDestroyed(const KeyVersion& version, std::uint64_t seq,
                               audit::LogFindings& findings) {
  const auto [known, is_new] = destroyed_.emplace(version, seq);
  if (is_new) return;
  findings.Add(LogFault::kDestroyed, seq,
               fmt::format("entry {}: {} was destroyed before, by entry {}", seq, Text(version),
                           known->second));
}

bool VersionLife::CountsInUse(const KeyVersion& version) const {
  if (destroyed_.contains(version)) return false;
  const auto rotation = rotations_.find(version);
  return rotation == rotations_.end() || rotation->second.outcome == Outcome::kSuccess;
}

std::uint32_t VersionLife::HighestDestroyed(const std::string& key_name) const {
  auto after = destroyed_.upper_bound({key_name, UINT32_MAX});
  if (after == destroyed_.begin()) return 0;
  --after;
  return after->first.first == key_name ? after->first.second : 0;
}

void CompareRotations(const std::vector<store::RotationRecord>& rows, const VersionLife& logged,
                      audit::LogFindings& findings) {
  std::set<KeyVersion> known;
  for (const store::RotationRecord& row : rows) {
    const KeyVersion version(row.key_name, row.key_version);
    known.insert(version);
    const auto change = logged.rotations().find(version);
    // Of other bytes that a backup found there is an entry, and no row.
    if (change == logged.rotations().end() || !change->second.begun) {
      findings.Add(LogFault::kRotationUnlogged, 0,
                   fmt::format("no entry tells of the rotation to {}", Text(version)));
    } else if (change->second.outcome != OutcomeOf(row.step)) {
      findings.Add(LogFault::kRotationUnlogged, change->second.seq,
                   fmt::format("the rotation to {} is {} in the store, and {} in the log",
                               Text(version), store::RotationStepName(row.step),
                               audit::OutcomeName(change->second.outcome)));
    } else if (change->second.old_version.value_or(row.old_version) != row.old_version) {
      findings.Add(LogFault::kRotationUnlogged, change->second.seq,
                   fmt::format("the rotation to {} is from version {} in the store, and from "
                               "version {} in the log",
                               Text(version), row.old_version, *change->second.old_version));
    }
  }
  for (const auto& [version, change] : logged.rotations()) {
    if (!change.begun || known.contains(version)) continue;
    findings.Add(LogFault::kRotationUnlogged, change.seq,
                 fmt::format("entry {} tells of a rotation to {} that the store does not know",
                             change.seq, Text(version)));
  }
}

void CompareDestroyed(const std::vector<store::DestroyedRecord>& rows, const VersionLife& logged,
                      audit::LogFindings& findings) {
  std::set<KeyVersion> known;
  for (const store::DestroyedRecord& row : rows) {
    const KeyVersion version(row.key_name, row.key_version);
    known.insert(version);
    const auto entry = logged.destroyed().find(version);
    if (entry == logged.destroyed().end() || entry->second != row.log_seq) {
      findings.Add(LogFault::kDestroyed, row.log_seq,
                   fmt::format("entry {} does not destroy {}, as the store says", row.log_seq,
                               Text(version)));
    }
  }
  for (const auto& [version, seq] : logged.destroyed()) {
    if (known.contains(version)) continue;
    findings.Add(
        LogFault::kDestroyed, seq,
        fmt::format("entry {} destroys {}, and the store does not know it", seq, Text(version)));
  }
}

}  // namespace keyescrow::agent
