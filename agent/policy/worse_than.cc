#include "agent/policy/worse_than.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "envelope/recoverability.h"

namespace keyescrow::agent::policy {
namespace {

constexpr EvaluateOptions kShape{.shape_only = true, .as_enforced = false};

// Bounds: how many losses a key survives and how many thefts it withstands.
struct Bounds {
  std::size_t survives = 0;
  std::size_t withstands = 0;
};

std::optional<Bounds> BoundsOf(const KeyFacts& key) {
  std::vector<envelope::PathExpression> paths;
  for (const PathFacts& path : key.paths) paths.push_back(path.OpenedBy());
  envelope::ExpressionContext context;
  context.host = key.host;
  const auto analysed = envelope::Recoverability::Of(paths, context);
  if (!analysed) return std::nullopt;
  return Bounds{analysed->survives(), analysed->withstands()};
}

bool SameRule(const Finding& left, const Finding& right) {
  return left.rule == right.rule && left.policy_rule == right.policy_rule;
}

}  // namespace

std::vector<Finding> WorseThan(const Policy& policy, const KeyFacts& before, const KeyFacts& after,
                               const Facts& facts) {
  const Evaluation old = EvaluateKey(policy, before, facts, kShape);
  Evaluation now = EvaluateKey(policy, after, facts, kShape);
  const std::optional<Bounds> old_bounds = BoundsOf(before);
  const std::optional<Bounds> bounds = BoundsOf(after);
  std::vector<Finding> worse;
  for (Finding& finding : now.findings) {
    if (finding.severity != Severity::kCritical) continue;
    const bool known =
        std::any_of(old.findings.begin(), old.findings.end(), [&](const Finding& other) {
          if (!SameRule(finding, other)) return false;
          if (finding.what == other.what) return true;
          if (!old_bounds || !bounds) return false;
          if (finding.rule == "survives_too_little") {
            return bounds->survives >= old_bounds->survives;
          }
          return finding.rule == "withstands_too_little" &&
                 bounds->withstands >= old_bounds->withstands;
        });
    if (!known) worse.push_back(std::move(finding));
  }
  return worse;
}

}  // namespace keyescrow::agent::policy
