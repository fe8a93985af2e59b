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

std::string Encode(ByteView bytes, const char* alphabet) {
  std::string text;
  text.reserve((bytes.size() * 4 + 2) / 3 + 2);
  std::uint32_t buffer = 0;
  unsigned bits = 0;
  for (std::uint8_t byte : bytes) {
    buffer = buffer << 8 | byte;
    bits += 8;
    while (bits >= 6) {
      bits -= 6;
      text.push_back(alphabet[buffer >> bits & 63]);
    }
  }
  if (bits > 0) text.push_back(alphabet[buffer << (6 - bits) & 63]);
  return text;
}

std::optional<Bytes> Decode(std::string_view text, const std::array<std::int8_t, 256>& inverse) {
  if (text.size() % 4 == 1) return std::nullopt;
  Bytes bytes;
  bytes.reserve(text.size() * 3 / 4);
  std::uint32_t buffer = 0;
  unsigned bits = 0;
  for (char character : text) {
    const int value = inverse[static_cast<unsigned char>(character)];
    if (value < 0) return std::nullopt;
    buffer = buffer << 6 | static_cast<std::uint32_t>(value);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes.push_back(static_cast<std::uint8_t>(buffer >> bits & 255));
    }
  }
  // Canonical: the bits that no byte uses are zero.
  if ((buffer & ((1U << bits) - 1)) != 0) return std::nullopt;
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
