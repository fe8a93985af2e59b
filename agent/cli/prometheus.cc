#include "agent/cli/prometheus.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <string_view>

#include "agent/usecases/path_cover.h"

namespace keyescrow::agent {
namespace {

using audit::EventType;

std::string LabelValue(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    if (c == '\\' || c == '"') escaped += '\\';
    escaped += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return escaped;
}

class Exposition {
 public:
  void Begin(std::string_view name, std::string_view type, std::string_view help) {
    name_ = name;
    text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }
  void Value(std::int64_t value) { text_ += fmt::format("{} {}\n", name_, value); }
  void Value(std::string_view labels, std::uint64_t value) {
    text_ += fmt::format("{}{{{}}} {}\n", name_, labels, value);
  }
  std::string Take() { return std::move(text_); }

 private:
  std::string_view name_;
  std::string text_;
};

std::string Label(std::string_view name, std::string_view value) {
  return fmt::format("{}=\"{}\"", name, LabelValue(value));
}

// KeyStates counts each key once, by the worst that was found of it.
std::map<std::string_view, std::uint64_t> KeyStates(const StatusReport& report) {
  std::map<std::string_view, std::uint64_t> states = {
      {"complies", 0}, {"critical", 0}, {"not_escrowed", 0}, {"warning", 0}};
  std::map<std::string_view, Severity> worst;
  for (const Finding& finding : report.findings) {
    if (finding.rule == "declared_not_escrowed") ++states["not_escrowed"];
    const auto [at, added] = worst.emplace(finding.key, finding.severity);
    if (!added) at->second = std::max(at->second, finding.severity);
  }
  for (const KeyView& key : report.keys) {
    const auto found = worst.find(key.name);
    ++states[found == worst.end()                   ? "complies"
             : found->second == Severity::kCritical ? "critical"
                                                    : "warning"];
  }
  return states;
}

void AddPaths(const StatusReport& report, const MonitorFacts& facts, Exposition& out) {
  std::array<std::uint64_t, 4> conditions{};
  std::uint64_t num_covered = 0;
  std::int64_t oldest = 0;
  for (const KeyView& key : report.keys) {
    for (const PathView& path : key.paths) {
      if (IsCovered(path)) {
        ++num_covered;
        continue;
      }
      ++conditions[static_cast<std::size_t>(path.condition.value_or(PathCondition::kUnproven))];
      if (path.proven) oldest = std::max(oldest, facts.now - *path.proven);
    }
  }
  out.Begin("keyescrow_paths", "gauge",
            "Recovery paths of the newest versions, by what is known of them.");
  for (const PathCondition condition : {PathCondition::kProven, PathCondition::kStale,
                                        PathCondition::kUnproven, PathCondition::kBroken}) {
    out.Value(Label("state", PathConditionName(condition)),
              conditions[static_cast<std::size_t>(condition)]);
  }
  out.Value(Label("state", kCoveredName), num_covered);
  out.Begin(
      "keyescrow_drill_age_seconds_max", "gauge",
      "Age of the oldest newest proof of a path; paths that were never proven are not in it.");
  out.Value(oldest);
}

void AddCounters(const EventCounts& counts, Exposition& out) {
  struct Row {
    std::string_view labels;
    EventType type;
  };
  out.Begin("keyescrow_drills_total", "counter", "Proofs of paths in the log, by outcome.");
  for (const Row& row : {Row{"outcome=\"failed\"", EventType::kDrillFailed},
                         Row{"outcome=\"passed\"", EventType::kDrillPassed},
                         Row{"outcome=\"skipped\"", EventType::kDrillSkipped}}) {
    out.Value(row.labels, counts.Of(row.type));
  }
  out.Begin("keyescrow_releases_total", "counter",
            "Releases of keys in the log, by purpose and outcome; requested counts the intents.");
  for (const Row& row :
       {Row{"purpose=\"restore\",outcome=\"completed\"", EventType::kRestoreCompleted},
        Row{"purpose=\"restore\",outcome=\"denied\"", EventType::kRestoreDenied},
        Row{"purpose=\"restore\",outcome=\"failed\"", EventType::kRestoreFailed},
        Row{"purpose=\"restore\",outcome=\"interrupted\"", EventType::kRestoreReleased},
        Row{"purpose=\"restore\",outcome=\"requested\"", EventType::kRestoreRequested}}) {
    out.Value(row.labels, counts.Of(row.type));
  }
}

}  // namespace

std::string FormatPrometheus(const StatusReport& report, const MonitorFacts& facts) {
  Exposition out;
  out.Begin("keyescrow_build_info", "gauge", "The version of keyescrow; always 1.");
  out.Value(Label("version", KEYESCROW_VERSION), 1);
  out.Begin("keyescrow_keys", "gauge",
            "Keys, each once, by the worst finding; not_escrowed are declared alone.");
  for (const auto& [state, number] : KeyStates(report)) out.Value(Label("state", state), number);
  out.Begin("keyescrow_policy_violations", "gauge",
            "Findings of all keys and of the agent, by rule.");
  std::map<std::string_view, std::uint64_t> by_rule;
  for (const Finding& finding : report.findings) ++by_rule[finding.rule];
  for (const auto& [rule, number] : by_rule) out.Value(Label("reason", rule), number);
  AddPaths(report, facts, out);
  AddCounters(facts.counts, out);
  out.Begin("keyescrow_log_size_entries", "gauge", "Entries in the audit log; it never shrinks.");
  out.Value(static_cast<std::int64_t>(report.log_size));
  if (facts.checkpoint_time) {
    out.Begin("keyescrow_checkpoint_timestamp_seconds", "gauge",
              "When the newest checkpoint was signed.");
    out.Value(*facts.checkpoint_time);
  }
  if (const auto passed = facts.counts.LastVerify()) {
    out.Begin("keyescrow_verify_last_result", "gauge",
              "1 where the newest verification in the log passed, else 0.");
    out.Value(*passed ? 1 : 0);
  }
  out.Begin("keyescrow_status_timestamp_seconds", "gauge", "When these metrics were computed.");
  out.Value(facts.now);
  return out.Take();
}

}  // namespace keyescrow::agent
