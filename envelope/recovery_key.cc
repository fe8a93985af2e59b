#include "envelope/recovery_key.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "envelope/base/base64url.h"
#include "envelope/base/ed25519.h"
#include "envelope/base/hash.h"
#include "envelope/base/pause_point.h"
#include "envelope/header_parts.h"
#include "envelope/jwe.h"
#include "envelope/path_keys.h"
#include "envelope/private_jwk.h"

namespace keyescrow::envelope {
namespace {

constexpr std::string_view kEncryption = "A256CBC-HS512";
constexpr std::string_view kFileKeyLabel = "keyescrow1|fk|";

std::string WriteRecord(const RecoveryKey& key) {
  return fmt::format(R"({{"name":"{}","public":{},"private":"{}","factors":{},"drill_key":"{}"}})",
                     key.record.name, WriteJwk(key.Public()),
                     WriteCompactJwe(kProtected, key.record.private_key), WriteFactors(key.factors),
                     EncodeBase64Url(key.drill_key));
}

void AppendBigEndian(Bytes& bytes, std::size_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    bytes.push_back(static_cast<std::uint8_t>(value >> shift));
  }
}

// ConcatKdf returns 64 bytes. Source: RFC 7518, 4.6.2, with an empty apu.
Result<SecretBytes> ConcatKdf(const SecretBytes& shared_x, std::string_view apv) {
  Bytes info;
  AppendBigEndian(info, kEncryption.size());
  info.insert(info.end(), kEncryption.begin(), kEncryption.end());
  AppendBigEndian(info, 0);
  AppendBigEndian(info, apv.size());
  info.insert(info.end(), apv.begin(), apv.end());
  AppendBigEndian(info, 512);
  constexpr std::uint8_t kFirst[] = {0, 0, 0, 1};
  constexpr std::uint8_t kSecond[] = {0, 0, 0, 2};
  ASSIGN_OR_RETURN(const SecretBytes first, Sha256Secret({kFirst, shared_x.Expose(), info}));
  ASSIGN_OR_RETURN(const SecretBytes second, Sha256Secret({kSecond, shared_x.Expose(), info}));
  const SecretBytes* const halves[] = {&first, &second};
  return Concatenate(halves);
}

// EphemeralOf finds epk in a header whose shape the reader of the envelope's header has checked.
std::optional<P256Point> EphemeralOf(std::string_view header) {
  const auto bytes = DecodeBase64Url(header);
  if (!bytes) return std::nullopt;
  const auto json = ParseStrictJson(AsText(*bytes));
  if (!json) return std::nullopt;
  for (const auto& [name, value] : json->members) {
    if (name != "epk") continue;
    ObjectReader reader(value, "epk");
    return ReadPoint(reader, "epk");
  }
  return std::nullopt;
}

}  // namespace

Bytes32 RecoveryKey::Sha256() const { return keyescrow::Sha256(AsBytes(text)); }

bool RecoveryKey::IsIn(const PathRecord& path) const {
  return path.recovery_key && path.recovery_key->name == record.name &&
         path.recovery_key->public_key == record.public_key;
}

bool RecoveryKey::IsCopiedTo(const PathRecord& path) const {
  return IsIn(path) && WriteRecord(*this) == AsRecoveryKey(path).text;
}

RecoveryKey AsRecoveryKey(const PathRecord& path) {
  RecoveryKey key;
  key.record = *path.recovery_key;
  key.factors = path.factors;
  key.drill_key = path.drill_key;
  key.text = WriteRecord(key);
  return key;
}

std::string RecoveryKeyBinding(std::string_view name, const P256Point& public_key) {
  return fmt::format("@{}|{}", name, JwkThumbprint(public_key));
}

Result<P256KeyPair> NewRecoveryKeyPair(RandomSource& random) {
  // A scalar out of range comes once in 2^32 draws (FIPS 186-5, A.2.2: rejection); what fails twice
  // is the library.
  for (bool again = false;; again = true) {
    ASSIGN_OR_RETURN(const SecretBytes scalar, RandomSecret(random, 32));
    auto pair = P256KeyPair::FromScalar(scalar);
    if (pair || again || pair.error().code() != ErrorCode::kCryptoLibrary) return pair;
  }
}

Result<RecoveryKey> ProtectRecoveryKey(const std::string& name, const P256KeyPair& pair,
                                       std::vector<FactorRecord> factors,
                                       std::span<const SecretBytes* const> secrets,
                                       RandomSource& random) {
  RecoveryKey key;
  key.record.name = name;
  key.record.public_key = pair.Public();
  key.factors = std::move(factors);
  ASSIGN_OR_RETURN(
      const PathKeys keys,
      DerivePathKeys(secrets, RecoveryKeyBinding(name, pair.Public()), key.factors, name));
  ASSIGN_OR_RETURN(const SecretBytes jwk, WritePrivateJwk(pair));
  ASSIGN_OR_RETURN(key.record.private_key, EncryptJwe(keys.wrapping_key, kProtected, jwk, random));
  ASSIGN_OR_RETURN(key.drill_key, Ed25519PublicKey(keys.drill_seed));
  key.text = WriteRecord(key);
  RETURN_IF_ERROR(ParseRecoveryKey(key.text));  // never register what no reader would take
  return key;
}

Result<RecoveryKey> ParseRecoveryKey(std::string_view text) {
  if (text.size() > kMaxRecoveryKeySizeBytes) return LimitError("the record is over 64 KiB");
  if (text.ends_with('\n')) text.remove_suffix(1);
  ASSIGN_OR_RETURN(const JsonValue json, ParseStrictJson(text));
  const std::string what = "recovery key";
  ObjectReader reader(json, what);
  const std::vector<JsonValue>& factors = reader.Array("factors");
  RecoveryKey key;
  key.drill_key = ToBytes32(reader.Base64Url("drill_key", 32));
  ASSIGN_OR_RETURN(key.record, ReadRecoveryKeyRecord(reader, what));
  ASSIGN_OR_RETURN(key.factors, ReadFactors(factors, what));
  key.text = text;
  return key;
}

Result<OpenedRecoveryKey> OpenRecoveryKey(const RecoveryKey& key,
                                          std::span<const SecretBytes* const> secrets) {
  const std::string& name = key.record.name;
  ASSIGN_OR_RETURN(PathKeys keys, DerivePathKeys(secrets, RecoveryKeyBinding(name, key.Public()),
                                                 key.factors, name));
  PausePoint("path-key-derived");
  const std::string to_key = "to the recovery key " + name;
  ASSIGN_OR_RETURN(const Bytes32 drill_key, Ed25519PublicKey(keys.drill_seed));
  const Error damaged = DamagedPathError(to_key);
  const Error refusal = drill_key == key.drill_key ? damaged : UnwrapError(key.factors, to_key);
  const CompactJwe& jwe = key.record.private_key;
  if (!VerifyJweTag(keys.wrapping_key, kProtected, jwe.iv, jwe.ciphertext, jwe.tag)) return refusal;
  ASSIGN_OR_RETURN(const SecretBytes jwk, DecryptJwe(keys.wrapping_key, kProtected, jwe.iv,
                                                     jwe.ciphertext, jwe.tag, damaged));
  ASSIGN_OR_RETURN(std::optional<P256KeyPair> pair, ReadPrivateJwk(jwk));
  if (!pair || !(pair->Public() == key.Public())) return damaged;
  if (drill_key != key.drill_key) return damaged;
  return OpenedRecoveryKey(std::move(*pair), std::move(keys.drill_seed));
}

Result<WrappedFileKey> WrapFileKey(const P256Point& public_key, std::string_view names,
                                   const SecretBytes& file_key, RandomSource& random) {
  ASSIGN_OR_RETURN(const P256KeyPair ephemeral, NewRecoveryKeyPair(random));
  const std::string apv = std::string(kFileKeyLabel) + std::string(names);
  WrappedFileKey wrapped;
  wrapped.header = EncodeBase64Url(
      AsBytes(fmt::format(R"({{"alg":"ECDH-ES","enc":"{}","apv":"{}","epk":{}}})", kEncryption,
                          EncodeBase64Url(AsBytes(apv)), WriteJwk(ephemeral.Public()))));
  ASSIGN_OR_RETURN(const SecretBytes shared, ephemeral.SharedX(public_key));
  ASSIGN_OR_RETURN(wrapped.key, ConcatKdf(shared, apv));
  ASSIGN_OR_RETURN(wrapped.jwe, EncryptJwe(wrapped.key, wrapped.header, file_key, random));
  return wrapped;
}

Result<SecretBytes> UnwrapFileKey(const P256KeyPair& pair, const PathRecord& path,
                                  std::string_view names, const Error& refusal) {
  const auto ephemeral = EphemeralOf(path.wrapped_key_header);
  if (!ephemeral) return refusal;
  ASSIGN_OR_RETURN(const SecretBytes shared, pair.SharedX(*ephemeral));
  ASSIGN_OR_RETURN(const SecretBytes key,
                   ConcatKdf(shared, std::string(kFileKeyLabel) + std::string(names)));
  const CompactJwe& jwe = path.wrapped_key;
  ASSIGN_OR_RETURN(SecretBytes file_key, DecryptJwe(key, path.wrapped_key_header, jwe.iv,
                                                    jwe.ciphertext, jwe.tag, refusal));
  PausePoint("file-key-open");
  if (file_key.size() != 32) return refusal;
  return file_key;
}

}  // namespace keyescrow::envelope
