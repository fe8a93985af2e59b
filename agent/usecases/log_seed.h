// The secret half of the log's key, held against the public half that agent.json names.
#pragma once

#include <string>

#include "agent/usecases/agent_state.h"

namespace keyescrow::agent {

// LoadLogSeed is LoadEd25519Seed of the identity's own seed: by another one every checkpoint would
// be signed so that no verifier takes it. Errors: LoadEd25519Seed's; kAgentKeyUnavailable where it
// is another's.
Result<SecretBytes> LoadLogSeed(const std::string& state_dir, const AgentIdentity& identity);

// IsLogSeedLost: that error says that the seed is gone, cut off or another's, and not that it
// cannot be read now (too many open files, a disk that fails) or that others may read it.
bool IsLogSeedLost(const Error& error);

}  // namespace keyescrow::agent
