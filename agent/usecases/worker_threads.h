// WorkerThreads, RunThreads: the same work on several threads, and its first error.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "envelope/base/result.h"

namespace keyescrow::agent {

// WorkerThreads runs body(0) … body(count - 1), each on a thread of its own, while its maker does
// something else. What the bodies use must have been made before it and outlive it.
class WorkerThreads {
 public:
  WorkerThreads(unsigned count, std::function<Status(unsigned)> body);
  WorkerThreads(const WorkerThreads&) = delete;
  WorkerThreads& operator=(const WorkerThreads&) = delete;
  ~WorkerThreads();  // waits for the bodies that were started

  // Join waits for all of them. Bodies for which no thread could be started run here, on the
  // calling thread, one after another: none may wait for a later one. Errors: the first body's that
  // failed; kOutOfMemory.
  Status Join();
  // WaitFor returns whether all that were started ended within the time.
  bool WaitFor(std::chrono::milliseconds time);

 private:
  void Run(unsigned index);

  unsigned count_;
  std::function<Status(unsigned)> body_;
  std::mutex mutex_;
  std::condition_variable ended_;
  unsigned num_ended_ = 0;
  std::optional<Error> first_error_;
  std::vector<std::thread> threads_;
};

// RunThreads runs body(0) … body(count - 1), each on a thread of its own, and calls `tick` about
// four times a second on the calling thread until all have ended. The body of an only thread runs
// on a thread of its own too. Errors: WorkerThreads::Join's.
Status RunThreads(unsigned count, const std::function<Status(unsigned)>& body,
                  const std::function<void()>& tick);

unsigned NumProcessors();

}  // namespace keyescrow::agent
