// Ed25519 (RFC 8032) over OpenSSL. A private key is its 32-byte seed.
#pragma once

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow {

// Ed25519PublicKey returns the public key of a 32-byte seed. Errors: kCryptoLibrary.
Result<Bytes32> Ed25519PublicKey(const SecretBytes& seed);

// Ed25519Sign signs the whole message. Errors: kCryptoLibrary.
Result<Bytes64> Ed25519Sign(const SecretBytes& seed, ByteView message);

bool Ed25519Verify(const Bytes32& public_key, ByteView message, const Bytes64& signature);

}  // namespace keyescrow
