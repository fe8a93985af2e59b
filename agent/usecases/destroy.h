// destroy: no version of a key can be restored from here any more.
//
// What opens a key, its wrapped keys with all that was sealed under them, leaves the store; names,
// hashes and entries stay, so that the log, and what was once escrowed, can still be verified. All
// of it is one transaction; then the store's files are written anew, so that no page that was freed
// keeps what it held. A call that is killed before the second part is finished by the next one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "agent/policy/finding.h"
#include "agent/usecases/agent.h"
#include "envelope/base/error.h"

namespace keyescrow::agent {

struct DestroyRequest {
  std::string key_name;
  std::string reason;
  std::string ticket;
};

// DestroyPlan: what goes, and what this agent cannot reach.
struct DestroyPlan {
  std::vector<std::uint32_t> versions;
  std::size_t num_envelopes = 0;  // every revision
  std::vector<std::string> left;
  std::vector<std::string> findings;  // of a policy that reports
  bool only_scrub = false;            // it was destroyed; its traces are still to be removed
};

// PlanDestroy asks the policy and changes nothing. Errors: kKeyNotFound; kNotFound where it
// was destroyed; kStoreBusy while a command of its rotation runs; kPolicyRefused where the key is
// one that must be escrowed, or the release of it asks for a reason or a ticket that is missing.
Result<DestroyPlan> PlanDestroy(Agent& agent, const DestroyRequest& request);

struct DestroyResult {
  std::string key_name;
  std::vector<std::uint32_t> versions;
  std::size_t num_envelopes = 0;
  bool scrubbed = false;  // no freed page of the store's files holds what was destroyed
  std::vector<std::string> left;
  std::optional<std::uint64_t> log_seq;  // the first entry; none where only traces were removed
  bool p256_signed = true;
  std::vector<std::string> findings;
};

// Destroy does what PlanDestroy says. Errors: its; kStore*.
Result<DestroyResult> Destroy(Agent& agent, const DestroyRequest& request);

// DestroyedKey: a key of which no version is left.
struct DestroyedKey {
  std::string name;
  std::uint32_t num_versions = 0;
  std::int64_t time = 0;
  std::string by;      // who
  std::string reason;  // or ""
};
Result<std::vector<DestroyedKey>> DestroyedKeys(Agent& agent, const std::string& key_name);

// TellDestroyed adds to a kNotFound when the key was destroyed, by whom and why; others it leaves
// alone.
Error TellDestroyed(Agent& agent, const std::string& key_name, Error error);

// ScrubFindings: traces of a destroyed key that are still to be removed.
Result<std::vector<Finding>> ScrubFindings(Agent& agent);

}  // namespace keyescrow::agent
