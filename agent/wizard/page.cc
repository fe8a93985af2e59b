#include "agent/wizard/page.h"

#include <fmt/format.h>

#include "agent/cli/terminal.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kWidth = 78;

}  // namespace

std::string WrapText(std::string_view text, std::size_t indent) {
  std::string out;
  std::string line(indent, ' ');
  bool is_empty = true;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    if (!is_empty && DisplayWidth(line) + 1 + DisplayWidth(word) > kWidth) {
      out.append(line).append("\n");
      line.assign(indent, ' ');
      is_empty = true;
    }
    if (!is_empty) line.push_back(' ');
    line.append(word);
    is_empty = false;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out.append(line).append("\n");
}

std::string RenderPage(const Page& page) {
  std::string out = "\n-- " + EscapeForTerminal(page.title) + " ";
  const std::size_t used = DisplayWidth(out) - 1;  // its line feed takes no column
  if (used < kWidth) out.append(kWidth - used, '-');
  out.push_back('\n');
  for (const std::string& paragraph : page.paragraphs) {
    out.push_back('\n');
    if (paragraph.starts_with("  ")) {
      out.append(EscapeLinesForTerminal(paragraph)).append("\n");
    } else {
      out.append(WrapText(EscapeForTerminal(paragraph), 0));
    }
  }
  if (!page.choices.empty()) out.push_back('\n');
  for (std::size_t index = 0; index < page.choices.size(); ++index) {
    constexpr std::size_t kIndent = 5;
    std::string text = WrapText(EscapeForTerminal(page.choices[index].text), kIndent);
    const std::string number = fmt::format("{:>3}", index + 1);
    text.replace(0, number.size(), number);
    out.append(text);
    if (!page.choices[index].detail.empty()) {
      out.append(WrapText(EscapeForTerminal(page.choices[index].detail), kIndent + 2));
    }
  }
  return out.append("\n");
}

std::vector<std::string> ErrorText(const Error& error) {
  std::vector<std::string> out = {"error: " + error.message()};
  if (!error.hint().empty()) out.push_back("hint: " + error.hint());
  return out;
}

}  // namespace keyescrow::agent
