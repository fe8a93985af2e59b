#include "envelope/base/ed25519.h"

#include <openssl/evp.h>

#include <memory>

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
  const Pkey key = PrivateKey(seed);
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
