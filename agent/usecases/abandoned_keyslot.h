// The keyslot that a rotation may have left in a LUKS volume, where it was abandoned.
//
// A hand-over that was killed cannot say whether it added its keyslot, and a volume does not say
// without a secret whose a keyslot is. So the store learns before the hand-over which number a new
// keyslot would get, at the abandonment what stands under that number, and `status` looks whether
// it still does. Nothing is removed: that it is the new version's is not proven.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "agent/policy/finding.h"
#include "agent/store/escrow_store.h"
#include "agent/usecases/agent.h"

namespace keyescrow::agent {

// kNoKeyslot is a number that no keyslot has: nothing was left.
inline constexpr std::uint32_t kNoKeyslot = UINT32_MAX;

// RemovesKeyslot is the remedy that removes the keyslot which the version opens, whichever it is,
// and no other.
std::string RemovesKeyslot(const store::LuksBindingRecord& binding);

// ExpectKeyslot is the record that `record`'s new version is about to be handed over to `place`:
// the lowest number that no keyslot of the volume has. None where it is no volume, where its header
// does not read, and where the version was about to be handed over there before. Errors: kStore*.
Result<std::optional<store::LuksBindingRecord>> ExpectKeyslot(Agent& agent,
                                                              const store::RotationRecord& record,
                                                              const std::string& place);

// LeftAtVolumes: what a rotation that ends without its new version may leave.
struct LeftAtVolumes {
  std::vector<store::LuksBindingRecord> bindings;  // to be committed with the abandonment
  std::vector<std::string> findings;
};
// LookForLeft looks at the volumes that the new version was to be handed over to. `empty`: a place
// that was seen to have none of it, or "". Errors: kStore*.
Result<LeftAtVolumes> LookForLeft(Agent& agent, const store::RotationRecord& record,
                                  const std::string& empty);

// AbandonedKeyslotFindings: those that still stand, of `key_name` or ("") of all keys. What a
// person put there since is theirs. Errors: kStore*.
Result<std::vector<Finding>> AbandonedKeyslotFindings(
    Agent& agent, const std::string& key_name, const std::vector<store::RotationRecord>& rotations);

}  // namespace keyescrow::agent
