// Stretching a password: Argon2id (RFC 9106, version 0x13) and PBKDF2-HMAC-SHA-512 (RFC 8018).
#pragma once

#include "envelope/base/random.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/header.h"

namespace keyescrow::envelope {

// StretchPassword returns the password factor's S, 32 bytes. `password` is NFC UTF-8, 1–127 bytes
// (envelope/password.h). Blocks for the KDF's whole cost, about a second with the defaults; runs
// on min(lanes, cores) threads; takes `memory_kib` from huge pages where the kernel gives them.
// Errors: kOutOfMemory; Failure::kLimit for parameters out of range.
Result<SecretBytes> StretchPassword(const SecretBytes& password, const PasswordRecord& record);

// NewPasswordRecord returns a record with a fresh 16-byte salt, as 32 hexadecimal digits.
Result<PasswordRecord> NewPasswordRecord(const KdfParameters& parameters, RandomSource& random);

}  // namespace keyescrow::envelope
