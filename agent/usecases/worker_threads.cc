#include "agent/usecases/worker_threads.h"

#include <algorithm>
#include <exception>
#include <new>
#include <utility>

namespace keyescrow::agent {
namespace {

constexpr std::chrono::milliseconds kTick{250};

// RunBody keeps exceptions of the libraries from leaving a thread.
Status RunBody(const std::function<Status(unsigned)>& body, unsigned index) {
  try {
    return body(index);
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::kOutOfMemory, Action::kCheckSystemState, "not enough memory",
                 "free some memory, or raise the limit of this process");
  } catch (const std::exception& exception) {
    return Error(ErrorCode::kInternal, Action::kReportBug,
                 std::string("an unexpected exception: ") + exception.what(),
                 "report this with the command that you ran");
  }
}

}  // namespace

WorkerThreads::WorkerThreads(unsigned count, std::function<Status(unsigned)> body)
    : count_(count), body_(std::move(body)) {
  threads_.reserve(count);  // nothing below leaves threads behind
  try {
    for (unsigned index = 0; index < count; ++index) {
      threads_.emplace_back(&WorkerThreads::Run, this, index);
    }
  } catch (const std::exception&) {
    // A limit on threads, or on memory for them, makes it slower, and fails nothing.
  }
}

WorkerThreads::~WorkerThreads() {
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

void WorkerThreads::Run(unsigned index) {
  Status status = RunBody(body_, index);
  const std::lock_guard lock(mutex_);
  ++num_ended_;
  if (!status && !first_error_) first_error_ = std::move(status).error();
  ended_.notify_one();
}

bool WorkerThreads::WaitFor(std::chrono::milliseconds time) {
  std::unique_lock lock(mutex_);
  return ended_.wait_for(lock, time, [&] { return num_ended_ >= threads_.size(); });
}

Status WorkerThreads::Join() {
  for (auto index = static_cast<unsigned>(threads_.size()); index < count_; ++index) Run(index);
  for (std::thread& thread : threads_) thread.join();
  if (first_error_) return *std::move(first_error_);
  return Ok();
}

Status RunThreads(unsigned count, const std::function<Status(unsigned)>& body,
                  const std::function<void()>& tick) {
  WorkerThreads threads(count, body);
  while (!threads.WaitFor(kTick)) tick();
  return threads.Join();
}

unsigned NumProcessors() { return std::max(1U, std::thread::hardware_concurrency()); }

}  // namespace keyescrow::agent
