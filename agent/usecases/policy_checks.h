// What the policy in force refuses, asked before something is done. In report mode nothing is
// refused: what would have been comes back as findings.
#pragma once

#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/kdf_choice.h"
#include "agent/usecases/policy_in_force.h"
#include "envelope/header.h"
#include "envelope/path_expression.h"

namespace keyescrow::agent {

// RefusedBy is the error for the finding: it names the policy, the rule and the remedy.
// kPathForbidden where a path is forbidden or a portable one is missing, else kPolicyRefused.
Error RefusedBy(const PolicyInForce& in_force, const Finding& finding);

// FindingTexts returns each finding's text.
std::vector<std::string> FindingTexts(const std::vector<Finding>& findings);

// PlannedPaths returns the paths that the policy requires of the key, as options: their ids as the
// policy writes them, tokens by the names that they have here; none where it requires none.
Result<std::vector<envelope::PathOption>> PlannedPaths(Agent& agent, const std::string& key_name);

// PlannedFacts describes a path that is to be made, as FactsOf describes one that was.
// Errors: kTokenNotRegistered.
Result<policy::PathFacts> PlannedFacts(Agent& agent, const envelope::PathOption& option,
                                       const PathKdfs& kdfs);

// FirstCreated: when the first version of a key that exists was made, else now.
std::int64_t FirstCreated(Agent& agent, const std::string& key_name);

// CheckPlan holds the paths of an envelope that is about to be made against the policy.
// Errors: RefusedBy's; kTokenNotRegistered.
Result<std::vector<Finding>> CheckPlan(Agent& agent, const std::string& key_name,
                                       const std::vector<envelope::PathOption>& paths,
                                       const PathKdfs& kdfs);

// CheckPlan, where the facts were gathered and the paths described before, as for many keys of one
// batch.
Result<std::vector<Finding>> CheckPlan(Agent& agent, const policy::Facts& facts,
                                       const std::string& key_name,
                                       std::vector<policy::PathFacts> paths);

// CheckRelease asks for what a release must come with. Errors: RefusedBy's.
Result<std::vector<Finding>> CheckRelease(Agent& agent, const envelope::Header& header,
                                          const std::string& reason, const std::string& ticket);

// CheckDestruction refuses to destroy a key that must be escrowed: one that agent.toml declares, or
// for which a rule that is enforced requires a path; and asks for what a release must come with.
// Errors: kPolicyRefused.
Result<std::vector<Finding>> CheckDestruction(Agent& agent, const std::string& key_name,
                                              const std::string& reason, const std::string& ticket);

// CheckExport refuses to hand out an envelope whose paths do not comply. Errors: RefusedBy's.
Status CheckExport(Agent& agent, const envelope::Header& header);

// CheckNewTokenKey refuses another key under a name that the policy pins. Errors: kPolicyRefused.
Result<std::vector<Finding>> CheckNewTokenKey(Agent& agent, const std::string& token_name,
                                              ByteView spki);

// CheckTokenRemoval refuses what would leave a key without a path that a signed policy asks for.
// Errors: kPolicyRefused, naming key and rule.
Status CheckTokenRemoval(Agent& agent, const store::TokenRecord& token);

// CheckTrustRemoval refuses to trust an agent no longer while a key that a signed policy's rules
// match is escrowed under its signature alone: nobody could restore it here.
Status CheckTrustRemoval(Agent& agent, const std::string& thumbprint);

}  // namespace keyescrow::agent
