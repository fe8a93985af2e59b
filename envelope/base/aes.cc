#include "envelope/base/aes.h"

#include <openssl/evp.h>

namespace keyescrow {
namespace {

Status Transform(const EVP_CIPHER* cipher, CipherDirection direction, ByteView key, ByteView iv,
                 ByteView input, std::span<std::uint8_t> output) {
  EVP_CIPHER_CTX* context = EVP_CIPHER_CTX_new();
  int written = 0;
  const bool ok =
      context != nullptr &&
      key.size() == static_cast<std::size_t>(EVP_CIPHER_get_key_length(cipher)) &&
      iv.size() == 16 && output.size() >= input.size() &&
      EVP_CipherInit_ex2(context, cipher, key.data(), iv.data(),
                         direction == CipherDirection::kEncrypt ? 1 : 0, nullptr) == 1 &&
      EVP_CIPHER_CTX_set_padding(context, 0) == 1 &&
      EVP_CipherUpdate(context, output.data(), &written, input.data(),
                       static_cast<int>(input.size())) == 1 &&
      static_cast<std::size_t>(written) == input.size();
  EVP_CIPHER_CTX_free(context);  // cleanses the key schedule
  if (!ok) {
    return Error(ErrorCode::kCryptoLibrary, Action::kReportBug,
                 "the cryptographic library failed: aes", "report this");
  }
  return Ok();
}

}  // namespace

Status Aes256Cbc(CipherDirection direction, ByteView key, ByteView iv, ByteView input,
                 std::span<std::uint8_t> output) {
  static EVP_CIPHER* const cipher = EVP_CIPHER_fetch(nullptr, "AES-256-CBC", nullptr);
  return Transform(cipher, direction, key, iv, input, output);
}

Status Aes128CfbInPlace(CipherDirection direction, ByteView key, ByteView iv,
                        std::span<std::uint8_t> data) {
  static EVP_CIPHER* const cipher = EVP_CIPHER_fetch(nullptr, "AES-128-CFB", nullptr);
  return Transform(cipher, direction, key, iv, data, data);
}

}  // namespace keyescrow
