// What the last opening of a recovery key says of the envelopes that go to it.
#include <fmt/format.h>

#include <algorithm>

#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/recovery_key_failure.h"
#include "agent/usecases/recovery_keys.h"
#include "agent/usecases/registered_recovery_key.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent {
namespace {

constexpr std::int64_t kDefaultDrillSeconds = std::int64_t{90} * 24 * 3600;

Result<std::optional<std::int64_t>> DrillPeriodOf(Agent& agent, const std::string& key_name,
                                                  std::string_view path_id) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  const auto rules =
      policy::MatchingRules(in_force->policy, key_name, agent.identity().host, agent.Now());
  return policy::DrillPeriod(rules, path_id);
}

// OwnProofCounts: this very envelope was opened by the path, as lately as the policy asks for.
Result<bool> OwnProofCounts(Agent& agent, const envelope::Header& header,
                            const store::PathState& state) {
  if (!state.proven || state.proven_revision != header.revision) return false;
  if (state.failed && *state.failed >= *state.proven) return false;
  ASSIGN_OR_RETURN(const auto period, DrillPeriodOf(agent, header.key_name, state.path_id));
  return !period || agent.Now() - *state.proven <= *period;
}

}  // namespace

Result<std::optional<std::int64_t>> CoveredSince(Agent& agent, const store::RecoveryKeyRecord& row,
                                                 const std::string& key_name,
                                                 std::string_view path_id) {
  if (!row.drilled) return std::optional<std::int64_t>();
  ASSIGN_OR_RETURN(const auto failure, FindFailure(agent.store(), row));
  if (failure) return std::optional<std::int64_t>();
  ASSIGN_OR_RETURN(const auto period, DrillPeriodOf(agent, key_name, path_id));
  if (agent.Now() - *row.drilled > period.value_or(kDefaultDrillSeconds))
    return std::optional<std::int64_t>();
  return row.drilled;
}

Result<std::string> CoverText(Agent& agent, const store::RecoveryKeyRecord& row,
                              const std::optional<std::int64_t>& covered_since) {
  if (covered_since) return "its recovery key was opened on " + FormatUtc(*covered_since);
  const std::string opened = row.drilled
                                 ? "its recovery key was opened last on " + FormatUtc(*row.drilled)
                                 : "its recovery key was never opened here";
  ASSIGN_OR_RETURN(const auto failure, FindFailure(agent.store(), row));
  if (!failure) return opened;
  return fmt::format("{}, and did not open on {} ({})", opened, FormatUtc(failure->time),
                     failure->code);
}

Status AddCover(Agent& agent, const envelope::Header& header,
                std::vector<store::PathState>& states) {
  if (header.agent != agent.identity().Thumbprint()) return Ok();
  for (const envelope::PathRecord& path : header.paths) {
    if (!path.recovery_key) continue;
    const auto row = agent.store().FindRecoveryKey(path.recovery_key->name);
    if (!row && row.error().code() != ErrorCode::kNotFound) return row.error();
    if (!row) continue;
    ASSIGN_OR_RETURN(const auto failure, FindFailure(agent.store(), *row));
    if (!row->drilled && !failure) continue;
    ASSIGN_OR_RETURN(const envelope::RecoveryKey key, ReadRegistered(*row));
    if (!key.IsCopiedTo(path)) continue;
    auto state = std::ranges::find_if(states, [&](const store::PathState& known) {
      return known.key_name == header.key_name && known.key_version == header.key_version &&
             known.path_id == path.id;
    });
    if (state == states.end()) {
      store::PathState fresh;
      fresh.key_name = header.key_name;
      fresh.key_version = header.key_version;
      fresh.path_id = path.id;
      state = states.insert(states.end(), std::move(fresh));
    }
    if (failure) {
      // Not before the key's last opening, whatever the clock said: that would have ended it.
      const std::int64_t failed = std::max(failure->time, row->drilled.value_or(0));
      if (state->failed.value_or(0) <= failed) {
        state->failed = failed;
        state->failure = failure->code;
      }
    }
    if (!row->drilled) continue;
    // A proof of this very envelope says more, and a failure of it counts.
    if (state->proven && *state->proven >= *row->drilled) continue;
    ASSIGN_OR_RETURN(const bool own_counts, OwnProofCounts(agent, header, *state));
    if (own_counts) continue;
    state->proven = row->drilled;
    state->proven_revision = header.revision;
    state->proven_by = kRecoveryKeyKind;
    state->proof_seq = row->drill_seq;
  }
  return Ok();
}

}  // namespace keyescrow::agent
