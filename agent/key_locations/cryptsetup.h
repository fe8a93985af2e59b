// libcryptsetup, loaded at the first use of a LUKS volume: it brings eleven libraries and their
// start-up with it, which no other command should pay for (docs/decisions/0011). The one place that
// includes its header.
#pragma once

#include <libcryptsetup.h>

#include "envelope/base/result.h"

namespace keyescrow::agent {

// Cryptsetup: its functions, with the types that <libcryptsetup.h> declares. Functions that the
// header marks as of version 2.4 or later are not used: Debian 11's library serves too.
struct Cryptsetup {
  decltype(&crypt_init) init = nullptr;
  decltype(&crypt_free) free = nullptr;
  decltype(&crypt_load) load = nullptr;
  decltype(&crypt_set_log_callback) set_log_callback = nullptr;
  decltype(&crypt_set_pbkdf_type) set_pbkdf_type = nullptr;
  decltype(&crypt_get_volume_key_size) get_volume_key_size = nullptr;
  decltype(&crypt_volume_key_get) volume_key_get = nullptr;
  decltype(&crypt_volume_key_verify) volume_key_verify = nullptr;
  decltype(&crypt_keyslot_add_by_volume_key) keyslot_add_by_volume_key = nullptr;
  decltype(&crypt_activate_by_passphrase) activate_by_passphrase = nullptr;
  decltype(&crypt_keyslot_destroy) keyslot_destroy = nullptr;
};

// LoadCryptsetup loads it once a process. Errors: kUnsupportedHere.
Result<const Cryptsetup*> LoadCryptsetup();

}  // namespace keyescrow::agent
