// The recovery sheet as text.
#include <fmt/core.h>

#include <algorithm>

#include "agent/report/recovery_sheet.h"
#include "agent/report/sheet_wording.h"
#include "agent/report/text.h"
#include "envelope/sheet_lines.h"

namespace keyescrow::agent::report {
namespace {

constexpr std::size_t kWidth = 78;
constexpr std::size_t kLinesOfAPage = 60;
constexpr std::size_t kDataChars = 48;  // with its header, a line of less than 78 characters

// EndOfWord: a blank between quotation marks of a shell ends none.
std::size_t EndOfWord(std::string_view text, bool is_command) {
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (is_command && text[i] == '\'') quoted = !quoted;
    if (text[i] == ' ' && !quoted) return i;
  }
  return text.size();
}

// AppendWrapped writes `text` after `lead`, further lines indented as far; a word that is longer
// than a line, such as a name, stands alone on its own. A command can be pasted: its lines end in
// a backslash.
void AppendWrapped(std::string& out, std::string_view lead, std::string_view text,
                   bool is_command = false) {
  const std::string_view broken = is_command ? " \\" : "";
  out.append(lead);
  std::size_t column = lead.size();
  bool first = true;
  while (!text.empty()) {
    const std::size_t end = EndOfWord(text, is_command);
    if (!first && column + 1 + end + broken.size() > kWidth) {
      out.append(broken).append("\n").append(lead.size(), ' ');
      column = lead.size();
      first = true;
    }
    if (!first) {
      out.push_back(' ');
      ++column;
    }
    out.append(text.substr(0, end));
    column += end;
    first = false;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  out.push_back('\n');
}

}  // namespace

SheetDocument RecoverySheetText(const RecoverySheet& sheet) {
  const std::size_t num_lines = (sheet.packed.size() + kDataChars - 1) / kDataChars;
  std::string out(envelope::kSheetTitle);
  out += fmt::format(" of {} version {}\n", sheet.key_name, sheet.key_version);
  out += fmt::format("keyescrow {}, printed {}\n\n", sheet.program_version, sheet.printed);
  AppendWrapped(out, "", WhatItIs(sheet, SheetForm::kLines));
  out += "\n";
  for (const SheetFact& fact : FactsOf(sheet)) {
    AppendWrapped(out, "  ", fact.name + ": " + VisibleText(fact.value));
  }
  if (!sheet.note.empty()) AppendWrapped(out, "  ", "note: " + VisibleText(sheet.note));
  out += "\nWays in: one is enough, and all that it needs must be at hand\n";
  for (const SheetPath& path : sheet.paths) {
    AppendWrapped(out, "  ", "--via " + path.id + " (" + path.expression + ")");
    AppendWrapped(out, "      bring: ", VisibleText(NeedsOf(path)));
  }
  out += "\nTo restore the key\n";
  std::size_t number = 0;
  for (const SheetStep& step : StepsOf(sheet, SheetForm::kLines, num_lines)) {
    AppendWrapped(out, fmt::format("  {}. ", ++number), step.text);
    if (!step.command.empty()) AppendWrapped(out, "       ", step.command, true);
  }
  out += "\n";
  AppendWrapped(out, "", "Without keyescrow: " + WithoutKeyescrow().text);
  out += "\n";
  AppendWrapped(
      out, "",
      fmt::format("The {} lines of the envelope. What follows the last slash has the "
                  "letters A-Z and the digits 2-7 alone; the four digits before it tell a "
                  "line that was misread.",
                  num_lines));
  out += "\n";
  for (const std::string& line : envelope::CutSheetLines(sheet.packed, num_lines)) {
    out += line + "\n";
  }
  SheetDocument document;
  document.num_codes = num_lines;
  document.num_pages =
      (static_cast<std::size_t>(std::count(out.begin(), out.end(), '\n')) + kLinesOfAPage - 1) /
      kLinesOfAPage;
  document.text = std::move(out);
  return document;
}

}  // namespace keyescrow::agent::report
