#include "envelope/private_jwk.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <utility>

#include "envelope/base/base64url.h"

namespace keyescrow::envelope {
namespace {

constexpr std::size_t kScalarBytes = 32;
constexpr std::size_t kScalarCharacters = 43;  // of unpadded base64url

// Between is 0xFF…FF where low ≤ value ≤ high, else 0, for values below 2^16: without a branch.
unsigned Between(unsigned value, unsigned low, unsigned high) {
  return 0U - (((low - value - 1U) & (value - high - 1U)) >> 31);
}

// DigitOf and CharacterOf are base64url's alphabet without a table that a secret would index.
unsigned char CharacterOf(unsigned digit) {
  return static_cast<unsigned char>(
      (Between(digit, 0, 25) & (digit + 'A')) | (Between(digit, 26, 51) & (digit - 26 + 'a')) |
      (Between(digit, 52, 61) & (digit - 52 + '0')) | (Between(digit, 62, 62) & '-') |
      (Between(digit, 63, 63) & '_'));
}

// Bit 8 is set where the character is none of the alphabet.
unsigned DigitOf(unsigned character) {
  const unsigned upper = Between(character, 'A', 'Z');
  const unsigned lower = Between(character, 'a', 'z');
  const unsigned number = Between(character, '0', '9');
  const unsigned dash = Between(character, '-', '-');
  const unsigned line = Between(character, '_', '_');
  return (upper & (character - 'A')) | (lower & (character - 'a' + 26)) |
         (number & (character - '0' + 52)) | (dash & 62U) | (line & 63U) |
         (~(upper | lower | number | dash | line) & 0x100U);
}

void EncodeScalar(ByteView scalar, std::span<std::uint8_t> text) {
  std::size_t at = 0;
  for (std::size_t index = 0; index < kScalarBytes; index += 3) {
    const bool third = index + 2 < kScalarBytes;
    const unsigned group = static_cast<unsigned>(scalar[index]) << 16 |
                           static_cast<unsigned>(scalar[index + 1]) << 8 |
                           (third ? scalar[index + 2] : 0U);
    for (unsigned shift = 18;; shift -= 6) {
      text[at++] = CharacterOf(group >> shift & 63U);
      if (shift == (third ? 0U : 6U)) break;
    }
  }
}

// DecodeScalar returns false where the text is not 32 bytes in canonical base64url.
bool DecodeScalar(ByteView text, std::span<std::uint8_t> scalar) {
  if (text.size() != kScalarCharacters) return false;
  unsigned wrong = 0;
  unsigned group = 0;
  std::size_t at = 0;
  for (std::size_t index = 0; index < kScalarCharacters; ++index) {
    const unsigned digit = DigitOf(text[index]);
    wrong |= digit & 0x100U;
    group = group << 6 | (digit & 63U);
    if (index % 4 != 3) continue;
    for (unsigned shift = 16;; shift -= 8) {
      scalar[at++] = static_cast<std::uint8_t>(group >> shift);
      if (shift == 0) break;
    }
    group = 0;
  }
  // Three characters are left: 18 bits for 16, and the last two are zero.
  wrong |= group & 3U;
  scalar[at] = static_cast<std::uint8_t>(group >> 10);
  scalar[at + 1] = static_cast<std::uint8_t>(group >> 2);
  return wrong == 0;
}

// Reader takes the members one after the other; values are views of the secret text.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  bool Take(char character) {
    SkipBlanks();
    if (at_ == text_.size() || text_[at_] != character) return false;
    ++at_;
    return true;
  }
  std::optional<std::string_view> TakeString() {
    if (!Take('"')) return std::nullopt;
    const std::size_t begin = at_;
    while (at_ < text_.size() && text_[at_] != '"') {
      const char character = text_[at_];
      if (character < 0x20 || character > 0x7e || character == '\\') return std::nullopt;
      ++at_;
    }
    if (at_ == text_.size()) return std::nullopt;
    return text_.substr(begin, at_++ - begin);
  }
  bool AtEnd() {
    SkipBlanks();
    return at_ == text_.size();
  }

 private:
  void SkipBlanks() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

constexpr std::size_t kNumMembers = 5;
constexpr std::array<std::string_view, kNumMembers> kNames = {"crv", "d", "kty", "x", "y"};

// ReadMembers returns the values in the order of kNames.
std::optional<std::array<std::string_view, kNumMembers>> ReadMembers(std::string_view text) {
  std::array<std::string_view, kNumMembers> values;
  std::array<bool, kNumMembers> found{};
  Reader reader(text);
  if (!reader.Take('{')) return std::nullopt;
  for (std::size_t count = 0; count < kNumMembers; ++count) {
    if (count > 0 && !reader.Take(',')) return std::nullopt;
    const auto name = reader.TakeString();
    if (!name || !reader.Take(':')) return std::nullopt;
    const auto value = reader.TakeString();
    const auto known = std::find(kNames.begin(), kNames.end(), *name);
    if (!value || known == kNames.end()) return std::nullopt;
    const auto index = static_cast<std::size_t>(known - kNames.begin());
    if (std::exchange(found[index], true)) return std::nullopt;
    values[index] = *value;
  }
  if (!reader.Take('}') || !reader.AtEnd()) return std::nullopt;
  return values;
}

}  // namespace

Result<SecretBytes> WritePrivateJwk(const P256KeyPair& pair) {
  constexpr std::string_view kHead = R"({"crv":"P-256","d":")";
  const std::string tail = R"(","kty":"EC","x":")" + EncodeBase64Url(pair.Public().x()) +
                           R"(","y":")" + EncodeBase64Url(pair.Public().y()) + R"("})";
  ASSIGN_OR_RETURN(const SecretBytes scalar, pair.Scalar());
  ASSIGN_OR_RETURN(SecretBytes text,
                   SecretBytes::Allocate(kHead.size() + kScalarCharacters + tail.size()));
  const std::span<std::uint8_t> out = text.ExposeMutable();
  std::memcpy(out.data(), kHead.data(), kHead.size());
  EncodeScalar(scalar.Expose(), out.subspan(kHead.size(), kScalarCharacters));
  std::memcpy(out.data() + kHead.size() + kScalarCharacters, tail.data(), tail.size());
  return text;
}

Result<std::optional<P256KeyPair>> ReadPrivateJwk(const SecretBytes& text) {
  std::optional<P256KeyPair> none;
  const auto members = ReadMembers(AsText(text.Expose()));
  if (!members) return none;
  const auto& [curve, d, key_type, x, y] = *members;
  ASSIGN_OR_RETURN(SecretBytes scalar, SecretBytes::Allocate(kScalarBytes));
  if (curve != "P-256" || key_type != "EC" || !DecodeScalar(AsBytes(d), scalar.ExposeMutable())) {
    return none;
  }
  auto pair = P256KeyPair::FromScalar(scalar);  // refuses d out of range
  if (!pair) {
    if (pair.error().code() == ErrorCode::kCryptoLibrary) return none;
    return std::move(pair).error();
  }
  if (x != EncodeBase64Url(pair->Public().x()) || y != EncodeBase64Url(pair->Public().y())) {
    return none;
  }
  return std::optional(std::move(*pair));
}

}  // namespace keyescrow::envelope
