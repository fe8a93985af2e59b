#include "agent/report/pictures.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "agent/report/report_html_tables.h"
#include "agent/report/text.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent::report {
namespace {

constexpr std::size_t kMaxIntervals = 60;
constexpr std::int64_t kDaySeconds = 86400;

struct Lane {
  std::string_view outcome;
  std::string_view tone;
  int y = 0;
};
constexpr std::array<Lane, 4> kLanes = {{
    {"completed", "good", 24},
    {"failed", "warn", 60},
    {"denied", "bad", 96},
    {"pending", "open", 132},
}};
constexpr int kTimelineHeight = 176;

std::string Summary(std::span<const Share> shares) {
  std::string text;
  for (const Share& share : shares) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", share.value, share.label);
  }
  return text;
}

// Mark: each lane has a shape of its own, so that colour is not needed to read it.
std::string Mark(const Lane& lane, double x, std::uint64_t count) {
  const double r = count == 1 ? 5 : count < 10 ? 9 : 12;
  const std::string at =
      fmt::format("<svg x=\"{:.2f}%\" y=\"{}\" width=\"1\" height=\"1\">", x, lane.y);
  std::string shape;
  if (lane.tone == "good") {
    shape = fmt::format("<circle class=\"f-good\" r=\"{}\"/>", r);
  } else if (lane.tone == "warn") {
    shape = fmt::format("<path class=\"f-warn\" d=\"M0 {0}L{1} {1}H{0}Z\"/>", -r, r);
  } else if (lane.tone == "bad") {
    shape = fmt::format("<path class=\"f-bad\" d=\"M{0} {0}H{1}V{1}H{0}Z\"/>", -r, r);
  } else {
    shape = fmt::format("<circle class=\"s-warn\" stroke-width=\"2.5\" r=\"{}\"/>", r - 1);
  }
  std::string number;
  if (count > 1) {
    number = fmt::format("<text class=\"{}\" text-anchor=\"middle\" y=\"4\">{}</text>",
                         lane.tone == "open" ? "" : "inside", count);
  }
  return at + shape + number + "</svg>";
}

}  // namespace

std::string FigureMark(std::string_view name, std::uint64_t value) {
  if (name.empty()) return std::to_string(value);
  return fmt::format("<data data-figure=\"{}\" value=\"{}\">{}</data>", name, value, value);
}

std::string ShareBar(std::string_view id, std::string_view title, std::span<const Share> shares) {
  std::uint64_t total = 0;
  for (const Share& share : shares) total += share.value;
  std::string bar = fmt::format(
      "<figure><figcaption id=\"{0}\">{1}</figcaption>"
      "<svg height=\"28\" role=\"img\" aria-labelledby=\"{0} {0}-d\"><desc id=\"{0}-d\">{2}</desc>"
      "<rect class=\"f-track\" width=\"100%\" height=\"28\" rx=\"4\"/>",
      id, HtmlText(title), HtmlText(Summary(shares)));
  std::string legend = "<ul class=\"legend\">";
  double x = 0;
  for (const Share& share : shares) {
    const double width =
        total == 0 ? 0 : 100.0 * static_cast<double>(share.value) / static_cast<double>(total);
    if (share.value != 0) {
      bar += fmt::format(
          "<rect class=\"f-{}\" x=\"{:.3f}%\" width=\"{:.3f}%\" height=\"28\" rx=\"4\"/>",
          share.tone, x, width);
    }
    x += width;
    legend += fmt::format(
        "<li><svg aria-hidden=\"true\"><rect class=\"f-{}\" width=\"12\" height=\"12\" rx=\"2\"/>"
        "</svg>{} {}</li>",
        share.tone, FigureMark(share.figure, share.value), share.label);
  }
  return bar + "</svg>" + legend + "</ul></figure>";
}

std::string RowBar(std::uint64_t value, std::uint64_t maximum, std::string_view tone) {
  const double width =
      maximum == 0 ? 0 : 100.0 * static_cast<double>(value) / static_cast<double>(maximum);
  return fmt::format(
      "<svg height=\"16\" aria-hidden=\"true\"><rect class=\"f-track\" width=\"100%\" "
      "height=\"16\" "
      "rx=\"3\"/><rect class=\"f-{}\" width=\"{:.3f}%\" height=\"16\" rx=\"3\"/></svg>",
      tone, width);
}

std::string ReleaseTimeline(const std::vector<Release>& releases) {
  if (releases.empty()) return "";
  const auto by_time = [](const Release& a, const Release& b) { return a.time < b.time; };
  const auto [first, last] = std::minmax_element(releases.begin(), releases.end(), by_time);
  // Whole days, at least one: releases of one day then stand where in the day they were.
  const auto day_of = [](std::int64_t time) {  // of times before 1970 too
    return time - (time % kDaySeconds + kDaySeconds) % kDaySeconds;
  };
  const std::int64_t begin = day_of(first->time);
  const std::int64_t end = day_of(last->time) + kDaySeconds;
  const auto interval_of = [&](std::int64_t time) {
    return static_cast<std::size_t>((time - begin) * static_cast<std::int64_t>(kMaxIntervals) /
                                    (end - begin));
  };
  std::array<std::array<std::uint64_t, kMaxIntervals>, kLanes.size()> counts{};
  for (const Release& release : releases) {
    for (std::size_t lane = 0; lane < kLanes.size(); ++lane) {
      const bool ended_so = release.outcome == kLanes[lane].outcome ||
                            (release.outcome == "interrupted" && kLanes[lane].outcome == "pending");
      if (ended_so) ++counts[lane][interval_of(release.time)];
    }
  }
  std::string svg = fmt::format(
      "<figure><figcaption id=\"timeline\">Releases over time</figcaption><svg height=\"{}\" "
      "role=\"img\" aria-labelledby=\"timeline timeline-d\"><desc id=\"timeline-d\">{} releases "
      "from {} to {}, by outcome; the table below lists each</desc>",
      kTimelineHeight, releases.size(), FormatUtc(first->time), FormatUtc(last->time));
  for (std::size_t lane = 0; lane < kLanes.size(); ++lane) {
    const Lane& row = kLanes[lane];
    std::uint64_t total = 0;
    for (const std::uint64_t count : counts[lane]) total += count;
    svg += fmt::format(
        "<line class=\"s-line\" x1=\"0\" x2=\"100%\" y1=\"{0}\" y2=\"{0}\"/><text x=\"0\" "
        "y=\"{1}\">{2} {3}</text>",
        row.y, row.y - 12, total, row.outcome == "pending" ? "without an outcome" : row.outcome);
    for (std::size_t i = 0; i < kMaxIntervals; ++i) {
      if (counts[lane][i] == 0) continue;
      const double x = 2 + 96 * (static_cast<double>(i) + 0.5) / kMaxIntervals;
      svg += Mark(row, x, counts[lane][i]);
    }
  }
  const bool one_day = end - begin == kDaySeconds;
  svg += fmt::format(
      "<text x=\"0\" y=\"{0}\">{1}</text><text x=\"100%\" y=\"{0}\" text-anchor=\"end\">{2}</text>",
      kTimelineHeight - 8, one_day ? DateTime(begin) + " UTC" : FormatUtc(begin).substr(0, 10),
      one_day ? "24:00 UTC" : FormatUtc(end - 1).substr(0, 10));
  return svg + "</svg></figure>";
}

}  // namespace keyescrow::agent::report
