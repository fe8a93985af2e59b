// Rendering: one JSON document a command, from which its text is made too, so that they cannot
// disagree. Text cells are escaped (terminal.h, rule 4); invalid UTF-8 never throws.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>

namespace keyescrow::agent {

using Json = nlohmann::ordered_json;

// NewDocument returns {"schema":"keyescrow/<command>/1"}; `command` as typed, e.g. "token add",
// with '-' for its space.
Json NewDocument(std::string_view command);

// DumpDocument returns the document indented by two, with a last line feed; bytes that are not
// UTF-8 become U+FFFD.
std::string DumpDocument(const Json& document);

// CellFormat: how a member's value becomes text. Null, and a member that is not there, is "-"; an
// array's elements are joined by ", ".
enum class CellFormat : std::uint8_t {
  kText,      // strings escaped, numbers in decimal, true "yes", false "no"
  kBytes,     // a count of bytes: "32 bytes", "1.5 KiB"
  kDuration,  // seconds: "3 days"
  kAge,       // a UTC time as text (clock.h): "3 days ago"
};

struct Column {
  std::string_view member;  // JSON pointer-like, "." between the levels: "key.name"
  std::string_view title;
  CellFormat format = CellFormat::kText;
  bool right = false;  // aligned to the right
};

// RenderTable makes one line a row of the array, columns two spaces apart, aligned by display
// width (East Asian wide characters count two). No rows: "". `now` is for kAge.
std::string RenderTable(const Json& rows, std::span<const Column> columns, std::int64_t now = 0);

// RenderFields makes one "title:  value" line a member that is there and not null, values aligned;
// several lines of a value are indented alike.
std::string RenderFields(const Json& object, std::span<const Column> fields, std::int64_t now = 0);

// FormatDuration: the largest fitting unit: "0 seconds", "1 minute", "3 days", "2 years".
std::string FormatDuration(std::int64_t seconds);
// FormatAge: "just now" below 10 s, "3 days ago", "in 2 hours".
std::string FormatAge(std::int64_t then, std::int64_t now);
// FormatByteSize: "1 byte", "32 bytes", "1.5 KiB", "2.0 MiB".
std::string FormatByteSize(std::uint64_t bytes);

}  // namespace keyescrow::agent
