// Wrapping to a token: a fresh secret for the public key of a token, which need not be at hand.
#pragma once

#include <string>

#include "envelope/base/bytes.h"
#include "envelope/base/random.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/header.h"

namespace keyescrow::envelope {

struct TokenKey {
  std::string token;                  // the name it was registered under
  Bytes spki;                         // canonical DER: RSA, or P-256
  std::string uri;                    // RFC 7512 path attributes: a hint
  OaepHash hash = OaepHash::kSha256;  // SHA-1 for tokens that can do nothing else
};

struct WrappedToToken {
  TokenRecord record;
  SecretBytes secret;  // S, 32 bytes
};

// WrapToToken makes a fresh S that only the private key yields again: the plaintext of
// RSA-OAEP, or what ECDH with a fresh epk gives. Errors: kFactorBad where `spki` is no such
// key; kEntropyUnavailable, kCryptoLibrary.
Result<WrappedToToken> WrapToToken(const TokenKey& key, RandomSource& random);

}  // namespace keyescrow::envelope
