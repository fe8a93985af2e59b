// What doctor says of what a host's keys will need one day: libraries that are loaded when they are
// used, the records of recovery keys, the tokens of officers. Nothing is opened.
#pragma once

#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/doctor.h"

namespace keyescrow::agent {

// CheckNeeds. `agent` is null where there is no state.
std::vector<Check> CheckNeeds(const Environment& environment, Agent* agent);

}  // namespace keyescrow::agent
