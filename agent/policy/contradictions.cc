#include <fmt/format.h>

#include <algorithm>

#include "agent/policy/policy.h"
#include "envelope/header.h"
#include "envelope/recoverability.h"

namespace keyescrow::agent::policy {
namespace {

using envelope::PathExpression;

// WhyNot says why no key can meet both, as a sentence's end, or "". `left` requires, `right`
// limits.
std::string WhyNot(const Policy& policy, const Rule& left, const Rule& right) {
  for (const PathExpression& path : left.require) {
    const std::string text = FormatPathExpression(path);
    if (std::find(right.forbid.begin(), right.forbid.end(), path) != right.forbid.end()) {
      return fmt::format("the first requires the path '{}' and the second forbids it", text);
    }
    if (right.withstand > 0) {
      const auto analysed = envelope::Recoverability::Of(std::span(&path, 1));
      if (analysed && !analysed->Withstands(right.withstand)) {
        return fmt::format(
            "the first requires the path '{}', which {} theft(s) open, and the second asks that no "
            "{} theft(s) open the key",
            text, analysed->withstands() + 1, right.withstand);
      }
    }
    const PasswordRule* named = policy.FindPassword(right.password_profile);
    const bool ssrs = right.password_profile == "ssrs" ||
                      (named != nullptr && named->profile == envelope::PasswordProfile::kSsrs);
    if (ssrs && path.Has(envelope::FactorKind::kPassword) && !path.HasHardware()) {
      return fmt::format(
          "the first requires the path '{}', and the password profile of the second asks for "
          "hardware beside each password",
          text);
    }
  }
  std::vector<PathExpression> all = left.require;
  for (const PathExpression& path : right.require) {
    if (std::find(all.begin(), all.end(), path) == all.end()) all.push_back(path);
  }
  if (all.size() > envelope::kMaxPaths) {
    return fmt::format("together they require {} paths, and a key has at most {}", all.size(),
                       envelope::kMaxPaths);
  }
  return "";
}

}  // namespace

Status CheckContradictions(const Policy& policy, const std::string& file) {
  for (const Rule& left : policy.rules) {
    if (left.require.empty()) continue;
    for (const Rule& right : policy.rules) {
      if (!PatternsMeet(left.match, right.match)) continue;
      const std::string why = WhyNot(policy, left, right);
      if (why.empty()) continue;
      const std::string rules =
          &left == &right
              ? fmt::format("the rule \"{}\" (line {}) contradicts itself", left.name, left.line)
              : fmt::format("the rules \"{}\" (line {}) and \"{}\" (line {}) contradict each other",
                            left.name, left.line, right.name, right.line);
      return Error(ErrorCode::kPolicyContradiction, Action::kFixInput,
                   fmt::format("{}: {}: {}", file, rules, why),
                   "change one of them, or narrow its match");
    }
  }
  return Ok();
}

}  // namespace keyescrow::agent::policy
