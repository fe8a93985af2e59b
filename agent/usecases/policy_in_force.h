// PolicyInForce: which policy holds on this agent, and the facts that it is held against.
#pragma once

#include <string>
#include <vector>

#include "agent/audit/event.h"
#include "agent/policy/evaluate.h"
#include "agent/policy/facts.h"
#include "agent/policy/finding.h"
#include "agent/policy/policy.h"
#include "agent/store/escrow_store.h"

namespace keyescrow::agent {

class Agent;

// kTpmSimulatorSetting is "yes" where init found that the TPM is a simulator.
inline constexpr std::string_view kTpmSimulatorSetting = "tpm_simulator";
// kPolicyPendingSetting tells of a signed policy that this version is too old for:
// "<serial> <name> <min_agent_version>".
inline constexpr std::string_view kPolicyPendingSetting = "policy_pending";

struct PolicyInForce {
  policy::Policy policy;
  std::string text;               // as it was signed
  std::string note;               // its signatures; "" of the built-in one
  std::int64_t set_time = 0;      // 0: the built-in one
  policy::Signers next_signers;   // whose signatures the next one needs; threshold 0: nobody's yet
  std::vector<Finding> findings;  // a newer one waits for a newer agent

  bool IsBuiltin() const { return policy.serial == 0; }
  audit::EventPolicy Event() const { return {policy.name, policy.serial, policy.sha256}; }
};

// LoadPolicy reads the newest policy of the store that this version can read, or the built-in one,
// and checks hash and signatures again. Errors: kStoreDamaged where they do not hold; kStore*.
Result<PolicyInForce> LoadPolicy(store::EscrowStore& store, const std::string& host);

// GatherFacts returns what is known of this agent's devices without asking one.
Result<policy::Facts> GatherFacts(Agent& agent);

// AddProofs adds what the store knows of the paths of one envelope.
void AddProofs(policy::KeyFacts& key, std::uint32_t revision,
               const std::vector<store::PathState>& states);

// LoadBlocklist returns the lines of a password profile's list, none where it has none.
Result<std::vector<std::string>> LoadBlocklist(store::EscrowStore& store,
                                               const PolicyInForce& in_force,
                                               const policy::PasswordRule& rule);

}  // namespace keyescrow::agent
