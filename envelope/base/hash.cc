#include "envelope/base/hash.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <cstdlib>
#include <cstring>

namespace keyescrow {
namespace {

// A digest that cannot be had is a broken installation; there is nothing to return to.
void Require(bool condition) {
  if (!condition) std::abort();
}

// DigestContext is one SHA-256 context a thread, which between two hashes is begun and holds
// nothing: EVP_DigestInit_ex2 of OpenSSL 3.0 asks the tables of engines under a lock each time.
struct DigestContext {
  EVP_MD* algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  EVP_MD_CTX* context = EVP_MD_CTX_new();

  DigestContext() { Begin(); }
  ~DigestContext() {
    EVP_MD_CTX_free(context);
    EVP_MD_free(algorithm);
  }
  void Begin() const {
    Require(context != nullptr && EVP_DigestInit_ex2(context, algorithm, nullptr) == 1);
  }
};

void Digest(std::initializer_list<ByteView> parts, std::uint8_t* out) {
  thread_local const DigestContext holder;
  EVP_MD_CTX* context = holder.context;
  for (ByteView part : parts) {
    Require(EVP_DigestUpdate(context, part.data(), part.size()) == 1);
  }
  unsigned size = 0;
  Require(EVP_DigestFinal_ex(context, out, &size) == 1);
  // The context must not keep the last state, which is the digest and may be a secret.
  holder.Begin();
}

// MacContext is one HMAC context a thread and digest, set up once: EVP_MAC fetches its digest by
// name at every EVP_MAC_CTX_set_params, which would cost more than the short messages hashed here.
struct MacContext {
  EVP_MAC* algorithm;
  EVP_MAC_CTX* context;

  explicit MacContext(const char* digest_name)
      : algorithm(EVP_MAC_fetch(nullptr, "HMAC", nullptr)), context(EVP_MAC_CTX_new(algorithm)) {
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, const_cast<char*>(digest_name), 0),
        OSSL_PARAM_construct_end()};
    Require(context != nullptr && EVP_MAC_CTX_set_params(context, parameters) == 1);
  }
  ~MacContext() {
    EVP_MAC_CTX_free(context);
    EVP_MAC_free(algorithm);
  }
};

void Hmac(EVP_MAC_CTX* context, ByteView key, std::initializer_list<ByteView> parts,
          std::span<std::uint8_t> out) {
  static constexpr std::uint8_t kNothing = 0;
  const std::uint8_t* key_data = key.empty() ? &kNothing : key.data();
  Require(EVP_MAC_init(context, key_data, key.size(), nullptr) == 1);
  for (ByteView part : parts) {
    Require(part.empty() || EVP_MAC_update(context, part.data(), part.size()) == 1);
  }
  std::size_t size = 0;
  Require(EVP_MAC_final(context, out.data(), &size, out.size()) == 1 && size == out.size());
  // The context must not keep the last key.
  const std::uint8_t zero_key[32] = {};
  Require(EVP_MAC_init(context, zero_key, sizeof zero_key, nullptr) == 1);
}

}  // namespace

Bytes32 Sha256(ByteView bytes) { return Sha256({bytes}); }

Bytes32 Sha256(std::initializer_list<ByteView> parts) {
  Bytes32 digest;
  Digest(parts, digest.data());
  return digest;
}

Result<SecretBytes> Sha256Secret(std::initializer_list<ByteView> parts) {
  ASSIGN_OR_RETURN(SecretBytes digest, SecretBytes::Allocate(32));
  Digest(parts, digest.ExposeMutable().data());
  return digest;
}

Bytes32 HmacSha256(ByteView key, std::initializer_list<ByteView> parts) {
  thread_local MacContext mac("SHA256");
  Bytes32 tag;
  Hmac(mac.context, key, parts, tag);
  return tag;
}

Bytes64 HmacSha512(ByteView key, std::initializer_list<ByteView> parts) {
  thread_local MacContext mac("SHA512");
  Bytes64 tag;
  Hmac(mac.context, key, parts, tag);
  return tag;
}

Result<SecretBytes> HkdfSha512(const SecretBytes& input_key, std::string_view info,
                               std::size_t size_bytes) {
  ASSIGN_OR_RETURN(SecretBytes output, SecretBytes::Allocate(size_bytes));
  static EVP_KDF* const algorithm = EVP_KDF_fetch(nullptr, "HKDF", nullptr);
  EVP_KDF_CTX* context = EVP_KDF_CTX_new(algorithm);
  Require(context != nullptr);
  char digest_name[] = "SHA512";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest_name, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY,
                                        const_cast<std::uint8_t*>(input_key.Expose().data()),
                                        input_key.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, const_cast<char*>(info.data()),
                                        info.size()),
      OSSL_PARAM_construct_end()};
  const int done = EVP_KDF_derive(context, output.ExposeMutable().data(), size_bytes, parameters);
  EVP_KDF_CTX_free(context);  // cleanses its copy of the key
  Require(done == 1);
  return output;
}

bool EqualConstantTime(ByteView left, ByteView right) {
  if (left.size() != right.size()) return false;
  if (left.empty()) return true;
  // The outcome alone: no && or ||, of which some compilers make a jump on it.
  return CRYPTO_memcmp(left.data(), right.data(), left.size()) == 0;
}

}  // namespace keyescrow
