// What the log says became of versions: rotations that were begun, confirmed or abandoned, and what
// was destroyed. Which version of a key is in use follows from it, for the store and for a pack.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/audit/event.h"
#include "agent/audit/log_faults.h"
#include "agent/store/escrow_store.h"

namespace keyescrow::agent {

// KeyVersion: name and version.
using KeyVersion = std::pair<std::string, std::uint32_t>;

// RotationChange: the last key.rotated of a version.
struct RotationChange {
  std::uint64_t seq = 0;
  audit::Outcome outcome{};
  std::optional<std::uint32_t> old_version = {};  // as its reason tells it
  bool begun = false;  // an entry said that it was under way: else a backup found other bytes
};

class VersionLife {
 public:
  // AddRotated and AddDestroyed take the log's own entries, in order. An entry of a version that
  // ended, or was destroyed, already is told.
  void AddRotated(const KeyVersion& version, const RotationChange& last,
                  audit::LogFindings& findings);
  void AddDestroyed(const KeyVersion& version, std::uint64_t seq, audit::LogFindings& findings);

  const std::map<KeyVersion, RotationChange>& rotations() const { return rotations_; }
  const std::map<KeyVersion, std::uint64_t>& destroyed() const { return destroyed_; }

  // CountsInUse: no rotation of it is still to be confirmed or was abandoned, and it is there.
  bool CountsInUse(const KeyVersion& version) const;
  // HighestDestroyed version of a key, 0 where none was.
  std::uint32_t HighestDestroyed(const std::string& key_name) const;

 private:
  std::map<KeyVersion, RotationChange> rotations_;
  std::map<KeyVersion, std::uint64_t> destroyed_;  // the entry that says so
};

// RotationReason is the reason of a key.rotated: "version 1 to 2: …"; OldVersionIn finds the first
// of them again, and nothing where a reason is not of this form or of another version.
std::string RotationReason(std::uint32_t old_version, std::uint32_t version, std::string_view how);
std::optional<std::uint32_t> OldVersionIn(std::string_view reason, std::uint32_t version);

// CompareRotations and CompareDestroyed hold the store's rows against it.
void CompareRotations(const std::vector<store::RotationRecord>& rows, const VersionLife& logged,
                      audit::LogFindings& findings);
void CompareDestroyed(const std::vector<store::DestroyedRecord>& rows, const VersionLife& logged,
                      audit::LogFindings& findings);

}  // namespace keyescrow::agent
