#include <algorithm>
#include <variant>
#include <vector>

#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/rotation_backup.h"

namespace keyescrow::agent {
namespace {

using envelope::Argon2idParameters;
using envelope::KdfParameters;
using envelope::Pbkdf2Parameters;

// PathKdf: how a path's password was stretched.
struct PathKdf {
  const KdfParameters* kdf = nullptr;
  bool beside_hardware = false;
};

std::vector<PathKdf> KdfsOf(const envelope::Header& header) {
  std::vector<PathKdf> kdfs;
  for (const envelope::PathRecord& path : header.paths) {
    for (const envelope::FactorRecord& factor : path.factors) {
      const auto* password = std::get_if<envelope::PasswordRecord>(&factor);
      if (password != nullptr) kdfs.push_back({&password->kdf, path.factors.size() > 1});
    }
  }
  return kdfs;
}

void RaiseTo(const KdfParameters& in_use, KdfParameters& kdf) {
  if (kdf.index() != in_use.index()) return;
  if (const auto* pbkdf2 = std::get_if<Pbkdf2Parameters>(&in_use)) {
    auto& raised = std::get<Pbkdf2Parameters>(kdf);
    raised.iterations = std::max(raised.iterations, pbkdf2->iterations);
    return;
  }
  const auto& argon2id = std::get<Argon2idParameters>(in_use);
  auto& raised = std::get<Argon2idParameters>(kdf);
  raised.memory_kib = std::max(raised.memory_kib, argon2id.memory_kib);
  raised.passes = std::max(raised.passes, argon2id.passes);
  if (!envelope::CheckKdfParameters(kdf)) raised = argon2id;  // both are more than the format has
}

// KindOf: a rule that asks for FIPS-approvable algorithms goes before what was in use.
Result<std::string> KindOf(Agent& agent, const envelope::Header& in_use, const KdfParameters& kdf) {
  if (std::holds_alternative<Pbkdf2Parameters>(kdf)) return std::string("pbkdf2-sha512");
  ASSIGN_OR_RETURN(const PolicyInForce* const in_force, agent.Policy());
  const auto rules =
      policy::MatchingRules(in_force->policy, in_use.key_name, agent.identity().host, agent.Now());
  const bool fips = std::ranges::any_of(rules, [](const policy::Rule* rule) { return rule->fips; });
  return std::string(fips ? "" : "argon2id");
}

}  // namespace

Result<PathKdfs> KdfsAfter(Agent& agent, const envelope::Header& in_use, const std::string& name) {
  const std::vector<PathKdf> before = KdfsOf(in_use);
  if (!name.empty() || before.empty()) return ChooseKdfs(agent, in_use.key_name, name);
  const DeclaredKey* declared = agent.environment().config->FindKey(in_use.key_name);
  std::string kind;
  if (declared == nullptr || declared->kdf.empty()) {
    ASSIGN_OR_RETURN(kind, KindOf(agent, in_use, *before.front().kdf));
  }
  ASSIGN_OR_RETURN(PathKdfs kdfs, ChooseKdfs(agent, in_use.key_name, kind));
  for (const PathKdf& path : before) {
    RaiseTo(*path.kdf, path.beside_hardware ? kdfs.beside_hardware : kdfs.password_only);
  }
  return kdfs;
}

}  // namespace keyescrow::agent
