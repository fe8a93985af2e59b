#include "agent/cli/nagios.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "agent/cli/exit_code.h"
#include "agent/cli/terminal_text.h"
#include "agent/usecases/path_cover.h"

namespace keyescrow::agent {
namespace {

// The bar begins the performance data, so it may not stand in the text.
std::string OneLine(std::string_view text) {
  std::string line = EscapeForTerminal(text);
  std::ranges::replace(line, '|', '/');
  return line;
}

NagiosLine MakeLine(int status, std::string_view text, std::string_view data) {
  constexpr std::array<std::string_view, 4> kStates = {"OK", "WARNING", "CRITICAL", "UNKNOWN"};
  std::string line =
      fmt::format("KEYESCROW {} - {}", kStates[static_cast<std::size_t>(status)], OneLine(text));
  if (!data.empty()) line += fmt::format(" | {}", data);
  return {line + "\n", status};
}

}  // namespace

NagiosLine FormatNagios(const StatusReport& report) {
  std::array<std::size_t, 4> num_paths{};  // by condition
  std::size_t num_covered = 0;
  for (const KeyView& key : report.keys) {
    for (const PathView& path : key.paths) {
      if (IsCovered(path)) {
        ++num_covered;
        continue;
      }
      const PathCondition condition = path.condition.value_or(PathCondition::kUnproven);
      ++num_paths[static_cast<std::size_t>(condition)];
    }
  }
  const auto count = [&](PathCondition condition) {
    return num_paths[static_cast<std::size_t>(condition)];
  };
  const auto num_critical = static_cast<std::size_t>(
      std::ranges::count(report.findings, Severity::kCritical, &Finding::severity));
  const std::size_t num_warnings = report.findings.size() - num_critical;
  const std::string data = fmt::format(
      "keys={} proven={} covered={} stale={} unproven={} broken={} critical={} warning={} "
      "log_entries={}",
      report.keys.size(), count(PathCondition::kProven), num_covered, count(PathCondition::kStale),
      count(PathCondition::kUnproven), count(PathCondition::kBroken), num_critical, num_warnings,
      report.log_size);
  if (report.findings.empty()) {
    return MakeLine(kNagiosOk,
                    report.keys.size() == 1 ? "1 key complies"
                                            : fmt::format("{} keys comply", report.keys.size()),
                    data);
  }
  const Severity worst = num_critical > 0 ? Severity::kCritical : Severity::kWarning;
  const auto first = std::ranges::find(report.findings, worst, &Finding::severity);
  std::string text = (first->key.empty() ? "" : first->key + ": ") + first->what;
  if (report.findings.size() > 1) {
    text += fmt::format(" (and {} more)", report.findings.size() - 1);
  }
  return MakeLine(num_critical > 0 ? kNagiosCritical : kNagiosWarning, text, data);
}

NagiosLine FormatNagiosError(const Error& error) {
  return MakeLine(ExitStatus(error) == kExitDamaged ? kNagiosCritical : kNagiosUnknown,
                  error.message(), "");
}

}  // namespace keyescrow::agent
