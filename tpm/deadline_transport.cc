#include "tpm/deadline_transport.h"

#include <condition_variable>
#include <csignal>
#include <mutex>
#include <optional>
#include <system_error>

namespace keyescrow::tpm {
namespace {

constexpr std::chrono::milliseconds kShutdownGrace{500};

Error TimeoutError() {
  return Error(ErrorCode::kTpmTimeout, Action::kCheckSystemState,
               "the TPM did not answer within its deadline",
               "use a path without tpm, or restart the TPM's resource manager or the machine");
}

Error NoThreadError(const std::system_error& error) {
  return ErrnoError(
      ErrorCode::kTpmUnavailable, Action::kCheckSystemState,
      "no thread can be started to talk to the TPM",
      "raise the limit on processes and threads (ulimit -u, a container's pids limit, "
      "a service's TasksMax=), or use a path without tpm",
      error.code().value());
}

}  // namespace

// Shared belongs to both threads: the one that is stuck keeps it alive after the other has gone.
struct DeadlineTransport::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  std::optional<Bytes> command;           // for the thread
  std::optional<Result<Bytes>> response;  // from the thread; the first one answers Open
  std::optional<Error> dead;
  bool stop = false;
  bool ended = false;

  void Serve(const Opener& opener);
};

void DeadlineTransport::Shared::Serve(const Opener& opener) {
  auto opened = opener();
  std::unique_lock lock(mutex);
  std::unique_ptr<Transport> transport;
  if (opened) {
    transport = std::move(*opened);
    response = Bytes();
  } else {
    response = std::move(opened).error();
  }
  changed.notify_all();
  while (transport != nullptr) {
    changed.wait(lock, [this] { return stop || command.has_value(); });
    if (stop) break;
    const Bytes current = std::move(*command);
    command.reset();
    lock.unlock();
    Result<Bytes> answer = transport->Exchange(current);
    lock.lock();
    response = std::move(answer);
    changed.notify_all();
  }
  lock.unlock();
  transport.reset();
  lock.lock();
  ended = true;
  changed.notify_all();
}

Result<std::unique_ptr<DeadlineTransport>> DeadlineTransport::Open(
    Opener opener, std::chrono::milliseconds deadline) {
  std::unique_ptr<DeadlineTransport> transport(new DeadlineTransport());
  auto shared = std::make_shared<Shared>();
  transport->shared_ = shared;
  // Signals belong to the program's own threads.
  sigset_t all;
  sigset_t previous;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &previous);
  std::optional<Error> not_started;
  try {
    transport->thread_ =
        std::thread([shared, opener = std::move(opener)] { shared->Serve(opener); });
  } catch (const std::system_error& error) {
    not_started = NoThreadError(error);
  }
  pthread_sigmask(SIG_SETMASK, &previous, nullptr);
  if (not_started) return *std::move(not_started);

  std::unique_lock lock(shared->mutex);
  if (!shared->changed.wait_for(lock, deadline, [&] { return shared->response.has_value(); })) {
    shared->dead = TimeoutError().WithContext("connecting to the TPM");
    return *shared->dead;
  }
  if (!*shared->response) return std::move(*shared->response).error();
  shared->response.reset();
  lock.unlock();
  return transport;
}

DeadlineTransport::~DeadlineTransport() {
  if (!thread_.joinable()) return;  // it never began
  {
    std::unique_lock lock(shared_->mutex);
    shared_->stop = true;
    shared_->changed.notify_all();
    // A thread that is known to be stuck is not waited for.
    const auto grace = shared_->dead ? std::chrono::milliseconds(0) : kShutdownGrace;
    if (!shared_->changed.wait_for(lock, grace, [this] { return shared_->ended; })) {
      thread_.detach();
      return;
    }
  }
  thread_.join();
}

Result<Bytes> DeadlineTransport::Exchange(ByteView command,
                                          std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(shared_->mutex);
  if (shared_->dead) return *shared_->dead;
  shared_->command = ToBytes(command);
  shared_->changed.notify_all();
  if (!shared_->changed.wait_until(lock, deadline,
                                   [this] { return shared_->response.has_value(); })) {
    shared_->dead = TimeoutError();
    return *shared_->dead;
  }
  Result<Bytes> response = std::move(*shared_->response);
  shared_->response.reset();
  if (!response) shared_->dead = response.error();
  return response;
}

}  // namespace keyescrow::tpm
