#include "agent/report/text.h"

#include <fmt/core.h>

#include "envelope/base/utf8.h"

namespace keyescrow::agent::report {
namespace {

struct Range {
  char32_t first, last;
};

bool IsUnseen(char32_t code) {
  constexpr Range kUnseen[] = {
      {0x00, 0x1f},       {0x7f, 0x9f},       {0xad, 0xad},       {0x34f, 0x34f},
      {0x61c, 0x61c},     {0x115f, 0x1160},   {0x17b4, 0x17b5},   {0x180b, 0x180f},
      {0x200b, 0x200f},   {0x2028, 0x202e},   {0x2060, 0x206f},   {0x3164, 0x3164},
      {0xfeff, 0xfeff},   {0xffa0, 0xffa0},   {0xfff0, 0xfffb},   {0xfffe, 0xffff},
      {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},
  };
  for (const Range& range : kUnseen) {
    if (code >= range.first && code <= range.last) return true;
  }
  return false;
}

template <typename Append>
std::string Convert(std::string_view text, Append append) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const CodePoint next = FirstCodePoint(text);
    if (next.size_bytes == 0) {
      out += "\xef\xbf\xbd";
      text.remove_prefix(1);
      continue;
    }
    if (IsUnseen(next.value)) {
      out += fmt::format("U+{:04X}", static_cast<std::uint32_t>(next.value));
    } else {
      append(out, text.substr(0, next.size_bytes));
    }
    text.remove_prefix(next.size_bytes);
  }
  return out;
}

}  // namespace

std::string VisibleText(std::string_view text) {
  return Convert(text, [](std::string& out, std::string_view character) { out += character; });
}

std::string HtmlText(std::string_view text) {
  return Convert(text, [](std::string& out, std::string_view character) {
    switch (character.front()) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += character;
    }
  });
}

}  // namespace keyescrow::agent::report
