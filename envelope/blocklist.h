// Blocklist: the passwords that everybody tries first. Constant data, searched in place: nothing
// is built at start-up, nothing is copied.
#pragma once

#include <cstddef>
#include <string_view>

#include "envelope/base/bytes.h"

namespace keyescrow::envelope {

// IsBlockedPassword is true when `folded` (ASCII letters already in lower case) is on the list.
// Time depends on `folded`; it is called only while a new password is chosen.
bool IsBlockedPassword(ByteView folded);

// BlocklistSize returns how many passwords the list holds.
std::size_t BlocklistSize();

// PassphraseWord returns word `index` (0–2047) of the list that GeneratePassphrase draws from.
std::string_view PassphraseWord(std::size_t index);

}  // namespace keyescrow::envelope
