// Ed25519Pair: many signatures by one seed.
#pragma once

#include <utility>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow {

// Ed25519Pair computes the seed's public key, which takes as long as a signature, once. It takes
// that key from nobody: a signature that was made with another one gives the seed away.
class Ed25519Pair {
 public:
  // FromSeed copies the 32 bytes. Errors: kCryptoLibrary, those of SecretBytes.
  static Result<Ed25519Pair> FromSeed(const SecretBytes& seed);

  bool IsOf(const SecretBytes& seed) const { return seed_.EqualsConstantTime(seed); }
  const Bytes32& Public() const { return public_key_; }
  // Sign is Ed25519Sign in half of the time. Errors: kCryptoLibrary.
  Result<Bytes64> Sign(ByteView message) const;

 private:
  Ed25519Pair(SecretBytes seed, const Bytes32& public_key)
      : seed_(std::move(seed)), public_key_(public_key) {}

  SecretBytes seed_;
  Bytes32 public_key_;
};

}  // namespace keyescrow
