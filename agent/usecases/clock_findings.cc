#include "agent/usecases/clock_findings.h"

#include <fmt/format.h>

#include <algorithm>

#include "envelope/base/clock.h"

namespace keyescrow::agent {

Status AddClockFindings(Agent& agent, const std::vector<KeyView>& keys,
                        std::vector<Finding>& findings) {
  const std::int64_t latest = agent.Now() + kToleratedSkewS;
  ASSIGN_OR_RETURN(const auto newest, NewestEntryTime(agent));
  if (newest && *newest > latest) {
    findings.push_back({"clock_backward", "", agent.identity().host, Severity::kWarning,
                        fmt::format("the clock went back: the log's newest entry is of {}, and now "
                                    "it is said to be {}; ages of proofs, grace and exceptions are "
                                    "counted by it",
                                    FormatUtc(*newest), FormatUtc(agent.Now())),
                        "set the clock, and look at its time source"});
    return Ok();
  }
  for (const KeyView& key : keys) {
    const auto ahead = std::find_if(key.paths.begin(), key.paths.end(), [&](const PathView& path) {
      return path.proven && *path.proven > latest;
    });
    if (ahead == key.paths.end()) continue;
    findings.push_back({"proof_in_future", key.name, key.host, Severity::kWarning,
                        fmt::format("the proof of the path {} is of {}, which is still to come: "
                                    "the clock was ahead then, or is behind now",
                                    ahead->id, FormatUtc(*ahead->proven)),
                        fmt::format("look at the clock, then prove it again: 'keyescrow drill {} "
                                    "--via {}'",
                                    key.name, ahead->id)});
  }
  return Ok();
}

}  // namespace keyescrow::agent
