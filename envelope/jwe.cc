#include "envelope/jwe.h"

#include <cstring>

#include "envelope/base/aes.h"
#include "envelope/base/hash.h"

namespace keyescrow::envelope {
namespace {

constexpr std::size_t kBlock = 16;

Bytes64 ComputeMac(const SecretBytes& key, std::string_view aad, ByteView iv, ByteView ciphertext) {
  std::uint8_t aad_bits[8];
  const std::uint64_t count = std::uint64_t{aad.size()} * 8;
  for (int index = 0; index < 8; ++index) {
    aad_bits[index] = static_cast<std::uint8_t>(count >> (56 - 8 * index));
  }
  return HmacSha512(key.Expose().first(32), {AsBytes(aad), iv, ciphertext, aad_bits});
}

}  // namespace

Result<CompactJwe> EncryptJwe(const SecretBytes& key, std::string_view aad,
                              const SecretBytes& plaintext, RandomSource& random) {
  CompactJwe jwe;
  RETURN_IF_ERROR(random.Fill(jwe.iv));
  const std::size_t padding = kBlock - plaintext.size() % kBlock;
  ASSIGN_OR_RETURN(SecretBytes padded, SecretBytes::Allocate(plaintext.size() + padding));
  if (!plaintext.empty()) {
    std::memcpy(padded.ExposeMutable().data(), plaintext.Expose().data(), plaintext.size());
  }
  std::memset(padded.ExposeMutable().data() + plaintext.size(), static_cast<int>(padding), padding);
  jwe.ciphertext.resize(padded.size());
  RETURN_IF_ERROR(Aes256Cbc(CipherDirection::kEncrypt, key.Expose().subspan(32), jwe.iv,
                            padded.Expose(), jwe.ciphertext));
  const Bytes64 mac = ComputeMac(key, aad, jwe.iv, jwe.ciphertext);
  std::memcpy(jwe.tag.data(), mac.data(), jwe.tag.size());
  return jwe;
}

bool VerifyJweTag(const SecretBytes& key, std::string_view aad, ByteView iv, ByteView ciphertext,
                  const Bytes32& tag) {
  const Bytes64 mac = ComputeMac(key, aad, iv, ciphertext);
  return EqualConstantTime(ByteView(mac).first(32), tag);
}

Result<SecretBytes> DecryptJwe(const SecretBytes& key, std::string_view aad, ByteView iv,
                               ByteView ciphertext, const Bytes32& tag, const Error& refusal) {
  if (ciphertext.empty() || ciphertext.size() % kBlock != 0 ||
      !VerifyJweTag(key, aad, iv, ciphertext, tag)) {
    return refusal;
  }
  ASSIGN_OR_RETURN(SecretBytes padded, SecretBytes::Allocate(ciphertext.size()));
  RETURN_IF_ERROR(Aes256Cbc(CipherDirection::kDecrypt, key.Expose().subspan(32), iv, ciphertext,
                            padded.ExposeMutable()));
  // The tag was right, so the padding tells an attacker nothing that its maker did not choose.
  const ByteView bytes = padded.Expose();
  const std::size_t padding = bytes.back();
  bool good = padding >= 1 && padding <= kBlock;
  for (std::size_t index = 0; good && index < padding; ++index) {
    good = bytes[bytes.size() - 1 - index] == padding;
  }
  if (!good) return refusal;
  padded.Truncate(padded.size() - padding);
  return padded;
}

}  // namespace keyescrow::envelope
