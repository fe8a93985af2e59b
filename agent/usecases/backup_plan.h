// What a key could be escrowed under on this host, for who has to choose (the wizard).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "envelope/path_expression.h"

namespace keyescrow::agent {

// PathOffer: paths that a backup could be given, as texts ([ID=]EXPR).
struct PathOffer {
  enum class Kind : std::uint8_t { kPolicy, kDeclared, kTokenAndTpm, kToken, kTpm };
  Kind kind = Kind::kPolicy;
  std::vector<std::string> paths;
  std::string token = {};                // kToken, kTokenAndTpm: its registered name
  std::optional<Error> token_away = {};  // why it cannot be used here now
};

// OfferPaths returns, in this order: what the policy requires of the key, what agent.toml declares
// for it, each registered token with a password (with this host's TPM where there is one, and
// without), and the TPM with a password. Tokens are looked for, without a PIN. Errors: kStore*.
Result<std::vector<PathOffer>> OfferPaths(Agent& agent, const std::string& key_name);

// PathsInUse returns the paths of the key's newest version, tokens by the names that their keys
// have here now; none where it is not escrowed, or is a key of another host. Errors: kStore*; those
// of an envelope that does not read.
Result<std::vector<envelope::PathOption>> PathsInUse(Agent& agent, const std::string& key_name);

// CheckKeyName: Errors: kInvalidName.
Status CheckKeyName(const std::string& name);

// NeedsPassword tells whether one of the paths has a password. Errors: kInvalidPath.
Result<bool> NeedsPassword(const std::vector<std::string>& paths);

// CheckPasswordOf refuses at once, as it was typed, a password that a backup of the key under these
// paths would refuse. Errors: kPasswordWeak, kPasswordInvalid, kInvalidPath, those of the policy.
Status CheckPasswordOf(Agent& agent, const std::string& key_name,
                       const std::vector<std::string>& paths, const SecretBytes& typed);

}  // namespace keyescrow::agent
