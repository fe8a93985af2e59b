#include "envelope/token_wrap.h"

#include <utility>

#include "envelope/base/p256.h"
#include "envelope/base/rsa.h"

namespace keyescrow::envelope {
namespace {

constexpr std::size_t kSecretSizeBytes = 32;

}  // namespace

Result<WrappedToToken> WrapToToken(const TokenKey& key, RandomSource& random) {
  if (const auto rsa = RsaPublicKey::FromSpki(key.spki)) {
    ASSIGN_OR_RETURN(SecretBytes secret, RandomSecret(random, kSecretSizeBytes));
    Pkcs11RsaRecord record;
    record.hash = key.hash;
    record.token = key.token;
    record.spki = key.spki;
    record.uri = key.uri;
    ASSIGN_OR_RETURN(record.wrapped, rsa->EncryptOaep(record.hash, secret));
    return WrappedToToken{std::move(record), std::move(secret)};
  }
  const auto point = P256Point::FromSpki(key.spki);
  if (!point) {
    return Error(ErrorCode::kFactorBad, Action::kFixInput,
                 "the public key of the token " + key.token + " is no RSA or P-256 key",
                 "register the token again");
  }
  ASSIGN_OR_RETURN(const P256KeyPair ephemeral, P256KeyPair::Generate());
  Pkcs11EcdhRecord record;
  record.token = key.token;
  record.spki = key.spki;
  record.uri = key.uri;
  const auto epk = ephemeral.Public().Uncompressed();
  record.epk.assign(epk.begin(), epk.end());
  ASSIGN_OR_RETURN(const SecretBytes shared, ephemeral.SharedX(*point));
  ASSIGN_OR_RETURN(SecretBytes secret, EcdhSecret(shared, record));
  return WrappedToToken{std::move(record), std::move(secret)};
}

}  // namespace keyescrow::envelope
