// What the policy in force says of other agents: what their envelopes must be like, and how far one
// may be trusted.
#pragma once

#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/policy_in_force.h"
#include "envelope/header.h"

namespace keyescrow::agent {

// CheckSameKey: a name means one key. What another host, or another agent, escrowed under a name
// that is here already would be restored in its place. `existing` is of the same version, or null:
// of whoever made the newest one, an older one may be another's. Errors: kAlreadyExists, kStore*.
Status CheckSameKey(Agent& agent, const envelope::Header& header,
                    const store::EnvelopeRecord* existing);

// CheckImport holds the paths of an envelope that another agent made against the rules for its
// key's name, as if it had been made here now. Returns what is reported and not enforced. Errors:
// kPathForbidden, kPolicyRefused, naming rule and remedy.
Result<std::vector<Finding>> CheckImport(Agent& agent, const envelope::Header& header);

// CheckTrustScope refuses, under a signed policy, an agent that may sign for any host or for any
// key: one that was broken into could then put envelopes in the place of every host's.
// Errors: kPolicyRefused; kUsage for a pattern that no valid name matches.
Result<std::vector<Finding>> CheckTrustScope(Agent& agent, const store::TrustRecord& record);

}  // namespace keyescrow::agent
