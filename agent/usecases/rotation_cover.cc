#include "agent/usecases/rotation_cover.h"

#include <algorithm>

#include "agent/policy/facts.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/policy_in_force.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent {
namespace {

constexpr std::int64_t kDefaultDrillSeconds = std::int64_t{90} * 24 * 3600;

bool SameOfficers(const policy::PathFacts& left, const policy::PathFacts& right) {
  const auto same = [](const policy::TokenUse& a, const policy::TokenUse& b) {
    return a.name == b.name && a.spki_sha256 == b.spki_sha256;
  };
  return left.expression == right.expression &&
         std::is_permutation(left.tokens.begin(), left.tokens.end(), right.tokens.begin(),
                             right.tokens.end(), same);
}

const store::PathState* FindState(const std::vector<store::PathState>& states,
                                  std::uint32_t version, std::string_view path_id) {
  const auto found = std::find_if(states.begin(), states.end(), [&](const auto& state) {
    return state.key_version == version && state.path_id == path_id;
  });
  return found == states.end() ? nullptr : &*found;
}

}  // namespace

Status AddOfficersCover(Agent& agent, const envelope::Header& in_use, std::uint32_t new_version,
                        std::vector<PathProof>& paths) {
  ASSIGN_OR_RETURN(const auto states, agent.store().PathStates(in_use.key_name));
  ASSIGN_OR_RETURN(const auto written, agent.store().FindEnvelope(in_use.key_name, new_version));
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", false));
  ASSIGN_OR_RETURN(const auto sealed, envelope::SealedEnvelope::Read(written.bytes, trust));
  ASSIGN_OR_RETURN(const PolicyInForce* const in_force, agent.Policy());
  const auto rules =
      policy::MatchingRules(in_force->policy, in_use.key_name, agent.identity().host, agent.Now());
  const policy::KeyFacts before = policy::FactsOf(in_use);
  for (const policy::PathFacts& path : policy::FactsOf(sealed.header()).paths) {
    const auto proof = std::find_if(paths.begin(), paths.end(), [&](const PathProof& candidate) {
      return candidate.path_id == path.id;
    });
    const bool has_shares = path.expression.Has(envelope::FactorKind::kShares);
    if (proof == paths.end() || proof->proven || !has_shares || path.expression.NeedsTpm()) {
      continue;
    }
    const std::int64_t period = policy::DrillPeriod(rules, path.id).value_or(kDefaultDrillSeconds);
    for (const policy::PathFacts& old_path : before.paths) {
      if (!SameOfficers(old_path, path)) continue;
      const store::PathState* const state = FindState(states, in_use.key_version, old_path.id);
      if (state == nullptr || !state->proven || agent.Now() - *state->proven > period) continue;
      if (state->proven_revision != in_use.revision) continue;
      if (state->failed && *state->failed >= *state->proven) continue;
      proof->covered_since = state->proven;
      proof->why_not = "version " + std::to_string(in_use.key_version) +
                       " was opened by its officers on " + FormatUtc(*state->proven);
    }
  }
  return Ok();
}

}  // namespace keyescrow::agent
