// gate: whether the service that uses a key may start. Decides from the store, the log and the key
// at its source; asks for no password and touches no TPM and no token.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "agent/usecases/inventory.h"

namespace keyescrow::agent {

// How long a decision waits for another process that holds the store: a service that starts must
// not hang here.
inline constexpr std::chrono::milliseconds kGateBusyTimeout{2000};

// kNotEnforced: it does not comply, and the policy in force is in report mode.
enum class GateDecision : std::uint8_t { kComplies, kRefused, kOverridden, kNotEnforced };
std::string_view GateDecisionName(GateDecision decision);  // "complies" … "not_enforced"

struct GateRequest {
  std::string key_name;
  std::string override_reason;  // "": no override
  bool run_commands = false;    // exec: sources are run
};

struct GateResult {
  GateDecision decision = GateDecision::kRefused;
  std::string key_name;
  std::uint32_t key_version = 0;         // the newest escrowed one; 0: none
  std::vector<Finding> refusals;         // why it is, or would be, refused
  std::vector<Finding> warnings;         // what else was found of the key
  std::optional<std::uint64_t> log_seq;  // of the override's entry
};

// Gate lets a key pass where each of these holds: the bytes at its source are its newest escrowed
// version; `status` has no critical finding for it; the entry that escrowed it is proven into the
// newest signed checkpoint. Under a policy in report mode findings refuse nothing. An override
// turns a refusal by findings into a pass; its log entry (gate.overridden) is durable when Gate
// returns. Errors, none of which can be overridden: kKeyNotFound; kStore* and kStatePermissions;
// kLogDamaged and kStoreDamaged; an envelope's.
Result<GateResult> Gate(Agent& agent, const GateRequest& request);

// AddOverrideFindings: an override is a warning of `status` until the key complies again, and for
// at least 7 days.
Status AddOverrideFindings(Agent& agent, const std::string& key_name,
                           std::vector<Finding>& findings);

}  // namespace keyescrow::agent
