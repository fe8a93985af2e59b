// Evaluation: policy × facts × now → findings. Pure.
#pragma once

#include <string>
#include <vector>

#include "agent/policy/facts.h"
#include "agent/policy/finding.h"
#include "agent/policy/policy.h"

namespace keyescrow::agent::policy {

// A finding is critical where its rule is enforced and its grace is over, else a warning. So what
// is refused is exactly what has a critical finding.
struct EvaluateOptions {
  // Only what the paths and factors decide, as for an envelope that is being made: no proofs, ages
  // or releases.
  bool shape_only = false;
  // As if every rule were enforced and no grace were left: for the difference between policies.
  bool as_enforced = false;
};

struct Evaluation {
  std::vector<Finding> findings;
  std::vector<std::string> rules;     // that match and hold
  std::vector<std::string> exempted;  // that match, and an exception sets aside

  bool Complies() const;
  // FirstCritical returns null where it complies.
  const Finding* FirstCritical() const;
};

Evaluation EvaluateKey(const Policy& policy, const KeyFacts& key, const Facts& facts,
                       const EvaluateOptions& options = {});

// EvaluatePolicy finds what is wrong with the policy itself: that it has expired.
std::vector<Finding> EvaluatePolicy(const Policy& policy, const Facts& facts);

// EvaluateRelease finds what a release of the key lacks: a reason, a ticket.
struct Release {
  std::string key_name;
  std::string key_host;
  std::string reason;
  std::string ticket;
};
std::vector<Finding> EvaluateRelease(const Policy& policy, const Release& release,
                                     const Facts& facts);

// MatchingRules: those that match the key and that no exception sets aside.
std::vector<const Rule*> MatchingRules(const Policy& policy, std::string_view key_name,
                                       std::string_view key_host, std::int64_t now);

// DrillPeriod returns the shortest drill_every that a path of the key is under; none: no rule asks.
std::optional<std::int64_t> DrillPeriod(const std::vector<const Rule*>& rules,
                                        std::string_view path_id);

// RequiredPaths: what the rules require of a key, each once, in the policy's order; for a backup
// that names no path.
std::vector<envelope::PathExpression> RequiredPaths(const std::vector<const Rule*>& rules);

// PasswordRulesOf: the profiles that a new password of the key must meet, at least one.
std::vector<PasswordRule> PasswordRulesOf(const Policy& policy,
                                          const std::vector<const Rule*>& rules);

}  // namespace keyescrow::agent::policy
