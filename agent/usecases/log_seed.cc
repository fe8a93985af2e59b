#include "agent/usecases/log_seed.h"

#include <utility>

#include "envelope/base/ed25519.h"

namespace keyescrow::agent {

Result<SecretBytes> LoadLogSeed(const std::string& state_dir, const AgentIdentity& identity) {
  ASSIGN_OR_RETURN(SecretBytes seed, LoadEd25519Seed(state_dir));
  ASSIGN_OR_RETURN(const Bytes32 derived, Ed25519PublicKey(seed));
  if (derived == identity.ed25519) return seed;
  return Error(ErrorCode::kAgentKeyUnavailable, Action::kCallOperator,
               state_dir + "/ed25519.seed is not the key of agent.json: nothing can be logged",
               "put both back from the same copy");
}

bool IsLogSeedLost(const Error& error) {
  return error.action() == Action::kCallOperator &&
         (error.code() == ErrorCode::kAgentKeyUnavailable ||
          error.code() == ErrorCode::kStoreUnavailable);
}

}  // namespace keyescrow::agent
