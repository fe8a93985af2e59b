// What is kept of a rotation, and how one that was interrupted is judged: by the key that stands
// where the new one was to go.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/audit/event.h"
#include "agent/policy/finding.h"
#include "agent/store/escrow_store.h"
#include "agent/usecases/agent.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {

// RotationEvent is a key.rotated: pending while it is under way, success once the new version is in
// use, failure where it was abandoned. `how` completes "version 1 to 2: …".
audit::Event RotationEvent(const store::RotationRecord& record, audit::Outcome outcome,
                           std::string_view how);

// RotationIsOpen is the error for whoever may not go on beside it.
Error RotationIsOpen(const store::RotationRecord& record);
// StepText: "before version 2 was handed over", "while version 2 was handed over" …
std::string StepText(const store::RotationRecord& record);

// Held: which version stands at a place.
enum class Held : std::uint8_t { kNew, kOld, kOther, kNothing, kUnknown };
struct HeldKey {
  Held held = Held::kUnknown;
  std::string where;                // "/etc/app/key"; "" where there is no place to look at
  std::string why_not;              // of kUnknown
  std::string remedy;               // of what is not there and may come back, or ""
  std::optional<unsigned> keyslot;  // of kNew at a LUKS volume
  bool is_not_new = false;          // of kUnknown: but the new one it is not
};

// PlaceOf returns where the key in use stands: the rotation's sink where that is a file or a LUKS
// volume, else the declared source; "" where neither can be looked at again.
std::string PlaceOf(const Agent& agent, const std::string& key_name, const std::string& sink);
// IsVolume tells whether a place is a LUKS volume: old and new key may then stand side by side, and
// nobody can read them back.
bool IsVolume(const std::string& place);

// WhatStands reads the key at `place` and compares it with both versions by their fingerprints. A
// declared command is run. Of a volume it tells whether `new_key` opens a keyslot; without it,
// kUnknown. Errors: kMemoryLockLimit, kOutOfMemory, kStore*.
Result<HeldKey> WhatStands(Agent& agent, const store::RotationRecord& record,
                           const std::string& place, const SecretBytes* new_key = nullptr);

// RotationFindings: every rotation that is under way, of `key_name` or ("") of all keys, and what a
// confirmed or an abandoned one left at a LUKS volume.
Result<std::vector<Finding>> RotationFindings(Agent& agent, const std::string& key_name);

// KeySince tells, from the log, when the key that is in use was made, and when it was released
// since: a backup of the same bytes makes a new version and no new key.
struct KeySince {
  std::optional<std::int64_t> made;      // none where the log does not tell
  std::optional<std::int64_t> released;  // first release since: another one gives no more time
};
Result<KeySince> ReadKeySince(Agent& agent, const std::string& key_name, std::uint32_t in_use);

// RotationLock holds a key's rotation for this process; the kernel gives it back when it dies.
class RotationLock {
 public:
  // Take does not wait. Errors: kStoreBusy while another process has it; kStoreUnavailable.
  static Result<RotationLock> Take(const std::string& state_dir, const std::string& key_name);
  RotationLock(RotationLock&& other) noexcept : file_(other.file_) { other.file_ = -1; }
  RotationLock& operator=(RotationLock&&) = delete;
  ~RotationLock();

 private:
  explicit RotationLock(int file) : file_(file) {}
  int file_ = -1;
};

}  // namespace keyescrow::agent
