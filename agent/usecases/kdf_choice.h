// How the passwords of a new envelope are stretched.
#pragma once

#include <string>

#include "agent/usecases/agent.h"
#include "envelope/header.h"
#include "envelope/path_expression.h"

namespace keyescrow::agent {

// PathKdfs: a path that a password alone opens has nothing beside it to hold a thief up, and costs
// more (ENVELOPE's defaults: four times the memory, or twice the iterations).
struct PathKdfs {
  envelope::KdfParameters beside_hardware;
  envelope::KdfParameters password_only;

  const envelope::KdfParameters& Of(const envelope::PathExpression& path) const;
};

// ChooseKdfs takes `name` ("argon2id", "pbkdf2-sha512", or "": the declaration's, then the
// defaults'), with agent.toml's costs where it names some, else the format's defaults; then raises
// them to what the key's rules ask for; of a recovery key, whose name is "", to what any rule does.
// A rule that asks for FIPS-approvable algorithms turns Argon2id into PBKDF2 unless `name` was
// given. Errors: kConfiguration, where agent.toml's costs are outside the format's range; those of
// Agent::Policy; kPolicyRefused, where a rule's are.
Result<PathKdfs> ChooseKdfs(Agent& agent, const std::string& key_name, const std::string& name);

// CostsBelowDefault: agent.toml makes guessing a password cheaper than the format's defaults do.
bool CostsBelowDefault(const KdfCosts& costs);

}  // namespace keyescrow::agent
