// The place of a rotation: whether what stands there today is what stood there before. A path is a
// name alone: disks change their order, and file systems are not mounted.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/key_locations/key_location.h"
#include "agent/store/escrow_store.h"
#include "agent/usecases/agent.h"
#include "envelope/base/result.h"

namespace keyescrow::agent {

// OtherVolume: the volume at a path is none of those that versions of a key were handed over to.
struct OtherVolume {
  std::string uuid;                // what stands there
  store::LuksBindingRecord bound;  // one of those where a version is
};
// FindOtherVolume looks at the header alone. `with_expected`: a keyslot that was not seen counts.
// None where the versions have no keyslots, where it is one of their volumes, and where its header
// does not read. Errors: kStore*.
Result<std::optional<OtherVolume>> FindOtherVolume(Agent& agent, const std::string& key_name,
                                                   const std::vector<std::uint32_t>& versions,
                                                   const std::string& path, bool with_expected);

// CheckVolumeStands refuses a volume that is not that of the version in use: its key would be
// superseded, and open the real one as ever. Any place but a volume: Ok.
// Errors: kDestinationOtherKey, kStore*.
Status CheckVolumeStands(Agent& agent, const store::RotationRecord& record,
                         const KeyLocation& location);

// KeyStoodAt tells whether a key stood at the file `path` before the rotation, as far as that is
// known: the version in use was seen there, or the key is declared to live there. Errors: kStore*.
Result<bool> KeyStoodAt(Agent& agent, const store::RotationRecord& record, const std::string& path);

}  // namespace keyescrow::agent
