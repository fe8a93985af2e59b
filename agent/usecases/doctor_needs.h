// What doctor says of what a host's keys will need one day: libraries that are loaded when they are
// used, the records of recovery keys, the tokens of officers. Nothing is opened.
#pragma once

#include <set>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/doctor.h"

namespace keyescrow::agent {

struct Needed {
  std::vector<Check> checks;
  // SHA-256 of the SubjectPublicKeyInfo of keys that only officers' shares are for, in the newest
  // envelopes: their tokens are kept by their officers, and are not expected here.
  std::set<Bytes32> officers_keys;
};

// CheckNeeds. `agent` is null where there is no state.
Needed CheckNeeds(const Environment& environment, Agent* agent);

}  // namespace keyescrow::agent
