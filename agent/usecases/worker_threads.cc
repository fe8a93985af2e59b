#include "agent/usecases/worker_threads.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

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

Status RunThreads(unsigned count, const std::function<Status(unsigned)>& body,
                  const std::function<void()>& tick) {
  std::mutex mutex;
  std::condition_variable ended;
  unsigned num_ended = 0;
  std::optional<Error> first_error;
  std::vector<std::thread> threads;
  const auto run = [&](unsigned index) {
    Status status = RunBody(body, index);
    const std::lock_guard lock(mutex);
    ++num_ended;
    if (!status && !first_error) first_error = std::move(status).error();
    ended.notify_one();
  };
  threads.reserve(count);
  unsigned num_started = 0;
  try {
    for (; num_started < count; ++num_started) threads.emplace_back(run, num_started);
  } catch (const std::system_error&) {
    // A limit on threads makes it slower, and fails nothing.
  }
  for (unsigned index = num_started; index < count; ++index) run(index);
  {
    std::unique_lock lock(mutex);
    while (!ended.wait_for(lock, kTick, [&] { return num_ended == count; })) {
      lock.unlock();
      tick();
      lock.lock();
    }
  }
  for (std::thread& thread : threads) thread.join();
  if (first_error) return *std::move(first_error);
  return Ok();
}

unsigned NumProcessors() { return std::max(1U, std::thread::hardware_concurrency()); }

}  // namespace keyescrow::agent
