// Keys that are the same in every run, so that an input means the same in every run.
#pragma once

#include "envelope/base/p256.h"
#include "envelope/base/rsa.h"
#include "envelope/base/secret_bytes.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

// FixedKeyPair has the private key 0101…01. Not for Prepare: a secret is gone in a forked child.
inline const P256KeyPair& FixedKeyPair() {
  static const P256KeyPair kPair = *P256KeyPair::FromScalar(*SecretBytes::CopyOf(Bytes(32, 1)));
  return kPair;
}

// FixedRsaSpki is a public key of 2048 bits whose private key nobody knows.
inline const Bytes& FixedRsaSpki() {
  static const Bytes kSpki =
      RsaPublicKey::FromModulus(Bytes(256, 0xc5), Bytes{1, 0, 1}).value().Spki();
  return kSpki;
}

}  // namespace keyescrow::fuzz
