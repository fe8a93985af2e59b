// The keyslot that a superseded version may still open, where a volume's header does not tell which
// it is: it was changed (`cryptsetup luksConvertKey`), the volume was re-encrypted, the version was
// imported, or a command replaced it.
//
// The store learns with the end of the rotation which keyslots it may be. A rotation that can open
// the old version sees which it is; `status` tells of the others, until one of them is gone.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/policy/finding.h"
#include "agent/store/escrow_store.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/luks_binding.h"

namespace keyescrow::agent {

// IsNotKnownWhich tells whether a binding is the record that MayOpen makes.
bool IsNotKnownWhich(const store::LuksBindingRecord& binding);

// MayOpen is the record that the rotation's old version may open a keyslot of the volume at `path`:
// the one that was changed or stands, or any but `new_keyslot`. None where no other is there.
// Errors: ReadLuksHeader's.
Result<std::optional<store::LuksBindingRecord>> MayOpen(const store::RotationRecord& rotation,
                                                        const std::string& path,
                                                        const OldKeyslot& old,
                                                        std::optional<unsigned> new_keyslot);

// OpensNoMore is what those records become once the version was seen to open no keyslot.
// Errors: kStore*.
Result<std::vector<store::LuksBindingRecord>> OpensNoMore(Agent& agent, const std::string& key_name,
                                                          std::uint32_t version);

// SupersededFindings: those that may stand, of `key_name` or ("") of all keys. Errors: kStore*.
Result<std::vector<Finding>> SupersededFindings(Agent& agent, const std::string& key_name);

}  // namespace keyescrow::agent
