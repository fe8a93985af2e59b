// init: the state, the store, the agent key.
#pragma once

#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/secrets.h"

namespace keyescrow::agent {

struct InitResult {
  AgentIdentity identity;
  std::string state_dir;
  std::vector<std::string> findings;  // e.g. a TPM without lockoutAuth
};

// Init makes the state and logs agent.started. The agent key is made in the TPM where there is one;
// `tpm_required` (a TCTI was named) makes a TPM that does not answer an error. Above the default
// state folder, which nobody named (~/.local/state/keyescrow), it makes the folders too: 0700.
// Errors: kAlreadyInitialized, kTpm*, kState*, kStore*.
Result<InitResult> Init(const Environment& environment, bool tpm_required, Progress& progress);

}  // namespace keyescrow::agent
