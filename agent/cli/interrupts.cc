#include "agent/cli/interrupts.h"

namespace keyescrow::agent {
namespace {

constexpr const char* kDomain = "signal";

volatile sig_atomic_t kept = 0;
bool keeping = false;

void Keep(int /*signal_number*/) { kept = 1; }

}  // namespace

KeepInterrupts::KeepInterrupts() {
  kept = 0;
  struct sigaction action {};
  action.sa_handler = Keep;
  action.sa_flags = SA_RESTART;  // whatever is going on goes on
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, nullptr, &before_);
  if (before_.sa_handler != SIG_IGN) sigaction(SIGINT, &action, nullptr);
  keeping = true;
}

KeepInterrupts::~KeepInterrupts() {
  keeping = false;
  sigaction(SIGINT, &before_, nullptr);
  if (TakeInterrupt()) raise(SIGINT);
}

bool InterruptsAreKept() { return keeping; }

bool TakeInterrupt() {
  const bool taken = kept != 0;
  kept = 0;
  return taken;
}

Error Interrupted() {
  return Error(ErrorCode::kSecretSourceUnreadable, Action::kRetry, "interrupted",
               "run the command again")
      .WithNative(kDomain, SIGINT);
}

bool WasInterrupted(const Error& error) { return error.native_domain() == kDomain; }

}  // namespace keyescrow::agent
