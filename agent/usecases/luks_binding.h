// Keys at LUKS2 volumes: what ties an escrowed version to a volume, and whether it still does. All
// of it is read from the volume's header, without any secret and without libcryptsetup.
//
// A version is bound to a volume either as its volume key (it was read from there) or as the secret
// of one of its keyslots (it was handed over there). A volume is known by its UUID, whatever path
// it is reached by; what a path held before counts as well, since formatting gives a new UUID.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/key_locations/key_location.h"
#include "agent/store/escrow_store.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/drift.h"

namespace keyescrow::agent {

// Whether a version was put at a volume before a rotation ended or after is told by the times of
// the two records alone, and clocks are set back: each is made no earlier than what was committed
// before. BindingTime is after each change of the key's rotations, RotationTime not before each of
// its bindings and of `also`. Errors: kStore*.
Result<std::int64_t> BindingTime(Agent& agent, const std::string& key_name);
Result<std::int64_t> RotationTime(Agent& agent, const std::string& key_name,
                                  const std::vector<store::LuksBindingRecord>& also);

// MakeLuksBinding is the record of a version that is at `location` now: as the secret of `keyslot`,
// or without one as the volume key. None where the location is no volume. Errors: ReadLuksHeader's;
// kNotFound where the keyslot is gone again.
Result<std::optional<store::LuksBindingRecord>> MakeLuksBinding(Agent& agent,
                                                                const std::string& key_name,
                                                                std::uint32_t version,
                                                                const KeyLocation& location,
                                                                std::optional<unsigned> keyslot);

// IsVolumeKey tells whether the version is, or was, the volume key of some volume: then it must not
// become the secret of a keyslot anywhere. A volume is re-encrypted because its old key is out, and
// the path it is reached by may be another today. Errors: kStore*.
Result<bool> IsVolumeKey(Agent& agent, const std::string& key_name, std::uint32_t version);

// CheckNotMixed refuses a backup that would put a volume key and a keyslot's secret under one name:
// `generates` is the secret of a new keyslot, else the volume key is read. Errors: kUsage.
Status CheckNotMixed(Agent& agent, const std::string& key_name, const KeyLocation& location,
                     bool generates);

// CheckVolume compares the volume at `path` with what the bindings of `key_name` say. `bindings`
// are those of the key, or of all keys.
DriftResult CheckVolume(const std::vector<store::LuksBindingRecord>& bindings,
                        const std::string& key_name, std::uint32_t newest, const std::string& path);

// KeyslotInUse returns the version in use where it is the secret of a keyslot of the volume
// `source`, and that keyslot stands as it was seen: nobody can read it back, and nothing is left to
// escrow.
Result<std::optional<std::uint32_t>> KeyslotInUse(Agent& agent, const std::string& key_name,
                                                  const std::string& source);

// StandingKeyslots names the keyslots that versions of the key still open, as their headers say:
// "keyslot 1 of /dev/sda3"; where one is the volume's own key, "the volume /dev/sda3".
Result<std::vector<std::string>> StandingKeyslots(Agent& agent, const std::string& key_name);

// OldKeyslot: what a volume's header tells of the keyslot of a version that is superseded.
struct OldKeyslot {
  enum class State : std::uint8_t {
    kStands,   // as it was seen
    kGone,     // removed, or the version was never at a volume
    kUnknown,  // changed, of a volume that was re-encrypted, or of a version that was imported
  };
  State state = State::kUnknown;
  std::optional<RetiredSecret> keyslot;  // of kStands
  std::optional<unsigned> changed;       // of kUnknown: the number of the one that was changed
};
// FindOldKeyslot looks for that of the rotation's old version at `location`. `new_keyslot`: that of
// the new version. Errors: kStore*.
Result<OldKeyslot> FindOldKeyslot(Agent& agent, const store::RotationRecord& rotation,
                                  const KeyLocation& location, std::optional<unsigned> new_keyslot);

// SupersededKeyslot: a keyslot of a version that a rotation superseded still stands at the volume
// where that rotation put the new one: it ended between its last two steps.
struct SupersededKeyslot {
  std::string device;
  store::LuksBindingRecord::Keyslot old_keyslot;
  store::LuksBindingRecord::Keyslot new_keyslot;
};
// FindSupersededKeyslot looks, without any secret, for what a confirmed rotation left where it
// added a keyslot itself. Not for what was put back there since. Errors: kStore*.
Result<std::optional<SupersededKeyslot>> FindSupersededKeyslot(
    Agent& agent, const store::RotationRecord& rotation);
// RetireSuperseded removes it, where the new version's keyslot is as it was when it was proven.
// Errors: KeyLocation::RetireBeside's.
Status RetireSuperseded(const SupersededKeyslot& superseded);

}  // namespace keyescrow::agent
