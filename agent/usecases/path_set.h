// What keys have in common when they are under the same paths.
#pragma once

#include <optional>

#include "envelope/base/bytes.h"
#include "envelope/header.h"

namespace keyescrow::agent {

// PathSetDigest is SHA-256 over the envelope's host, the ids of its paths and their model
// (envelope/recoverability.h): envelopes of one digest answer every what-if alike, so one of them
// is read for all. None where the paths have too many factors for a model.
std::optional<Bytes32> PathSetDigest(const envelope::Header& header);

}  // namespace keyescrow::agent
