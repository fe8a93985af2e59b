// Ed25519NoteSigner: the signature lines of many notes by one key.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "envelope/base/ed25519_pair.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/signed_note.h"

namespace keyescrow::envelope {

// Ed25519NoteSigner computes the seed's public key at the first line and not again.
class Ed25519NoteSigner {
 public:
  explicit Ed25519NoteSigner(NoteKey key) : key_(std::move(key)) {}
  // SignLine is SignLineEd25519. Errors: kCryptoLibrary, those of SecretBytes.
  Result<std::string> SignLine(const SecretBytes& seed, std::string_view text);

 private:
  NoteKey key_;
  std::optional<Ed25519Pair> pair_;  // of the last seed
};

}  // namespace keyescrow::envelope
