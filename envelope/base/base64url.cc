#include "envelope/base/base64url.h"

#include <array>

namespace keyescrow {
namespace {

constexpr char kUrlAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
constexpr char kStdAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

constexpr std::array<std::int8_t, 256> Inverse(const char* alphabet) {
  std::array<std::int8_t, 256> table{};
  for (auto& entry : table) entry = -1;
  for (int value = 0; value < 64; ++value) {
    table[static_cast<unsigned char>(alphabet[value])] = static_cast<std::int8_t>(value);
  }
  return table;
}

constexpr auto kUrlInverse = Inverse(kUrlAlphabet);
constexpr auto kStdInverse = Inverse(kStdAlphabet);

// Three bytes are four characters; of one or two bytes that are left, the last character's low bits
// are zero.
std::string Encode(ByteView bytes, const char* alphabet) {
  std::string text((bytes.size() * 8 + 5) / 6, '\0');
  char* out = text.data();
  const std::uint8_t* in = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 3; left -= 3, in += 3) {
    const std::uint32_t group = std::uint32_t{in[0]} << 16 | std::uint32_t{in[1]} << 8 | in[2];
    *out++ = alphabet[group >> 18];
    *out++ = alphabet[group >> 12 & 63];
    *out++ = alphabet[group >> 6 & 63];
    *out++ = alphabet[group & 63];
  }
  if (left == 0) return text;
  const std::uint32_t group =
      std::uint32_t{in[0]} << 16 | (left == 2 ? std::uint32_t{in[1]} << 8 : 0U);
  *out++ = alphabet[group >> 18];
  *out++ = alphabet[group >> 12 & 63];
  if (left == 2) *out = alphabet[group >> 6 & 63];
  return text;
}

std::optional<Bytes> Decode(std::string_view text, const std::array<std::int8_t, 256>& inverse) {
  if (text.size() % 4 == 1) return std::nullopt;
  Bytes bytes(text.size() * 3 / 4);
  std::uint8_t* out = bytes.data();
  const char* in = text.data();
  int seen = 0;  // is negative once a character is none of the alphabet
  const auto next = [&] {
    // NOLINTNEXTLINE(bugprone-signed-char-misuse): its sign is what it tells
    const int value = inverse[static_cast<unsigned char>(*in++)];
    seen |= value;
    return static_cast<std::uint32_t>(value);
  };
  std::size_t left = text.size();
  for (; left >= 4; left -= 4) {
    std::uint32_t group = next() << 18;
    group |= next() << 12;
    group |= next() << 6;
    group |= next();
    *out++ = static_cast<std::uint8_t>(group >> 16);
    *out++ = static_cast<std::uint8_t>(group >> 8);
    *out++ = static_cast<std::uint8_t>(group);
  }
  std::uint32_t unused = 0;
  if (left > 0) {
    std::uint32_t group = next() << 18;
    group |= next() << 12;
    *out++ = static_cast<std::uint8_t>(group >> 16);
    unused = 0xFFFF;
    if (left == 3) {
      group |= next() << 6;
      *out = static_cast<std::uint8_t>(group >> 8);
      unused = 0xFF;
    }
    unused &= group;
  }
  // Canonical: the bits that no byte uses are zero.
  if (seen < 0 || unused != 0) return std::nullopt;
  return bytes;
}

}  // namespace

std::string EncodeBase64Url(ByteView bytes) { return Encode(bytes, kUrlAlphabet); }

std::optional<Bytes> DecodeBase64Url(std::string_view text) { return Decode(text, kUrlInverse); }

std::string EncodeBase64(ByteView bytes) {
  std::string text = Encode(bytes, kStdAlphabet);
  while (text.size() % 4 != 0) text.push_back('=');
  return text;
}

std::optional<Bytes> DecodeBase64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  for (int padding = 0; padding < 2 && !text.empty() && text.back() == '='; ++padding) {
    text.remove_suffix(1);
  }
  return Decode(text, kStdInverse);
}

}  // namespace keyescrow
