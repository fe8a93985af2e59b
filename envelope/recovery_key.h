// Recovery keys: a P-256 pair whose private half a path's factors protect once, so that envelopes
// are made to its public half with no factor present. envelope/FORMAT.md, section 10, is normative.
//
//   pair, enrolled factors --ProtectRecoveryKey--> RecoveryKey (public: the record that is
//   registered) RecoveryKey, the factors' secrets --OpenRecoveryKey--> OpenedRecoveryKey FK, public
//   half --WrapFileKey--> wrapped_key; pair --UnwrapFileKey--> FK
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/p256.h"
#include "envelope/base/random.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/header.h"

namespace keyescrow::envelope {

inline constexpr std::size_t kMaxRecoveryKeySizeBytes = 64U << 10;

// RecoveryKey: the record as it is registered, and as every envelope under it carries it.
struct RecoveryKey {
  RecoveryKeyRecord record;  // name, public, private
  std::vector<FactorRecord> factors;
  Bytes32 drill_key{};
  std::string text;  // its JSON, as it was made: what the pinned SHA-256 is of

  const P256Point& Public() const { return *record.public_key; }
  std::string Thumbprint() const { return JwkThumbprint(Public()); }
  Bytes32 Sha256() const;
  // IsIn: the path goes to this recovery key (its name and its public half), whichever password the
  // path's copy of the record has.
  bool IsIn(const PathRecord& path) const;
  // IsCopiedTo: the path carries this very record.
  bool IsCopiedTo(const PathRecord& path) const;
};

// RecoveryKeyBinding returns B of a path with a recovery key: "@" name "|" thumbprint.
std::string RecoveryKeyBinding(std::string_view name, const P256Point& public_key);

// NewRecoveryKeyPair draws the pair. Errors: kEntropyUnavailable, kCryptoLibrary.
Result<P256KeyPair> NewRecoveryKeyPair(RandomSource& random);

// ProtectRecoveryKey encrypts the private half under what `secrets`, S of each of `factors` in the
// header's order, give. Their labels bind RecoveryKeyBinding. Errors: Failure::kFormat, kLimit
// where no reader would take the record.
Result<RecoveryKey> ProtectRecoveryKey(const std::string& name, const P256KeyPair& pair,
                                       std::vector<FactorRecord> factors,
                                       std::span<const SecretBytes* const> secrets,
                                       RandomSource& random);

// ParseRecoveryKey reads a record: strict JSON of exactly name, public, private, factors and
// drill_key, with an optional LF at its end that is no part of `text`.
// Errors: Failure::kFormat, Failure::kLimit.
Result<RecoveryKey> ParseRecoveryKey(std::string_view text);

// OpenedRecoveryKey: the private half, and D, the seed of the record's drill key.
class OpenedRecoveryKey {
 public:
  OpenedRecoveryKey(P256KeyPair pair, SecretBytes drill_seed)
      : pair_(std::move(pair)), drill_seed_(std::move(drill_seed)) {}
  const P256KeyPair& pair() const { return pair_; }
  const SecretBytes& drill_seed() const { return drill_seed_; }

 private:
  P256KeyPair pair_;
  SecretBytes drill_seed_;
};

// OpenRecoveryKey takes S of each factor. Whatever is wrong with the private half or the drill key
// is kEnvelopeUnwrap, or kWrongPassword where a password is among the factors (Failure::kUnwrap).
Result<OpenedRecoveryKey> OpenRecoveryKey(const RecoveryKey& key,
                                          std::span<const SecretBytes* const> secrets);

// AsRecoveryKey returns the record that a path with a recovery key carries; its text is ours.
RecoveryKey AsRecoveryKey(const PathRecord& path);

// WrappedFileKey: a path's wrapped_key to a public half: compact JWE with ECDH-ES.
struct WrappedFileKey {
  std::string header;  // base64url
  CompactJwe jwe;
  SecretBytes key;  // what both sides agreed on, 64 bytes: whoever wrapped can look again
};

// WrapFileKey wraps FK; `names` is key_name|key_version|envelope_id|path id, as PathBinding has it.
Result<WrappedFileKey> WrapFileKey(const P256Point& public_key, std::string_view names,
                                   const SecretBytes& file_key, RandomSource& random);

// UnwrapFileKey returns what wrapped_key holds. `names` as above. Errors: `refusal`.
Result<SecretBytes> UnwrapFileKey(const P256KeyPair& pair, const PathRecord& path,
                                  std::string_view names, const Error& refusal);

}  // namespace keyescrow::envelope
