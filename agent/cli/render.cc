#include "agent/cli/render.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <vector>

#include "agent/cli/terminal_text.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent {
namespace {

constexpr std::int64_t kMinute = 60;
constexpr std::int64_t kHour = 60 * kMinute;
constexpr std::int64_t kDay = 24 * kHour;
constexpr std::int64_t kYear = 365 * kDay;

// Find follows "key.name" from the object; null where a level is missing.
const Json* Find(const Json& object, std::string_view member) {
  const Json* at = &object;
  while (true) {
    const std::size_t dot = member.find('.');
    if (!at->is_object()) return nullptr;
    const auto found = at->find(std::string(member.substr(0, dot)));
    if (found == at->end()) return nullptr;
    at = &*found;
    if (dot == std::string_view::npos) return at;
    member.remove_prefix(dot + 1);
  }
}

std::string CellText(const Json* value, const Column& column, std::int64_t now, bool keep_lines) {
  if (value == nullptr || value->is_null()) return "-";
  if (value->is_array()) {
    std::string joined;
    for (const Json& element : *value) {
      if (!joined.empty()) joined.append(", ");
      joined.append(CellText(&element, column, now, keep_lines));
    }
    return joined.empty() ? "-" : joined;
  }
  if (value->is_boolean()) return value->get<bool>() ? "yes" : "no";
  if (value->is_number_integer()) {
    if (column.format == CellFormat::kBytes && value->is_number_unsigned()) {
      return FormatByteSize(value->get<std::uint64_t>());
    }
    if (column.format == CellFormat::kBytes) {
      return FormatByteSize(
          static_cast<std::uint64_t>(std::max<std::int64_t>(0, value->get<std::int64_t>())));
    }
    if (column.format == CellFormat::kDuration) return FormatDuration(value->get<std::int64_t>());
  }
  if (value->is_string()) {
    const auto& text = value->get_ref<const std::string&>();
    if (column.format == CellFormat::kAge) {
      if (const auto then = ParseUtc(text)) return FormatAge(*then, now);
    }
    if (text.empty()) return "-";
    return keep_lines ? EscapeLinesForTerminal(text) : EscapeForTerminal(text);
  }
  return EscapeForTerminal(value->dump(-1, ' ', false, Json::error_handler_t::replace));
}

void AppendPadded(std::string& out, std::string_view text, std::size_t width, bool right) {
  const std::size_t taken = DisplayWidth(text);
  const std::size_t padding = width > taken ? width - taken : 0;
  if (right) out.append(padding, ' ');
  out.append(text);
  if (!right) out.append(padding, ' ');
}

void TrimRight(std::string& line) {
  while (!line.empty() && line.back() == ' ') line.pop_back();
}

}  // namespace

Json NewDocument(std::string_view command) {
  std::string name(command);
  std::ranges::replace(name, ' ', '-');
  Json document = Json::object();
  document["schema"] = "keyescrow/" + name + "/1";
  return document;
}

std::string DumpDocument(const Json& document) {
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string RenderTable(const Json& rows, std::span<const Column> columns, std::int64_t now) {
  if (!rows.is_array() || rows.empty()) return "";
  std::vector<std::vector<std::string>> lines;
  std::vector<std::string>& titles = lines.emplace_back();
  for (const Column& column : columns) titles.emplace_back(column.title);
  for (const Json& row : rows) {
    std::vector<std::string>& line = lines.emplace_back();
    for (const Column& column : columns) {
      line.push_back(CellText(Find(row, column.member), column, now, false));
    }
  }
  std::vector<std::size_t> widths(columns.size(), 0);
  for (const auto& line : lines) {
    for (std::size_t index = 0; index < line.size(); ++index) {
      widths[index] = std::max(widths[index], DisplayWidth(line[index]));
    }
  }
  std::string out;
  for (const auto& line : lines) {
    std::string text;
    for (std::size_t index = 0; index < line.size(); ++index) {
      if (index > 0) text.append("  ");
      AppendPadded(text, line[index], widths[index], columns[index].right);
    }
    TrimRight(text);
    out.append(text).append("\n");
  }
  return out;
}

std::string RenderFields(const Json& object, std::span<const Column> fields, std::int64_t now) {
  std::size_t width = 0;
  for (const Column& field : fields) {
    const Json* value = Find(object, field.member);
    if (value != nullptr && !value->is_null()) width = std::max(width, DisplayWidth(field.title));
  }
  std::string out;
  for (const Column& field : fields) {
    const Json* value = Find(object, field.member);
    if (value == nullptr || value->is_null()) continue;
    std::string text = CellText(value, field, now, true);
    const std::string indent(width + 3, ' ');
    for (std::size_t at = text.find('\n'); at != std::string::npos;
         at = text.find('\n', at + 1 + indent.size())) {
      text.insert(at + 1, indent);
    }
    std::string line;
    AppendPadded(line, std::string(field.title) + ":", width + 3, false);
    out.append(line).append(text).append("\n");
  }
  return out;
}

std::string FormatDuration(std::int64_t seconds) {
  struct Unit {
    std::int64_t seconds;
    std::string_view name;
  };
  constexpr Unit kUnits[] = {{kYear, "year"}, {kDay, "day"}, {kHour, "hour"}, {kMinute, "minute"}};
  seconds = std::max<std::int64_t>(0, seconds);
  for (const Unit& unit : kUnits) {
    const std::int64_t count = seconds / unit.seconds;
    if (count > 0) return fmt::format("{} {}{}", count, unit.name, count == 1 ? "" : "s");
  }
  return fmt::format("{} second{}", seconds, seconds == 1 ? "" : "s");
}

std::string FormatAge(std::int64_t then, std::int64_t now) {
  // The difference of any two times that clock.h parses fits.
  const std::int64_t age = now - then;
  if (age >= -10 && age < 10) return "just now";
  if (age < 0) return "in " + FormatDuration(-age);
  return FormatDuration(age) + " ago";
}

std::string FormatByteSize(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} byte{}", bytes, bytes == 1 ? "" : "s");
  constexpr std::array<std::string_view, 6> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1023.95 would be printed as 1024.0.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace keyescrow::agent
