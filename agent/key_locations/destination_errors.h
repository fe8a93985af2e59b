// The errors of system calls at a destination, each with what a person can do about it.
#pragma once

#include <string>

#include "envelope/base/error.h"

namespace keyescrow::agent {

// DestinationError: `step` ("sync the folder of") failed at `path`, which lies in `folder`.
// kDestinationFull or kDestinationUnwritable.
Error DestinationError(const char* step, const std::string& path, const std::string& folder,
                       int error_number);

}  // namespace keyescrow::agent
