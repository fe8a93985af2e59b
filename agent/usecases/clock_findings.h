// Clock findings: where what is recorded lies ahead of this host's clock. Ages of proofs, grace and
// exceptions are counted by the clock, so one that is behind makes late keys look in time.
#pragma once

#include <cstdint>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/inventory.h"

namespace keyescrow::agent {

// Clocks that are set by a network differ by less; nobody is told of it.
inline constexpr std::int64_t kToleratedSkewS = 300;

// AddClockFindings adds warnings: clock_backward where the log's newest entry is ahead of the
// clock; else proof_in_future for each key of `keys` with a path whose proof is. Neither refuses
// anything: a machine whose clock lost its battery must start its services. Errors: kStore*.
Status AddClockFindings(Agent& agent, const std::vector<KeyView>& keys,
                        std::vector<Finding>& findings);

}  // namespace keyescrow::agent
