// What doctor says of the TPM.
#pragma once

#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/doctor.h"

namespace keyescrow::agent {

// CheckTpm: `known_srk` is the storage key that init saw, or nothing.
std::vector<Check> CheckTpm(const Environment& environment, const Bytes& known_srk);

}  // namespace keyescrow::agent
