#include "agent/cli/terminal_text.h"

#include <fmt/format.h>

#include <span>

namespace keyescrow::agent {
namespace {

// Decoded: one character of UTF-8 text. `size` bytes; not valid: one byte, in `code`.
struct Decoded {
  char32_t code = 0;
  std::size_t size = 1;
  bool valid = false;
};

// Decode reads the first character of `text`, which is not empty. Source: RFC 3629, 4.
Decoded Decode(std::string_view text) {
  const auto byte = [&](std::size_t index) { return static_cast<unsigned char>(text[index]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1, true};
  const std::size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  const Decoded invalid{lead, 1, false};
  if (lead < 0xc2 || lead > 0xf4 || text.size() < size) return invalid;
  char32_t code = lead & (0xffU >> (size + 1));
  for (std::size_t index = 1; index < size; ++index) {
    if ((byte(index) & 0xc0) != 0x80) return invalid;
    code = code << 6 | (byte(index) & 0x3fU);
  }
  const bool overlong = (size == 3 && code < 0x800) || (size == 4 && code < 0x10000);
  if (overlong || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return invalid;
  return {code, size, true};
}

struct Range {
  char32_t first, last;
};

// IsAmong: `ranges` ascend.
bool IsAmong(std::span<const Range> ranges, char32_t code) {
  for (const Range& range : ranges) {
    if (code < range.first) return false;
    if (code <= range.last) return true;
  }
  return false;
}

// IsUnsafe: characters that move the cursor, reorder the line or are not seen (general categories
// Cc, Zl, Zp, Cf of Unicode 15, and the variation and tag characters).
bool IsUnsafe(char32_t code) {
  constexpr Range kUnsafe[] = {
      {0x00, 0x1f},       {0x7f, 0x9f},       {0xad, 0xad},       {0x34f, 0x34f},
      {0x600, 0x605},     {0x61c, 0x61c},     {0x6dd, 0x6dd},     {0x70f, 0x70f},
      {0x890, 0x891},     {0x8e2, 0x8e2},     {0x115f, 0x1160},   {0x17b4, 0x17b5},
      {0x180b, 0x180f},   {0x200b, 0x200f},   {0x2028, 0x202e},   {0x2060, 0x206f},
      {0x3164, 0x3164},   {0xfe00, 0xfe0f},   {0xfeff, 0xfeff},   {0xffa0, 0xffa0},
      {0xfff0, 0xfffb},   {0x110bd, 0x110bd}, {0x110cd, 0x110cd}, {0x13430, 0x1343f},
      {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},
  };
  return IsAmong(kUnsafe, code);
}

std::string Escape(std::string_view text, bool keep_line_feeds) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Decoded next = Decode(text);
    if (next.valid && (!IsUnsafe(next.code) || (keep_line_feeds && next.code == '\n'))) {
      out.append(text.substr(0, next.size));
    } else if (next.code == '\n') {
      out.append("\\n");
    } else if (next.code == '\t') {
      out.append("\\t");
    } else if (next.code == '\r') {
      out.append("\\r");
    } else if (!next.valid || next.code < 0x80) {
      out.append(fmt::format("\\x{:02x}", static_cast<unsigned>(next.code)));
    } else {
      out.append(fmt::format("\\u{{{:x}}}", static_cast<unsigned>(next.code)));
    }
    text.remove_prefix(next.size);
  }
  return out;
}

// IsWide: East Asian Wide and Fullwidth, and emoji shown wide (Unicode 15, EastAsianWidth.txt, by
// block: a few unassigned code points count as their neighbours).
bool IsWide(char32_t code) {
  constexpr Range kWide[] = {
      {0x1100, 0x115e},   {0x231a, 0x231b},   {0x2329, 0x232a},   {0x23e9, 0x23ec},
      {0x25fd, 0x25fe},   {0x2614, 0x2615},   {0x2648, 0x2653},   {0x26a1, 0x26a1},
      {0x26d4, 0x26d4},   {0x2705, 0x2705},   {0x270a, 0x270b},   {0x274c, 0x274c},
      {0x2753, 0x2755},   {0x2795, 0x2797},   {0x2b1b, 0x2b1c},   {0x2b50, 0x2b50},
      {0x2e80, 0x303e},   {0x3041, 0x4dbf},   {0x4e00, 0xa4cf},   {0xa960, 0xa97c},
      {0xac00, 0xd7a3},   {0xf900, 0xfaff},   {0xfe10, 0xfe19},   {0xfe30, 0xfe6b},
      {0xff01, 0xff60},   {0xffe0, 0xffe6},   {0x16fe0, 0x18cff}, {0x1aff0, 0x1b2fb},
      {0x1f18e, 0x1f18e}, {0x1f191, 0x1f19a}, {0x1f200, 0x1f320}, {0x1f32d, 0x1f335},
      {0x1f337, 0x1f37c}, {0x1f37e, 0x1f393}, {0x1f3a0, 0x1f3ca}, {0x1f3e0, 0x1f3f0},
      {0x1f400, 0x1f43e}, {0x1f442, 0x1f4fc}, {0x1f4ff, 0x1f53d}, {0x1f550, 0x1f567},
      {0x1f5fb, 0x1f64f}, {0x1f680, 0x1f6c5}, {0x1f6d0, 0x1f6df}, {0x1f7e0, 0x1f7eb},
      {0x1f90c, 0x1f9ff}, {0x1fa70, 0x1faff}, {0x20000, 0x3fffd},
  };
  return IsAmong(kWide, code);
}

// IsCombining: the common combining marks, which are drawn over the character before them.
bool IsCombining(char32_t code) {
  constexpr Range kCombining[] = {
      {0x300, 0x36f},   {0x483, 0x489},   {0x591, 0x5bd},   {0x5bf, 0x5c7},   {0x610, 0x61a},
      {0x64b, 0x65f},   {0x670, 0x670},   {0x6d6, 0x6ed},   {0x93c, 0x93c},   {0x941, 0x948},
      {0x94d, 0x94d},   {0xe31, 0xe31},   {0xe34, 0xe3a},   {0xe47, 0xe4e},   {0x1ab0, 0x1aff},
      {0x1dc0, 0x1dff}, {0x20d0, 0x20ff}, {0x302a, 0x302d}, {0x3099, 0x309a}, {0xfe20, 0xfe2f},
  };
  return IsAmong(kCombining, code);
}

}  // namespace

std::string EscapeForTerminal(std::string_view text) { return Escape(text, false); }
std::string EscapeLinesForTerminal(std::string_view text) { return Escape(text, true); }

std::size_t DisplayWidth(std::string_view text) {
  std::size_t width = 0;
  while (!text.empty()) {
    const Decoded next = Decode(text);
    if (!IsCombining(next.code)) width += IsWide(next.code) ? 2 : 1;
    text.remove_prefix(next.size);
  }
  return width;
}

}  // namespace keyescrow::agent
