// What earlier proofs say of a new version that goes to the same officers.
#pragma once

#include <cstdint>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/backup.h"
#include "envelope/header.h"

namespace keyescrow::agent {

// AddOfficersCover marks paths of the new version as covered where they have shares of the very
// tokens, and no TPM, by which a path of the version in use was seen to open within the time in
// which a drill is asked for: shares are made for public keys, and the writer reads back what it
// made of them, so a rotation needs no officer. Errors: kStore*.
Status AddOfficersCover(Agent& agent, const envelope::Header& in_use, std::uint32_t new_version,
                        std::vector<PathProof>& paths);

}  // namespace keyescrow::agent
