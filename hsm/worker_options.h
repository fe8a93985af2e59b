// TokenWorkerOptions: how the process that talks to a PKCS#11 module is started and timed.
#pragma once

#include <chrono>
#include <string>

namespace keyescrow::hsm {

// kTokenWorkerFlag is argv[1] of a worker. main() passes control to RunTokenWorker (token_worker.h)
// before anything else when it sees it.
inline constexpr char kTokenWorkerFlag[] = "--token-worker";

struct TokenWorkerOptions {
  // executable is a program whose main() knows kTokenWorkerFlag; the default is the running one.
  std::string executable = "/proc/self/exe";
  // operation_deadline bounds each single request to the token.
  std::chrono::milliseconds operation_deadline{15'000};
  // reader_deadline bounds a login that a person types on the reader's own pad.
  std::chrono::milliseconds reader_deadline{120'000};
  // show_module_output leaves the worker's stderr open, for `--trace`: vendors' modules write
  // there.
  bool show_module_output = false;
};

}  // namespace keyescrow::hsm
