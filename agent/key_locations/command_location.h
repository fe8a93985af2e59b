// exec:CMD, see key_location.h.
#pragma once

#include <memory>
#include <string>

#include "agent/key_locations/key_location.h"

namespace keyescrow::agent {

// MakeCommandLocation runs `/bin/sh -c command`. Source: its standard input is /dev/null, its
// standard output the key. Sink: its standard input is the key, its standard output goes to our
// standard error, where it cannot be taken for a result. It gets no other descriptor. The exit
// status must be 0 and, for a sink, the whole key read. It waits without a limit; whether a sink
// holds another key only it can tell.
std::unique_ptr<KeyLocation> MakeCommandLocation(std::string command);

}  // namespace keyescrow::agent
