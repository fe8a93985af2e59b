// RuleEvaluator: one rule held against one key, one method a word of the rule.
#pragma once

#include <string>
#include <vector>

#include "agent/policy/evaluate.h"

namespace keyescrow::agent::policy {

class RuleEvaluator {
 public:
  // `paths` are the key's paths under the policy's names for tokens (NameByPins), `opened_by` the
  // same with a recovery key's own factors in its place. All outlive it.
  struct Subject {
    const Policy& policy;
    const KeyFacts& key;
    const Facts& facts;
    const std::vector<envelope::PathExpression>& paths;
    const std::vector<envelope::PathExpression>& opened_by;
    bool as_enforced;
  };
  RuleEvaluator(const Rule& rule, const Subject& subject, std::vector<Finding>& findings);

  // EvaluateShape: require, forbid, portable, survive, withstand, kdf, fips.
  void EvaluateShape();
  // EvaluateTime: drill_every, drill_paths, rotate_every, rotate_after_restore, broken paths.
  void EvaluateTime();
  // EvaluateRelease: reason, ticket.
  void EvaluateRelease(const Release& release);

 private:
  void Required();
  void Forbidden();
  void Portable();
  void Losses();
  void Kdf();
  void Drills();
  void Rotation();

  std::string RuleName() const;
  // Add grades by the rule: critical where it is enforced.
  void Add(std::string id, std::string what, std::string remedy);
  void Warn(std::string id, std::string what, std::string remedy);

  const Rule& rule_;
  const Subject& subject_;
  std::vector<Finding>& findings_;
  bool enforced_ = false;
  std::string suffix_;  // "; the rule is reported only", "; its grace ends …"
};

// NameByPins takes the path's expression, or its OpenedBy(), and gives tokens and recovery keys the
// names that the policy has for their keys; one that bears a pinned name and is another key gets a
// name that no policy can write. The TPM of the key's own host is `tpm`.
envelope::PathExpression NameByPins(const Policy& policy, const KeyFacts& key,
                                    const PathFacts& path,
                                    const envelope::PathExpression& expression);

// NameByTokens is the other way: it gives the tokens that the policy pins the names under which
// this agent has their keys registered. One that is not registered keeps the policy's name.
envelope::PathExpression NameByTokens(const Policy& policy, const Facts& facts,
                                      envelope::PathExpression expression);

}  // namespace keyescrow::agent::policy
