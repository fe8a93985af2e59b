// policy check, set: a policy's file on its way into the store.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/policy_in_force.h"

namespace keyescrow::agent {

// PolicyCandidate: a policy's file, its signatures (FILE.sig, "" where there is none) and the files
// that it names beside it.
struct PolicyCandidate {
  std::string file;
  std::string text;
  std::string note;
  policy::Policy policy;
  std::vector<store::PolicyFile> files;
};

std::string SignatureFile(const std::string& policy_file);

// ReadPolicyText reads a policy's file or its signatures as they are. Errors: kPolicyFile.
Result<std::string> ReadPolicyText(const std::string& file, std::size_t max_bytes);

// ReadCandidate reads all of it. Errors: kPolicyFile, kPolicyInvalid, kPolicyContradiction,
// kPolicyNewerAgent.
Result<PolicyCandidate> ReadCandidate(const std::string& file);

// PolicyEffect: what setting a policy would change for one escrowed key, whatever the modes and
// graces.
struct PolicyEffect {
  std::string key_name;
  bool complies_now = false;
  bool would_comply = false;
  std::vector<Finding> findings;  // critical ones under the candidate
};

struct PolicyCheck {
  PolicyCandidate candidate;
  // Who signed this very file, by the keys that count here; and what stands on other lines of its
  // signatures, which nothing here verifies. Without a state the keys are --policy-key's and those
  // that the file itself lists.
  std::vector<std::string> signers;
  std::vector<std::string> unverified_signers;
  std::optional<Error> refusal;       // why `policy set` would refuse it; none: it would not
  std::string in_force;               // name of the policy that holds; "" without a state
  std::vector<PolicyEffect> effects;  // of every escrowed key, by name

  std::size_t NumBecoming(bool compliant) const;
};

// CheckPolicy says all that `policy set` would do, and does nothing. `agent` is null without a
// state. `policy_keys` as for SetPolicy. Errors: ReadCandidate's; kStore*.
Result<PolicyCheck> CheckPolicy(Agent* agent, const std::string& file,
                                const std::vector<std::string>& policy_keys);

// ParsePolicyKeys reads verifier keys; no key twice. Errors: kUsage.
Result<policy::Signers> ParsePolicyKeys(const std::vector<std::string>& policy_keys);

// CheckFirstPolicy holds a policy against its first signers, for an init that has made nothing yet.
// Errors: kPolicyNoSigners, VerifySignature's, kPolicyExpired.
Status CheckFirstPolicy(const PolicyCandidate& candidate,
                        const std::vector<std::string>& policy_keys, std::int64_t now);

// SetPolicy puts a policy in force: store and log in one transaction. `policy_keys` pins the first
// signers where none are; all of them must sign, unless the policy's [signers] names the same keys
// and a threshold. Errors: ReadCandidate's; kPolicyNoSigners; kPolicyUnsigned, kPolicySignature,
// kPolicySigners; kPolicyOlder; kPolicyExpired; kStore*. After kPolicyNewerAgent for a policy that
// is rightly signed the log tells of it, and `status` finds it; else nothing has changed.
struct SetPolicyResult {
  PolicyCheck check;
  policy::Signers signers;  // that it was accepted under
  std::uint64_t log_seq = 0;
};
Result<SetPolicyResult> SetPolicy(Agent& agent, const std::string& file,
                                  const std::vector<std::string>& policy_keys);

}  // namespace keyescrow::agent
