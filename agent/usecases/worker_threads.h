// RunThreads: the same work on several threads, and its first error.
#pragma once

#include <functional>

#include "envelope/base/result.h"

namespace keyescrow::agent {

// RunThreads runs body(0) … body(count - 1), each on a thread of its own, and calls `tick` about
// four times a second on the calling thread until all have ended. The body of an only thread runs
// on a thread of its own too. Bodies for which no thread can be started run on the calling thread,
// one after another, without ticks: none may wait for a later one. Errors: the first body's that
// failed; kOutOfMemory.
Status RunThreads(unsigned count, const std::function<Status(unsigned)>& body,
                  const std::function<void()>& tick);

unsigned NumProcessors();

}  // namespace keyescrow::agent
