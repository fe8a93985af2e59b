// Digests, HMAC and HKDF over OpenSSL's EVP. The algorithms are fetched once a process.
#pragma once

#include <initializer_list>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow {

// Sha256 hashes the parts one after the other (FIPS 180-4). Aborts if the library fails.
Bytes32 Sha256(ByteView bytes);
Bytes32 Sha256(std::initializer_list<ByteView> parts);
// Sha256Secret is Sha256 where an input is secret: the digest stays in locked memory.
Result<SecretBytes> Sha256Secret(std::initializer_list<ByteView> parts);

// HmacSha256 and HmacSha512 (FIPS 198-1) over the parts one after the other.
Bytes32 HmacSha256(ByteView key, std::initializer_list<ByteView> parts);
Bytes64 HmacSha512(ByteView key, std::initializer_list<ByteView> parts);

// HkdfSha512 with an empty salt (RFC 5869); `size_bytes` at most 255 × 64.
Result<SecretBytes> HkdfSha512(const SecretBytes& input_key, std::string_view info,
                               std::size_t size_bytes);

// EqualConstantTime compares in time that depends on the sizes alone.
bool EqualConstantTime(ByteView left, ByteView right);

}  // namespace keyescrow
