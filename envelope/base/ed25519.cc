#include "envelope/base/ed25519.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>

#include <memory>

#include "envelope/base/ed25519_pair.h"

namespace keyescrow {
namespace {

struct PkeyDeleter {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};
using Pkey = std::unique_ptr<EVP_PKEY, PkeyDeleter>;
struct DigestDeleter {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};
using DigestContext = std::unique_ptr<EVP_MD_CTX, DigestDeleter>;

Error LibraryError() {
  return Error(ErrorCode::kCryptoLibrary, Action::kReportBug,
               "the cryptographic library failed: ed25519", "report this");
}

Pkey PrivateKey(const SecretBytes& seed) {
  return Pkey(
      EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, nullptr, seed.Expose().data(), seed.size()));
}

// KeyPair imports both halves, so that the library does not compute the public one.
Pkey KeyPair(const Bytes32& public_key, const SecretBytes& seed) {
  struct ContextDeleter {
    void operator()(EVP_PKEY_CTX* context) const { EVP_PKEY_CTX_free(context); }
  };
  const std::unique_ptr<EVP_PKEY_CTX, ContextDeleter> context(
      EVP_PKEY_CTX_new_from_name(nullptr, "ED25519", nullptr));
  OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_octet_string(
          OSSL_PKEY_PARAM_PRIV_KEY, const_cast<std::uint8_t*>(seed.Expose().data()), seed.size()),
      OSSL_PARAM_construct_octet_string(
          OSSL_PKEY_PARAM_PUB_KEY, const_cast<std::uint8_t*>(public_key.data()), public_key.size()),
      OSSL_PARAM_construct_end()};
  EVP_PKEY* key = nullptr;
  if (!context || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_KEYPAIR, parameters) != 1) {
    return nullptr;
  }
  return Pkey(key);
}

Result<Bytes64> SignWith(const Pkey& key, ByteView message) {
  const DigestContext context(EVP_MD_CTX_new());
  Bytes64 signature;
  std::size_t size = signature.size();
  if (!key || !context ||
      EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key.get()) != 1 ||
      EVP_DigestSign(context.get(), signature.data(), &size, message.data(), message.size()) != 1) {
    return LibraryError();
  }
  return signature;
}

}  // namespace

Result<Bytes32> Ed25519PublicKey(const SecretBytes& seed) {
  const Pkey key = PrivateKey(seed);
  Bytes32 public_key;
  std::size_t size = public_key.size();
  if (!key || EVP_PKEY_get_raw_public_key(key.get(), public_key.data(), &size) != 1 || size != 32) {
    return LibraryError();
  }
  return public_key;
}

Result<Bytes64> Ed25519Sign(const SecretBytes& seed, ByteView message) {
  return SignWith(PrivateKey(seed), message);
}

Result<Ed25519Pair> Ed25519Pair::FromSeed(const SecretBytes& seed) {
  ASSIGN_OR_RETURN(const Bytes32 public_key, Ed25519PublicKey(seed));
  ASSIGN_OR_RETURN(SecretBytes copy, SecretBytes::CopyOf(seed.Expose()));
  return Ed25519Pair(std::move(copy), public_key);
}

Result<Bytes64> Ed25519Pair::Sign(ByteView message) const {
  return SignWith(KeyPair(public_key_, seed_), message);
}

bool Ed25519Verify(const Bytes32& public_key, ByteView message, const Bytes64& signature) {
  const Pkey key(
      EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, nullptr, public_key.data(), public_key.size()));
  const DigestContext context(EVP_MD_CTX_new());
  return key && context &&
         EVP_DigestVerifyInit(context.get(), nullptr, nullptr, nullptr, key.get()) == 1 &&
         EVP_DigestVerify(context.get(), signature.data(), signature.size(), message.data(),
                          message.size()) == 1;
}

}  // namespace keyescrow
