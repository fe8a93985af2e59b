// AES (FIPS 197) in the two modes the project needs, over OpenSSL: CBC without padding for the
// envelope's A256CBC-HS512, CFB-128 for the parameter encryption of TPM sessions.
#pragma once

#include <span>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow {

enum class CipherDirection : std::uint8_t { kDecrypt, kEncrypt };

// Aes256Cbc transforms whole blocks: key 32 bytes, iv 16, input a multiple of 16, output as long
// as the input. No padding is added or removed. Errors: kCryptoLibrary.
Status Aes256Cbc(CipherDirection direction, ByteView key, ByteView iv, ByteView input,
                 std::span<std::uint8_t> output);

// Aes128CfbInPlace transforms `data` in place: key 16 bytes, iv 16. Errors: kCryptoLibrary.
Status Aes128CfbInPlace(CipherDirection direction, ByteView key, ByteView iv,
                        std::span<std::uint8_t> data);

}  // namespace keyescrow
