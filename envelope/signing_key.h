// SigningKey: a person's private key for notes, in a file: PEM (PKCS#8), Ed25519 or P-256, as
// `openssl genpkey` makes it.
#pragma once

#include <string>
#include <string_view>
#include <variant>

#include "envelope/base/p256.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/signed_note.h"

namespace keyescrow::envelope {

class SigningKey {
 public:
  // FromPem takes the file's bytes; `name` is what its note lines are called. Errors: kSigningKey:
  // neither kind of key, or encrypted.
  static Result<SigningKey> FromPem(const SecretBytes& pem, std::string name);
  // GenerateEd25519 makes one. Errors: kEntropyUnavailable.
  static Result<SigningKey> GenerateEd25519(RandomSource& random, std::string name);

  // Pem returns the file of an Ed25519 key. Errors: kUnsupportedHere for P-256.
  Result<SecretBytes> Pem() const;
  const NoteKey& Public() const { return public_; }
  // SignLine returns the note's signature line over `text`, with its newline.
  Result<std::string> SignLine(std::string_view text) const;

 private:
  SigningKey(std::variant<SecretBytes, P256KeyPair> key, NoteKey public_key)
      : key_(std::move(key)), public_(std::move(public_key)) {}

  std::variant<SecretBytes, P256KeyPair> key_;  // an Ed25519 seed, or the pair
  NoteKey public_;
};

}  // namespace keyescrow::envelope
