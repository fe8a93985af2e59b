// UTF-8 (RFC 3629), strict: no surrogates, no overlong forms, nothing past U+10FFFF.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace keyescrow {

struct CodePoint {
  char32_t value = 0;
  std::size_t size_bytes = 0;  // 0: the bytes are not UTF-8
};

// FirstCodePoint decodes the character at the start of `text`, which is not empty.
CodePoint FirstCodePoint(std::string_view text);

bool IsUtf8(std::string_view text);

// CutUtf8 returns at most `max_bytes` of `text`, cut between characters; each byte that is not part
// of a character becomes U+FFFD.
std::string CutUtf8(std::string_view text, std::size_t max_bytes);

}  // namespace keyescrow
