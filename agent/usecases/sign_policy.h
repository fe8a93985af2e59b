// policy sign: one signature under a policy, by a file's key or by the agent key.
#pragma once

#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "envelope/signed_note.h"

namespace keyescrow::agent {

struct SignPolicyRequest {
  std::string file;  // the policy; "": say only which key it is
  std::string key;   // a PEM file, or "agent"
  std::string name;  // of the signer; "": the file's name without its ending, the host for "agent"
};

struct SignPolicyResult {
  std::string vkey;
  std::string policy_name;  // "" without a policy
  std::uint64_t serial = 0;
  std::string signature_file;
  std::vector<std::string> signers;  // who has signed this very file by now
};

// SignPolicy adds a line to FILE.sig; signatures of another content are dropped, and a policy that
// does not parse is not signed. `agent` is needed for "agent" alone. Errors: ReadCandidate's;
// kSigningKey; kSecretFile*; kInvalidName; kAgentKeyUnavailable; kUnsupportedHere for "token:…".
Result<SignPolicyResult> SignPolicy(Agent* agent, const SignPolicyRequest& request);

// MakeSigningKey writes a new Ed25519 key to `file` (0600) and returns its verifier key.
// Errors: kAlreadyExists; kDestination*; kInvalidName.
Result<std::string> MakeSigningKey(RandomSource& random, const std::string& file,
                                   const std::string& name);

}  // namespace keyescrow::agent
