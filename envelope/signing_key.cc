#include "envelope/signing_key.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "envelope/base/ed25519.h"

namespace keyescrow::envelope {
namespace {

constexpr std::size_t kKeyBytes = 32;
constexpr std::size_t kMaxPemBytes = 16 * 1024;
constexpr std::string_view kPemHead = "-----BEGIN PRIVATE KEY-----\n";
constexpr std::string_view kPemTail = "\n-----END PRIVATE KEY-----\n";
// RFC 8410: PrivateKeyInfo of an Ed25519 key up to its 32 bytes.
constexpr std::uint8_t kEd25519Prefix[] = {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06,
                                           0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20};

struct PkeyDeleter {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
struct BioDeleter {
  void operator()(BIO* bio) const { BIO_free(bio); }
};

Error NoSigningKey(const std::string& why) {
  return Error(ErrorCode::kSigningKey, Action::kFixInput, "the signing key's file " + why,
               "make one with 'keyescrow policy sign --new-key FILE', or with 'openssl genpkey "
               "-algorithm ed25519 -out FILE'");
}

// RefusePassword has an encrypted file fail rather than ask on the terminal.
int RefusePassword(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*context*/) {
  return -1;
}

class P256Signer final : public Signer {
 public:
  explicit P256Signer(const P256KeyPair& key) : key_(key) {}
  const P256Point& PublicKey() const override { return key_.Public(); }
  Result<Bytes64> SignDigest(const Bytes32& digest) override { return key_.SignEs256(digest); }

 private:
  const P256KeyPair& key_;
};

Result<SecretBytes> P256Scalar(const EVP_PKEY* key) {
  char group[32] = {};
  std::size_t group_size = 0;
  if (EVP_PKEY_get_group_name(key, group, sizeof group, &group_size) != 1 ||
      (std::strcmp(group, "prime256v1") != 0 && std::strcmp(group, "P-256") != 0)) {
    return NoSigningKey("holds a key on another curve than P-256");
  }
  BIGNUM* scalar = nullptr;
  if (EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_PRIV_KEY, &scalar) != 1) {
    return NoSigningKey("holds no private key");
  }
  auto bytes = SecretBytes::Allocate(kKeyBytes);
  const bool fits =
      bytes && BN_bn2binpad(scalar, bytes->ExposeMutable().data(), static_cast<int>(kKeyBytes)) ==
                   static_cast<int>(kKeyBytes);
  BN_clear_free(scalar);
  if (bytes && !fits) return NoSigningKey("holds no P-256 key");
  return bytes;
}

}  // namespace

Result<SigningKey> SigningKey::FromPem(const SecretBytes& pem, std::string name) {
  if (pem.size() > kMaxPemBytes) return NoSigningKey("is larger than 16 KiB");
  const std::unique_ptr<BIO, BioDeleter> bio(
      BIO_new_mem_buf(pem.Expose().data(), static_cast<int>(pem.size())));
  const std::unique_ptr<EVP_PKEY, PkeyDeleter> key(
      bio ? PEM_read_bio_PrivateKey(bio.get(), nullptr, &RefusePassword, nullptr) : nullptr);
  if (!key) return NoSigningKey("is no private key in PEM, or is encrypted");
  if (EVP_PKEY_is_a(key.get(), "ED25519") == 1) {
    ASSIGN_OR_RETURN(SecretBytes seed, SecretBytes::Allocate(kKeyBytes));
    std::size_t size = kKeyBytes;
    if (EVP_PKEY_get_raw_private_key(key.get(), seed.ExposeMutable().data(), &size) != 1 ||
        size != kKeyBytes) {
      return NoSigningKey("holds no Ed25519 key");
    }
    ASSIGN_OR_RETURN(const Bytes32 public_key, Ed25519PublicKey(seed));
    return SigningKey(std::move(seed), NoteKey::Ed25519(std::move(name), public_key));
  }
  if (EVP_PKEY_is_a(key.get(), "EC") != 1) {
    return NoSigningKey("holds neither an Ed25519 nor a P-256 key");
  }
  ASSIGN_OR_RETURN(const SecretBytes scalar, P256Scalar(key.get()));
  ASSIGN_OR_RETURN(P256KeyPair pair, P256KeyPair::FromScalar(scalar));
  const P256Point public_key = pair.Public();
  return SigningKey(std::move(pair), NoteKey::P256(std::move(name), public_key));
}

Result<SigningKey> SigningKey::GenerateEd25519(RandomSource& random, std::string name) {
  ASSIGN_OR_RETURN(SecretBytes seed, RandomSecret(random, kKeyBytes));
  ASSIGN_OR_RETURN(const Bytes32 public_key, Ed25519PublicKey(seed));
  return SigningKey(std::move(seed), NoteKey::Ed25519(std::move(name), public_key));
}

Result<SecretBytes> SigningKey::Pem() const {
  const auto* seed = std::get_if<SecretBytes>(&key_);
  if (seed == nullptr) {
    return Error(ErrorCode::kUnsupportedHere, Action::kFixInput,
                 "only Ed25519 keys are written to files", "make P-256 keys with openssl");
  }
  constexpr std::size_t kDerBytes = sizeof kEd25519Prefix + kKeyBytes;
  constexpr std::size_t kBase64Bytes = kDerBytes / 3 * 4;
  ASSIGN_OR_RETURN(SecretBytes der, SecretBytes::Allocate(kDerBytes));
  std::copy(std::begin(kEd25519Prefix), std::end(kEd25519Prefix), der.ExposeMutable().begin());
  std::copy(seed->Expose().begin(), seed->Expose().end(),
            der.ExposeMutable().begin() + sizeof kEd25519Prefix);
  // EVP_EncodeBlock adds a NUL, over which the tail is written.
  ASSIGN_OR_RETURN(SecretBytes pem,
                   SecretBytes::Allocate(kPemHead.size() + kBase64Bytes + kPemTail.size()));
  const auto out = pem.ExposeMutable();
  std::copy(kPemHead.begin(), kPemHead.end(), out.begin());
  EVP_EncodeBlock(out.data() + kPemHead.size(), der.Expose().data(), static_cast<int>(kDerBytes));
  std::copy(kPemTail.begin(), kPemTail.end(), out.begin() + kPemHead.size() + kBase64Bytes);
  return pem;
}

Result<std::string> SigningKey::SignLine(std::string_view text) const {
  if (const auto* seed = std::get_if<SecretBytes>(&key_)) {
    return SignLineEd25519(public_, *seed, text);
  }
  P256Signer signer(std::get<P256KeyPair>(key_));
  return SignLineP256(public_, signer, text);
}

}  // namespace keyescrow::envelope
