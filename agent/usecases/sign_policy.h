// policy sign: one signature under a policy, by a file's key, the agent key or a key on a token.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/token_signing.h"
#include "envelope/signed_note.h"

namespace keyescrow::agent {

struct SignPolicyRequest {
  std::string file;  // the policy; "": say only which key it is
  std::string key;   // a PEM file, "agent", or "token:NAME" of a registered token
  std::string name;  // of the signer; "": the file's name without its ending, the host for "agent",
                     // the token's name
  std::optional<TokenSpec> token;  // instead of `key`: a P-256 key by its URI and module
  TokenSigning* tokens = nullptr;  // these three for tokens alone
  envelope::PinProvider* pins = nullptr;
  bool use_last_try = false;
};

struct SignPolicyResult {
  std::string vkey;
  std::string policy_name;  // "" without a policy
  std::uint64_t serial = 0;
  std::string signature_file;
  std::vector<std::string> signers;  // who has signed this very file by now
  bool software_token = false;       // signed by a token whose keys are files on this host
};

// SignPolicy adds a line to FILE.sig; signatures of another content are dropped, and a policy that
// does not parse is not signed. `agent` is needed for "agent" and "token:NAME" alone. A token is
// logged in to once, and only for a signature or where it hides its public keys.
// Errors: ReadCandidate's; kSigningKey; kSecretFile*; kInvalidName; kAgentKeyUnavailable;
// kTokenNotRegistered; kToken*, kModule*, kWrongPin ….
Result<SignPolicyResult> SignPolicy(Agent* agent, const SignPolicyRequest& request);

// MakeSigningKey writes a new Ed25519 key to `file` (0600) and returns its verifier key.
// Errors: kAlreadyExists; kDestination*; kInvalidName.
Result<std::string> MakeSigningKey(RandomSource& random, const std::string& file,
                                   const std::string& name);

}  // namespace keyescrow::agent
