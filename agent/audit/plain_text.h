// Plain text: printable ASCII that stands for itself in a JSON string. Nearly every text of an
// entry is of it alone, so it is looked at eight bytes at a time.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace keyescrow::agent::audit {

constexpr bool IsPlainChar(char c) { return c >= 0x20 && c < 0x7F && c != '"' && c != '\\'; }

// PlainPrefix returns how many of the eight bytes, in their order in memory, stand before the first
// that is not plain. On little-endian machines; elsewhere 0, and bytes are looked at one by one.
inline std::size_t PlainPrefix(const char* bytes) {
  if constexpr (std::endian::native != std::endian::little) return 0;
  constexpr std::uint64_t kOnes = 0x0101010101010101;
  std::uint64_t word = 0;
  std::memcpy(&word, bytes, sizeof word);
  // The high bit of each byte that is zero in `x`; above the first such byte it may say too many.
  const auto zeroes = [](std::uint64_t x) { return (x - kOnes) & ~x; };
  const std::uint64_t not_plain =
      (word | ((word - kOnes * 0x20) & ~word) | zeroes(word ^ kOnes * '"') |
       zeroes(word ^ kOnes * '\\') | zeroes(word ^ kOnes * 0x7F)) &
      kOnes * 0x80;
  return static_cast<std::size_t>(std::countr_zero(not_plain)) / 8;
}

inline bool IsPlainText(std::string_view text) {
  const char* at = text.data();
  const char* const end = at + text.size();
  for (; end - at >= 8 && PlainPrefix(at) == 8; at += 8) {
  }
  while (at != end && IsPlainChar(*at)) ++at;
  return at == end;
}

}  // namespace keyescrow::agent::audit
