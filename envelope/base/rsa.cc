#define OPENSSL_SUPPRESS_DEPRECATED  // RSA_padding_check_PKCS1_OAEP_mgf1 has no EVP counterpart
#include "envelope/base/rsa.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include <algorithm>
#include <cstring>

namespace keyescrow {
namespace {

constexpr std::uint8_t kRsaAlgorithm[] = {0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86,
                                          0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00};

const EVP_MD* Digest(OaepHash hash) { return hash == OaepHash::kSha1 ? EVP_sha1() : EVP_sha256(); }

}  // namespace

struct RsaPublicKey::Impl {
  EVP_PKEY* key = nullptr;
  ~Impl() { EVP_PKEY_free(key); }
};

RsaPublicKey::RsaPublicKey(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RsaPublicKey::RsaPublicKey(RsaPublicKey&&) noexcept = default;
RsaPublicKey& RsaPublicKey::operator=(RsaPublicKey&&) noexcept = default;
RsaPublicKey::~RsaPublicKey() = default;

std::optional<RsaPublicKey> RsaPublicKey::FromModulus(ByteView modulus, ByteView exponent) {
  if (modulus.empty() || modulus.size() > 1100 || exponent.empty() || exponent.size() > 1024) {
    return std::nullopt;
  }
  BIGNUM* n = BN_bin2bn(modulus.data(), static_cast<int>(modulus.size()), nullptr);
  BIGNUM* e = BN_bin2bn(exponent.data(), static_cast<int>(exponent.size()), nullptr);
  auto impl = std::make_unique<Impl>();
  if (BN_num_bits(n) >= 2048 && BN_num_bits(n) <= 8192 && BN_is_odd(e) && !BN_is_one(e)) {
    OSSL_PARAM_BLD* builder = OSSL_PARAM_BLD_new();
    OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_N, n);
    OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_RSA_E, e);
    OSSL_PARAM* parameters = OSSL_PARAM_BLD_to_param(builder);
    EVP_PKEY_CTX* context = EVP_PKEY_CTX_new_from_name(nullptr, "RSA", nullptr);
    if (EVP_PKEY_fromdata_init(context) != 1 ||
        EVP_PKEY_fromdata(context, &impl->key, EVP_PKEY_PUBLIC_KEY, parameters) != 1) {
      impl->key = nullptr;
    }
    EVP_PKEY_CTX_free(context);
    OSSL_PARAM_free(parameters);
    OSSL_PARAM_BLD_free(builder);
  }
  BN_free(n);
  BN_free(e);
  if (impl->key == nullptr) return std::nullopt;
  return RsaPublicKey(std::move(impl));
}

std::optional<RsaPublicKey> RsaPublicKey::FromSpki(ByteView der) {
  if (der.size() > 1200) return std::nullopt;
  const std::uint8_t* cursor = der.data();
  EVP_PKEY* parsed = d2i_PUBKEY(nullptr, &cursor, static_cast<long>(der.size()));
  if (parsed == nullptr) return std::nullopt;
  std::optional<RsaPublicKey> key;
  BIGNUM* n = nullptr;
  BIGNUM* e = nullptr;
  if (cursor == der.data() + der.size() && EVP_PKEY_get_base_id(parsed) == EVP_PKEY_RSA &&
      EVP_PKEY_get_bn_param(parsed, OSSL_PKEY_PARAM_RSA_N, &n) == 1 &&
      EVP_PKEY_get_bn_param(parsed, OSSL_PKEY_PARAM_RSA_E, &e) == 1) {
    Bytes modulus(static_cast<std::size_t>(BN_num_bytes(n)));
    Bytes exponent(static_cast<std::size_t>(BN_num_bytes(e)));
    BN_bn2bin(n, modulus.data());
    BN_bn2bin(e, exponent.data());
    key = FromModulus(modulus, exponent);
  }
  BN_free(n);
  BN_free(e);
  EVP_PKEY_free(parsed);
  // The algorithm identifier is exactly rsaEncryption with NULL, and the encoding is canonical.
  if (key) {
    const Bytes again = key->Spki();
    if (!std::equal(again.begin(), again.end(), der.begin(), der.end()) || der.size() < 24 ||
        std::search(der.begin(), der.begin() + 24, std::begin(kRsaAlgorithm),
                    std::end(kRsaAlgorithm)) == der.begin() + 24) {
      return std::nullopt;
    }
  }
  return key;
}

std::size_t RsaPublicKey::modulus_size_bytes() const {
  return static_cast<std::size_t>(EVP_PKEY_get_size(impl_->key));
}

Bytes RsaPublicKey::Spki() const {
  std::uint8_t* der = nullptr;
  const int size = i2d_PUBKEY(impl_->key, &der);
  Bytes spki = size > 0 ? Bytes(der, der + size) : Bytes();
  OPENSSL_free(der);
  return spki;
}

Result<Bytes> RsaPublicKey::EncryptOaep(OaepHash hash, const SecretBytes& plaintext) const {
  EVP_PKEY_CTX* context = EVP_PKEY_CTX_new(impl_->key, nullptr);
  Bytes ciphertext(modulus_size_bytes());
  std::size_t size = ciphertext.size();
  const bool ok = context != nullptr && EVP_PKEY_encrypt_init(context) == 1 &&
                  EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_OAEP_PADDING) == 1 &&
                  EVP_PKEY_CTX_set_rsa_oaep_md(context, Digest(hash)) == 1 &&
                  EVP_PKEY_CTX_set_rsa_mgf1_md(context, Digest(hash)) == 1 &&
                  EVP_PKEY_encrypt(context, ciphertext.data(), &size, plaintext.Expose().data(),
                                   plaintext.size()) == 1 &&
                  size == ciphertext.size();
  EVP_PKEY_CTX_free(context);
  if (!ok) {
    return Error(ErrorCode::kCryptoLibrary, Action::kReportBug,
                 "the cryptographic library failed: rsa-oaep", "report this");
  }
  return ciphertext;
}

Result<SecretBytes> RemoveOaepPadding(OaepHash hash, const SecretBytes& encoded_message) {
  ASSIGN_OR_RETURN(SecretBytes plaintext, SecretBytes::Allocate(encoded_message.size()));
  const auto size = static_cast<int>(encoded_message.size());
  const int count = RSA_padding_check_PKCS1_OAEP_mgf1(plaintext.ExposeMutable().data(), size,
                                                      encoded_message.Expose().data(), size, size,
                                                      nullptr, 0, Digest(hash), Digest(hash));
  if (count < 0) {
    return Error(ErrorCode::kTokenDataInvalid, Action::kWrongDevice,
                 "the decrypted block has no OAEP padding: made for another key, or damaged",
                 "check that this is the token the envelope names");
  }
  plaintext.Truncate(static_cast<std::size_t>(count));
  return plaintext;
}

}  // namespace keyescrow
