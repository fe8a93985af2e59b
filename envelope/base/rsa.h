// RSA public keys and RSAES-OAEP (RFC 8017, 7.1) over OpenSSL.
#pragma once

#include <memory>
#include <optional>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow {

enum class OaepHash : std::uint8_t { kSha1, kSha256 };  // for both the label and MGF1; empty label

// RsaPublicKey: 2048 to 8192 bits, odd e > 1.
class RsaPublicKey {
 public:
  // FromSpki takes canonical DER (rsaEncryption with NULL parameters), at most 1200 bytes; nothing
  // if it is anything else or re-encodes differently.
  static std::optional<RsaPublicKey> FromSpki(ByteView der);
  // FromModulus builds the key from big-endian numbers (PKCS#11's CKA_MODULUS,
  // CKA_PUBLIC_EXPONENT).
  static std::optional<RsaPublicKey> FromModulus(ByteView modulus, ByteView exponent);
  RsaPublicKey(RsaPublicKey&&) noexcept;
  RsaPublicKey& operator=(RsaPublicKey&&) noexcept;
  ~RsaPublicKey();

  std::size_t modulus_size_bytes() const;
  Bytes Spki() const;
  // EncryptOaep returns modulus_size_bytes() bytes. Errors: kCryptoLibrary.
  Result<Bytes> EncryptOaep(OaepHash hash, const SecretBytes& plaintext) const;

 private:
  struct Impl;
  explicit RsaPublicKey(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// RemoveOaepPadding takes a whole encoded message (as long as the modulus, from raw RSA) and
// returns the plaintext. Constant time in the message's contents (OpenSSL's
// RSA_padding_check_PKCS1_OAEP_mgf1). Errors: kTokenDataInvalid, one for all ways to be wrong.
Result<SecretBytes> RemoveOaepPadding(OaepHash hash, const SecretBytes& encoded_message);

}  // namespace keyescrow
