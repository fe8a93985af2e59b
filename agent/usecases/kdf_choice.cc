#include "agent/usecases/kdf_choice.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>
#include <variant>

#include "agent/usecases/policy_in_force.h"

namespace keyescrow::agent {
namespace {

using envelope::Argon2idParameters;
using envelope::KdfParameters;
using envelope::Pbkdf2Parameters;

PathKdfs Defaults(bool pbkdf2) {
  if (pbkdf2) return {Pbkdf2Parameters{}, envelope::kPasswordOnlyPbkdf2};
  return {Argon2idParameters{}, envelope::kPasswordOnlyArgon2id};
}

void Apply(const KdfCosts& costs, KdfParameters& kdf) {
  if (auto* argon2id = std::get_if<Argon2idParameters>(&kdf)) {
    argon2id->memory_kib = costs.argon2id_memory_kib.value_or(argon2id->memory_kib);
    argon2id->passes = costs.argon2id_passes.value_or(argon2id->passes);
    argon2id->lanes = costs.argon2id_lanes.value_or(argon2id->lanes);
  } else if (auto* pbkdf2 = std::get_if<Pbkdf2Parameters>(&kdf)) {
    pbkdf2->iterations = costs.pbkdf2_iterations.value_or(pbkdf2->iterations);
  }
}

void Raise(const policy::Rule& rule, KdfParameters& kdf) {
  if (auto* argon2id = std::get_if<Argon2idParameters>(&kdf)) {
    argon2id->memory_kib = std::max(argon2id->memory_kib, rule.kdf.argon2id_memory_kib.value_or(0));
    argon2id->passes = std::max(argon2id->passes, rule.kdf.argon2id_passes.value_or(0));
  } else if (auto* pbkdf2 = std::get_if<Pbkdf2Parameters>(&kdf)) {
    pbkdf2->iterations = std::max(pbkdf2->iterations, rule.kdf.pbkdf2_iterations.value_or(0));
  }
}

}  // namespace

const KdfParameters& PathKdfs::Of(const envelope::PathExpression& path) const {
  return path.HasHardware() ? beside_hardware : password_only;
}

Result<PathKdfs> ChooseKdfs(Agent& agent, const std::string& key_name, const std::string& name) {
  const AgentConfig& config = *agent.environment().config;
  const DeclaredKey* declared = config.FindKey(key_name);
  std::string wanted = name;
  if (wanted.empty() && declared != nullptr) wanted = declared->kdf;
  if (wanted.empty()) wanted = config.default_kdf;
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  std::vector<const policy::Rule*> rules;
  if (key_name.empty()) {
    // A recovery key: keys of every name are escrowed to it.
    for (const policy::Rule& rule : in_force->policy.rules) rules.push_back(&rule);
  } else {
    rules = policy::MatchingRules(in_force->policy, key_name, agent.identity().host, agent.Now());
  }
  const bool fips =
      std::any_of(rules.begin(), rules.end(), [](const policy::Rule* rule) { return rule->fips; });
  PathKdfs kdfs = Defaults(wanted == "pbkdf2-sha512" || (fips && name.empty()));
  for (KdfParameters* kdf : {&kdfs.beside_hardware, &kdfs.password_only}) {
    Apply(config.kdf_costs, *kdf);
    if (const Status valid = envelope::CheckKdfParameters(*kdf); !valid) {
      return Error(
          ErrorCode::kConfiguration, Action::kFixInput,
          config.file + ", [defaults]: " + valid.error().message(),
          "Argon2id takes 19456 to 4194304 KiB, 1 to 32 passes and 1 to 16 lanes (one pass "
          "needs 47104 KiB, passes times memory at most 33554432); PBKDF2 210000 to "
          "20000000 iterations");
    }
    for (const policy::Rule* rule : rules) Raise(*rule, *kdf);
    if (!envelope::CheckKdfParameters(*kdf)) {
      return Error(ErrorCode::kPolicyRefused, Action::kFixInput,
                   fmt::format("the policy {} asks for a kdf cost that no envelope can hold",
                               in_force->policy.name),
                   "have its signers lower kdf in the rules of this key, or the costs in "
                   "agent.toml's [defaults]");
    }
  }
  return kdfs;
}

bool CostsBelowDefault(const KdfCosts& costs) {
  const Argon2idParameters argon2id;
  return costs.argon2id_memory_kib.value_or(argon2id.memory_kib) < argon2id.memory_kib ||
         costs.argon2id_passes.value_or(argon2id.passes) < argon2id.passes ||
         costs.pbkdf2_iterations.value_or(Pbkdf2Parameters{}.iterations) <
             Pbkdf2Parameters{}.iterations;
}

}  // namespace keyescrow::agent
