#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "agent/policy/policy.h"
#include "envelope/header.h"
#include "envelope/recoverability.h"

namespace keyescrow::agent::policy {
namespace {

using envelope::PathExpression;

// CostsFit: the format holds what both ask for. A minimum below its range asks for nothing.
bool CostsFit(const KdfMinima& left, const KdfMinima& right) {
  const envelope::Argon2idParameters least;
  const auto most = [](std::optional<std::uint32_t> one, std::optional<std::uint32_t> two) {
    return std::max(one.value_or(0), two.value_or(0));
  };
  envelope::Argon2idParameters argon2id;
  argon2id.memory_kib =
      std::max(least.memory_kib, most(left.argon2id_memory_kib, right.argon2id_memory_kib));
  argon2id.passes = std::max(least.passes, most(left.argon2id_passes, right.argon2id_passes));
  envelope::Pbkdf2Parameters pbkdf2;
  pbkdf2.iterations =
      std::max(pbkdf2.iterations, most(left.pbkdf2_iterations, right.pbkdf2_iterations));
  return envelope::CheckKdfParameters(argon2id).has_value() &&
         envelope::CheckKdfParameters(pbkdf2).has_value();
}

Status CheckRule(const Rule& rule, const std::string& file) {
  const auto wrong = [&](const std::string& why, std::string hint) {
    return Error(
        ErrorCode::kPolicyInvalid, Action::kFixInput,
        fmt::format("{} line {} column 1: the rule \"{}\" {}", file, rule.line, rule.name, why),
        std::move(hint));
  };
  if (std::count(rule.match.begin(), rule.match.end(), '*') >
      static_cast<std::ptrdiff_t>(kMaxStars)) {
    return wrong(fmt::format("has more than {} stars in its match", kMaxStars),
                 "write several rules, or a wider pattern");
  }
  if (CostsFit(rule.kdf, {})) return Ok();
  return wrong("asks for a kdf cost that no envelope can hold",
               "argon2id takes at most 4194304 KiB and 32 passes, together at most 33554432 KiB "
               "times passes; pbkdf2 at most 20000000 iterations");
}

// NumFactors counts the factors of paths, at least: `tpm` may be one of the TPMs that are named,
// and what opens a recovery key is not known here.
std::size_t NumFactors(const std::vector<PathExpression>& paths) {
  std::set<std::string> names;
  for (const PathExpression& path : paths) {
    for (const envelope::FactorTerm& term : path.factors) {
      if (term.kind == envelope::FactorKind::kRecoveryKey) continue;
      if (term.kind == envelope::FactorKind::kShares) {
        for (const std::string& member : term.members) names.insert("token:" + member);
      } else {
        names.insert(FormatPathExpression(PathExpression{{term}}));
      }
    }
  }
  const bool named = std::any_of(names.begin(), names.end(),
                                 [](const std::string& name) { return name.starts_with("tpm:"); });
  return names.size() - (named && names.contains("tpm") ? 1 : 0);
}

// WhyNoLosses says why no key can survive and withstand what both ask for, as a sentence's end, or
// "". `all`: the paths that they require.
std::string WhyNoLosses(const Rule& left, const Rule& right,
                        const std::vector<PathExpression>& all) {
  const std::size_t survive = std::max(left.survive, right.survive);
  const std::size_t withstand = std::max(left.withstand, right.withstand);
  if (survive == 0 && withstand == 0) return "";
  // All factors but any `survive` open the key, and that must be more than `withstand`.
  if (survive + withstand + 1 > envelope::kMaxAnalysedFactors) {
    return fmt::format(
        "to survive {} loss(es) and withstand {} theft(s) takes {} factors, and a key's are "
        "analysed up to {}",
        survive, withstand, survive + withstand + 1, envelope::kMaxAnalysedFactors);
  }
  if (const std::size_t factors = NumFactors(all); factors > envelope::kMaxAnalysedFactors) {
    return fmt::format(
        "the required paths have {} factors, and what a key survives is analysed up to {}", factors,
        envelope::kMaxAnalysedFactors);
  }
  const bool all_known = std::none_of(all.begin(), all.end(), [](const PathExpression& path) {
    return path.Has(envelope::FactorKind::kRecoveryKey);
  });
  if (all.size() < envelope::kMaxPaths || !all_known) return "";
  const auto analysed = envelope::Recoverability::Of(all);
  if (!analysed || analysed->Survives(survive)) return "";
  return fmt::format(
      "the required paths leave no room for another path, and survive {} loss(es) alone",
      analysed->survives());
}

// WhyNot says why no key can meet both, as a sentence's end, or "". `left` requires, `right`
// limits.
std::string WhyNot(const Policy& policy, const Rule& left, const Rule& right) {
  for (const PathExpression& path : left.require) {
    const std::string text = FormatPathExpression(path);
    if (std::find(right.forbid.begin(), right.forbid.end(), path) != right.forbid.end()) {
      return fmt::format("the first requires the path '{}' and the second forbids it", text);
    }
    // What opens a recovery key is not known here.
    if (right.withstand > 0 && !path.Has(envelope::FactorKind::kRecoveryKey)) {
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
  if (!CostsFit(left.kdf, right.kdf)) {
    return "together they ask for kdf costs that no envelope can hold";
  }
  std::vector<PathExpression> all = left.require;
  for (const PathExpression& path : right.require) {
    if (std::find(all.begin(), all.end(), path) == all.end()) all.push_back(path);
  }
  if (all.size() > envelope::kMaxPaths) {
    return fmt::format("together they require {} paths, and a key has at most {}", all.size(),
                       envelope::kMaxPaths);
  }
  std::set<std::string_view> drilled(left.drill_paths.begin(), left.drill_paths.end());
  drilled.insert(right.drill_paths.begin(), right.drill_paths.end());
  if (drilled.size() > envelope::kMaxPaths) {
    return fmt::format("together they have {} paths drilled, and a key has at most {}",
                       drilled.size(), envelope::kMaxPaths);
  }
  return WhyNoLosses(left, right, all);
}

}  // namespace

Status CheckContradictions(const Policy& policy, const std::string& file) {
  for (const Rule& rule : policy.rules) RETURN_IF_ERROR(CheckRule(rule, file));
  for (const Rule& left : policy.rules) {
    const bool costs = left.kdf.argon2id_memory_kib || left.kdf.argon2id_passes;
    const bool bounds = left.survive > 0 || left.withstand > 0 || !left.drill_paths.empty();
    if (left.require.empty() && !costs && !bounds) continue;
    for (const Rule& right : policy.rules) {
      // Bounds alone are looked at first, for comparing patterns costs more; what the other one
      // requires is looked at when it is on the left.
      if (left.require.empty() && !costs &&
          (!right.require.empty() || WhyNot(policy, left, right).empty())) {
        continue;
      }
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
