// WorkerProcess: the agent's end of a worker: starting it, one request and one reply at a time with
// a deadline, and its end. Whatever the module does, no worker is left, and no descriptor. (A child
// that the module forked is not ended: it may live on.)
#pragma once

#include <sys/types.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"
#include "hsm/worker_options.h"

namespace keyescrow::hsm {

class WorkerProcess {
 public:
  // Spawn starts the worker: the socket on descriptor 3 and no other above, stdin and stdout on
  // /dev/null (a module that prints must not reach our output), no signal blocked or ignored but
  // SIGPIPE as it was. When the calling thread ends, the worker finishes the call that it is
  // in, for 15 s at most, and goes.
  // Errors: kModuleFailed where the process cannot be started.
  static Result<std::unique_ptr<WorkerProcess>> Spawn(const TokenWorkerOptions& options);
  // Leave, then wait for up to a second, then SIGKILL, and reap. A worker that a driver holds in
  // the kernel, so that it does not die, is left after two seconds more.
  ~WorkerProcess();

  // Send sends one request. Errors: kModuleFailed when the worker is gone.
  Status Send(ByteView head, const SecretBytes* secret = nullptr);

  // Receive waits for one reply. On a time-out the worker is killed and reaped.
  // Errors: kTokenTimeout; kModuleFailed when the worker crashed (the signal is named) or left.
  Result<Bytes> Receive(std::chrono::milliseconds deadline);
  Result<SecretBytes> ReceiveSecret(std::chrono::milliseconds deadline);

  // Leave asks the worker to log out and go, and does not wait.
  void Leave();

  pid_t pid() const { return pid_; }

 private:
  WorkerProcess(pid_t pid, int fd) : pid_(pid), fd_(fd) {}
  Status WaitReadable(std::chrono::milliseconds deadline);
  Error Died();
  void Reap(std::chrono::milliseconds patience);
  bool ReapWithin(std::chrono::milliseconds patience);

  pid_t pid_;
  int fd_;
  int wait_status_ = 0;
  bool reaped_ = false;
  bool killed_ = false;
  bool left_ = false;
  std::optional<Error> failure_;  // the first one; repeated for every later call
};

}  // namespace keyescrow::hsm
