// KeepInterrupts: while one exists, Ctrl-C (SIGINT) ends no process. A question that it interrupts
// fails with an error that WasInterrupted knows; one that comes between questions is kept for the
// next, and one that no question took counts when the last of them is over. For what must not be
// lost by a slip of a finger; SIGTERM and the others end as ever.
#pragma once

#include <signal.h>

#include "envelope/base/error.h"

namespace keyescrow::agent {

// One at a time, on the thread that asks.
class KeepInterrupts {
 public:
  KeepInterrupts();
  ~KeepInterrupts();
  KeepInterrupts(const KeepInterrupts&) = delete;
  KeepInterrupts& operator=(const KeepInterrupts&) = delete;

 private:
  struct sigaction before_ {};
};

// InterruptsAreKept: a KeepInterrupts exists. TakeInterrupt returns, and forgets, whether one was
// kept since.
bool InterruptsAreKept();
bool TakeInterrupt();

// Interrupted is the error of a question that was interrupted and kept.
Error Interrupted();
bool WasInterrupted(const Error& error);

}  // namespace keyescrow::agent
