#include "agent/usecases/foreign_checks.h"

#include <algorithm>

#include "agent/usecases/policy_checks.h"

namespace keyescrow::agent {
namespace {

constexpr policy::EvaluateOptions kShape{.shape_only = true, .as_enforced = false};

Result<std::vector<Finding>> Keep(const PolicyInForce& in_force, std::vector<Finding> findings) {
  for (const Finding& finding : findings) {
    if (finding.severity == Severity::kCritical) return RefusedBy(in_force, finding);
  }
  return findings;
}

// MatchesAll: no pattern, or one of asterisks alone.
bool MatchesAll(const std::vector<std::string>& patterns) {
  return patterns.empty() ||
         std::any_of(patterns.begin(), patterns.end(), [](const std::string& pattern) {
           return pattern.find_first_not_of('*') == std::string::npos;
         });
}

}  // namespace

Result<std::vector<Finding>> CheckImport(Agent& agent, const envelope::Header& header) {
  ASSIGN_OR_RETURN(const PolicyInForce* const in_force, agent.Policy());
  ASSIGN_OR_RETURN(const policy::Facts facts, GatherFacts(agent));
  policy::KeyFacts key = policy::FactsOf(header);
  const auto first = agent.store().FindEnvelope(header.key_name, 1);
  key.first_created = first ? first->created : agent.Now();
  std::vector<Finding> findings =
      policy::EvaluateKey(in_force->policy, key, facts, kShape).findings;
  for (Finding& finding : findings) {
    finding.remedy =
        "on the host that made it, back the key up under paths that comply, and "
        "import that; this file still restores by itself";
  }
  return Keep(*in_force, std::move(findings));
}

Result<std::vector<Finding>> CheckTrustScope(Agent& agent, const store::TrustRecord& record) {
  ASSIGN_OR_RETURN(const PolicyInForce* const in_force, agent.Policy());
  std::vector<Finding> findings;
  if (in_force->IsBuiltin()) return findings;
  const Severity severity =
      in_force->policy.mode == policy::Mode::kEnforce ? Severity::kCritical : Severity::kWarning;
  const auto add = [&](const char* what, const char* remedy) {
    findings.push_back({"trust_unlimited", "", agent.identity().host, severity, what, remedy});
  };
  if (MatchesAll(record.hosts)) {
    add("the agent could sign for every host, whatever rules hold for its keys",
        "name the hosts that it is the agent of: --host HOST");
  }
  if (MatchesAll(record.keys)) {
    add("the agent could sign for every key, whatever rules hold for it",
        "name the keys that it escrows: --key PATTERN, as in the rules' match");
  }
  return Keep(*in_force, std::move(findings));
}

}  // namespace keyescrow::agent
