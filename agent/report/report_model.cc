#include "agent/report/report_model.h"

#include <algorithm>

namespace keyescrow::agent::report {
namespace {

constexpr std::int64_t kDaySeconds = 86400;

std::uint64_t CountPaths(const ReportModel& model, std::string_view condition) {
  std::uint64_t count = 0;
  for (const ReportKey& key : model.keys) {
    for (const ReportPath& path : key.paths) count += path.condition == condition ? 1U : 0U;
  }
  return count;
}

template <typename Range, typename Predicate>
std::uint64_t CountIf(const Range& range, Predicate predicate) {
  return static_cast<std::uint64_t>(std::count_if(range.begin(), range.end(), predicate));
}

}  // namespace

Coverage CoverageOf(const ReportKey& key) {
  if (!key.escrowed) return Coverage::kMissing;
  const auto any = [&](std::string_view condition) {
    return std::any_of(key.paths.begin(), key.paths.end(), [&](const ReportPath& path) {
      return path.portable && path.condition == condition;
    });
  };
  if (any("proven")) return Coverage::kProven;
  return any("covered") ? Coverage::kCovered : Coverage::kUnproven;
}

std::vector<Figure> FiguresOf(const ReportModel& model) {
  const auto keys = [&](auto predicate) { return CountIf(model.keys, predicate); };
  const auto releases = [&](std::string_view outcome) {
    return CountIf(model.releases, [&](const Release& r) { return r.outcome == outcome; });
  };
  std::uint64_t num_versions = 0;
  for (const ReportKey& key : model.keys) num_versions += key.num_versions;
  const std::uint64_t num_critical =
      CountIf(model.findings, [](const ReportFinding& finding) { return finding.critical; });
  const std::uint64_t num_passed =
      CountIf(model.verifications, [](const Verification& v) { return v.passed; });
  const auto covered = [&](Coverage coverage) {
    return keys([&](const ReportKey& key) { return CoverageOf(key) == coverage; });
  };
  return {
      {"keys", model.keys.size()},
      {"keys_declared", keys([](const ReportKey& key) { return key.declared; })},
      {"keys_escrowed", keys([](const ReportKey& key) { return key.escrowed; })},
      {"keys_declared_escrowed",
       keys([](const ReportKey& key) { return key.declared && key.escrowed; })},
      {"keys_not_declared", keys([](const ReportKey& key) { return !key.declared; })},
      {"keys_proven", covered(Coverage::kProven)},
      {"keys_covered", covered(Coverage::kCovered)},
      {"keys_not_proven", covered(Coverage::kUnproven)},
      {"keys_not_escrowed", covered(Coverage::kMissing)},
      {"key_versions", num_versions},
      {"paths_proven", CountPaths(model, "proven")},
      {"paths_covered", CountPaths(model, "covered")},
      {"paths_stale", CountPaths(model, "stale")},
      {"paths_unproven", CountPaths(model, "unproven")},
      {"paths_broken", CountPaths(model, "broken")},
      {"findings_critical", num_critical},
      {"findings_warning", model.findings.size() - num_critical},
      {"releases", model.releases.size()},
      {"releases_completed", releases("completed")},
      {"releases_failed", releases("failed")},
      {"releases_denied", releases("denied")},
      {"releases_interrupted", releases("interrupted")},
      {"releases_pending", releases("pending")},
      {"verifications_passed", num_passed},
      {"verifications_failed", model.verifications.size() - num_passed},
      {"drills_passed", model.num_drills_passed},
      {"drills_failed", model.num_drills_failed},
      {"foreign_escrows", model.foreign.size()},
      {"log_entries", model.checkpoint.size},
  };
}

std::uint64_t FigureOf(const std::vector<Figure>& figures, std::string_view name) {
  for (const Figure& figure : figures) {
    if (figure.name == name) return figure.value;
  }
  return 0;
}

bool Complies(const ReportModel& model) {
  return std::none_of(model.findings.begin(), model.findings.end(),
                      [](const ReportFinding& finding) { return finding.critical; });
}

std::vector<AgeBucket> DrillAges(const ReportModel& model) {
  std::vector<AgeBucket> buckets = {
      {"up to 7 days"},   {"8 to 30 days"},  {"31 to 60 days"}, {"61 to 90 days"},
      {"91 to 180 days"}, {"over 180 days"}, {"never proven"},
  };
  constexpr std::int64_t kUpToDays[] = {7, 30, 60, 90, 180};
  for (std::size_t i = 0; i < std::size(kUpToDays); ++i) {
    buckets[i].fresh = kUpToDays[i] * kDaySeconds <=
                       model.drill_every_shortest_s.value_or(kUpToDays[i] * kDaySeconds);
  }
  buckets[std::size(kUpToDays)].fresh = !model.drill_every_shortest_s;
  for (const ReportKey& key : model.keys) {
    for (const ReportPath& path : key.paths) {
      if (path.condition == "covered") continue;  // its recovery key was opened, this was not
      std::size_t index = buckets.size() - 1;
      if (path.proven) {
        const std::int64_t age = std::max<std::int64_t>(model.now - *path.proven, 0);
        index = 0;
        while (index < std::size(kUpToDays) && age > kUpToDays[index] * kDaySeconds) ++index;
      }
      ++buckets[index].num_paths;
    }
  }
  return buckets;
}

}  // namespace keyescrow::agent::report
