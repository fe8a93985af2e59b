// luks:DEVICE-OR-IMAGE, see key_location.h.
#pragma once

#include <memory>
#include <string>

#include "agent/key_locations/key_location.h"

namespace keyescrow::agent {

// MakeLuksLocation: a LUKS2 volume. `unlock_file` holds the passphrase of one of its keyslots, or
// its volume key; it is read once, and closed to others as every file with a secret.
//
// Read returns the volume key. Write makes `key` the passphrase of another keyslot:
//   `key` is the volume key, or opens a keyslot already: done, nothing written
//   else: a keyslot is added, the header read again from the disk, and the keyslot opened
// It never replaces or removes what others opened the volume with; `replace` changes nothing.
// CheckWritable unlocks the volume, so that a wrong unlock file is refused before anything else is
// done. Write may be called after it without another unlocking.
// Errors: kNotFound, kInvalidLocation where it is no LUKS2 volume, kWrongPassword, kDestinationFull
// without room for a keyslot, kUnsupportedHere without libcryptsetup; kSecretSourceMissing without
// an unlock file; kDestinationOtherKey where `options.volume_key` and another volume key is there.
std::unique_ptr<KeyLocation> MakeLuksLocation(std::string path, std::string unlock_file);

// CheckLibcryptsetup says whether what opens volumes can be loaded. Errors: kUnsupportedHere.
Status CheckLibcryptsetup();

}  // namespace keyescrow::agent
