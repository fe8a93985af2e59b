// The pictures of a report: inline SVG without a script, a style attribute or an outside request.
// Widths are percentages and texts keep their size, so that they are legible on a phone too.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "agent/report/report_model.h"

namespace keyescrow::agent::report {

struct Share {
  std::string_view label;
  std::string_view figure;  // name among the figures; "" for none
  std::uint64_t value = 0;
  std::string_view tone;  // "good", "warn", "bad" or "track"
};

// ShareBar is a bar of shares with its legend as a list: label and number of each. `id` is unique
// in the document.
std::string ShareBar(std::string_view id, std::string_view title, std::span<const Share> shares);

// RowBar is one bar of a table of bars, `value` of `maximum` long.
std::string RowBar(std::uint64_t value, std::uint64_t maximum, std::string_view tone);

// ReleaseTimeline shows releases by outcome in up to 60 intervals of time. Empty without releases.
std::string ReleaseTimeline(const std::vector<Release>& releases);

// FigureMark marks a number as the figure of that name, for programs that read the page.
std::string FigureMark(std::string_view name, std::uint64_t value);

}  // namespace keyescrow::agent::report
