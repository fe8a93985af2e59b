// A256CBC-HS512 (RFC 7518, 5.2.5) over OpenSSL's AES-CBC and HMAC, with the header kProtected.
#pragma once

#include <string_view>

#include "envelope/base/bytes.h"
#include "envelope/base/random.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/header.h"

namespace keyescrow::envelope {

// EncryptJwe pads (PKCS#7), encrypts under a fresh IV and tags. `key` is 64 bytes: MAC key, then
// AES key. `aad` is the ASCII of the additional data: the protected header's base64url alone, or
// joined to H's by a dot.
Result<CompactJwe> EncryptJwe(const SecretBytes& key, std::string_view aad,
                              const SecretBytes& plaintext, RandomSource& random);

// VerifyJweTag compares the tag in constant time.
bool VerifyJweTag(const SecretBytes& key, std::string_view aad, ByteView iv, ByteView ciphertext,
                  const Bytes32& tag);

// DecryptJwe checks the tag first, decrypts, and removes the padding. Nothing is returned unless
// both are right; `failure` is the failure of either. Errors: `code` with `failure`.
Result<SecretBytes> DecryptJwe(const SecretBytes& key, std::string_view aad, ByteView iv,
                               ByteView ciphertext, const Bytes32& tag, const Error& refusal);

}  // namespace keyescrow::envelope
