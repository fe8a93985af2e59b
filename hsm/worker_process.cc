#include "hsm/worker_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "hsm/token_protocol.h"
#include "hsm/token_worker.h"

namespace keyescrow::hsm {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::string_view kModuleHint =
    "try the module's own tool; update it or tell its vendor (the agent itself is unharmed)";

Error SpawnError(std::string_view what, int error_number) {
  const bool no_proc = error_number == ENOENT && what.starts_with("/proc/");
  return ErrnoError(ErrorCode::kModuleFailed, Action::kCheckSystemState,
                    fmt::format("cannot start the token worker: {}", what),
                    no_proc ? "mount /proc, in a chroot as well: 'mount -t proc proc /proc'"
                            : "check the limits on processes and open files (ulimit -u, ulimit -n)",
                    error_number);
}

// How long only the socket is looked at: where a worker answers at once, its process costs nothing.
constexpr milliseconds kSocketAlone{20};

// How long the end of a worker that was killed is waited for.
constexpr milliseconds kKillPatience{2000};

enum class Seen { kMessage, kEnd, kNothing };

// AwaitMessageOrEnd is AwaitMessage, and notices a worker that has ended although a process that
// its module started holds the socket open.
Seen AwaitMessageOrEnd(int socket_fd, pid_t pid, milliseconds deadline) {
  const auto end = steady_clock::now() + deadline;
  if (AwaitMessage(socket_fd, std::min(deadline, kSocketAlone))) return Seen::kMessage;
  // Readable once the process has ended. glibc 2.36's pidfd_open has no C linkage for C++.
  const int process = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  Seen seen = Seen::kNothing;
  do {
    pollfd entries[] = {{socket_fd, POLLIN, 0}, {process, POLLIN, 0}};
    if (poll(entries, 2, RemainingMs(end)) <= 0) continue;
    // What it sent before it ended counts.
    seen = entries[0].revents != 0 || AwaitMessage(socket_fd, milliseconds(0)) ? Seen::kMessage
                                                                               : Seen::kEnd;
  } while (seen == Seen::kNothing && RemainingMs(end) > 0);
  if (process >= 0) close(process);
  return seen;
}

// ReceiveMessage is recv(2); a signal that comes meanwhile ends nothing.
ssize_t ReceiveMessage(int socket_fd, std::uint8_t* buffer, std::size_t size) {
  ssize_t received = 0;
  do {
    received = recv(socket_fd, buffer, size, MSG_TRUNC);
  } while (received < 0 && errno == EINTR);
  return received;
}

}  // namespace

Result<std::unique_ptr<WorkerProcess>> WorkerProcess::Spawn(const TokenWorkerOptions& options) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) != 0) {
    return SpawnError("no socket", errno);
  }
  // A worker that answers and reads nothing fills its end, and holds nobody up by it: an honest one
  // has three requests before it at most, which is a tenth of the room.
  fcntl(sockets[0], F_SETFL, O_NONBLOCK);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0);
  // dup2 onto 3 first: the socket itself may be any descriptor, 0 to 2 excepted by our main().
  posix_spawn_file_actions_adddup2(&actions, sockets[1], kTokenWorkerSocket);
  posix_spawn_file_actions_adddup2(&actions, 0, 1);
  if (!options.show_module_output) posix_spawn_file_actions_adddup2(&actions, 0, 2);
  posix_spawn_file_actions_addclosefrom_np(&actions, kTokenWorkerSocket + 1);
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  sigfillset(&signals);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  std::string name = "keyescrow";
  std::string flag = kTokenWorkerFlag;
  char* const arguments[] = {name.data(), flag.data(), nullptr};
  pid_t pid = -1;
  // The environment goes along: modules find their configuration in it (SOFTHSM2_CONF,
  // TPM2_PKCS11_*).
  const int error_number =
      posix_spawn(&pid, options.executable.c_str(), &actions, &attributes, arguments, environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  close(sockets[1]);
  if (error_number != 0) {
    close(sockets[0]);
    return SpawnError(options.executable, error_number);
  }
  return std::unique_ptr<WorkerProcess>(new WorkerProcess(pid, sockets[0]));
}

WorkerProcess::~WorkerProcess() {
  Leave();
  Reap(milliseconds(1000));
  close(fd_);
}

Status WorkerProcess::Send(ByteView head, const SecretBytes* secret) {
  if (failure_) return *failure_;
  if (!SendMessage(fd_, head, secret)) return Died();
  return Ok();
}

void WorkerProcess::Leave() {
  if (left_ || reaped_) return;
  left_ = true;
  const std::uint8_t leave = static_cast<std::uint8_t>(TokenRequest::kLeave);
  SendMessage(fd_, ByteView(&leave, 1));
  shutdown(fd_, SHUT_WR);
  if (!failure_) {
    failure_ = Error(ErrorCode::kInternal, Action::kReportBug,
                     "a token session was used after its end", "report this");
  }
}

Status WorkerProcess::WaitReadable(milliseconds deadline) {
  if (failure_) return *failure_;
  switch (AwaitMessageOrEnd(fd_, pid_, deadline)) {
    case Seen::kMessage: return Ok();
    case Seen::kEnd: return Died();
    case Seen::kNothing: break;
  }
  Reap(milliseconds(0));
  failure_ = Error(ErrorCode::kTokenTimeout, Action::kReconnect,
                   fmt::format("the token did not answer within {} s; its worker was ended",
                               std::chrono::ceil<std::chrono::seconds>(deadline).count()),
                   "check the reader, the network and the token's service, then start again");
  return *failure_;
}

Result<Bytes> WorkerProcess::Receive(milliseconds deadline) {
  RETURN_IF_ERROR(WaitReadable(deadline));
  Bytes message(kMaxReplyBytes);
  const ssize_t size = ReceiveMessage(fd_, message.data(), message.size());
  if (size <= 0 || static_cast<std::size_t>(size) > message.size()) return Died();
  message.resize(static_cast<std::size_t>(size));
  return message;
}

Result<SecretBytes> WorkerProcess::ReceiveSecret(milliseconds deadline) {
  ASSIGN_OR_RETURN(SecretBytes message, SecretBytes::Allocate(kMaxSecretReplyBytes));
  RETURN_IF_ERROR(WaitReadable(deadline));
  const ssize_t size = ReceiveMessage(fd_, message.ExposeMutable().data(), message.size());
  if (size <= 0 || static_cast<std::size_t>(size) > message.size()) return Died();
  message.Truncate(static_cast<std::size_t>(size));
  return message;
}

// Died ends and reaps a worker whose socket failed, and says how it ended.
Error WorkerProcess::Died() {
  if (failure_) return *failure_;
  Reap(milliseconds(500));  // it closed the socket: it is about to be gone, or to be killed
  std::string how = "stopped answering";
  if (reaped_ && WIFSIGNALED(wait_status_)) {
    const char* name = sigabbrev_np(WTERMSIG(wait_status_));
    how = fmt::format("crashed (signal {}, SIG{})", WTERMSIG(wait_status_),
                      name != nullptr ? name : "?");
  } else if (reaped_ && WIFEXITED(wait_status_)) {
    how = fmt::format("ended the worker process (exit status {})", WEXITSTATUS(wait_status_));
  }
  failure_ = Error(ErrorCode::kModuleFailed, Action::kCheckSystemState,
                   fmt::format("the PKCS#11 module {}", how), std::string(kModuleHint));
  return *failure_;
}

// Reap waits for the worker's end for up to `patience`, then kills it. One that a driver holds in
// the kernel dies when the driver lets it: it is not waited for.
void WorkerProcess::Reap(milliseconds patience) {
  if (reaped_ || ReapWithin(killed_ ? milliseconds(0) : patience) || killed_) return;
  killed_ = true;
  kill(pid_, SIGKILL);
  ReapWithin(kKillPatience);
}

// ReapWithin tells whether the worker has ended, and is reaped, within that time.
bool WorkerProcess::ReapWithin(milliseconds patience) {
  const auto end = steady_clock::now() + patience;
  // Readable once the process has ended. glibc 2.36's pidfd_open has no C linkage for C++.
  const int process = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  while (true) {
    pid_t reaped = 0;
    do {
      reaped = waitpid(pid_, &wait_status_, WNOHANG);
    } while (reaped < 0 && errno == EINTR);
    reaped_ = reaped != 0;  // ECHILD: someone ignores SIGCHLD; it is gone all the same
    if (reaped_ || RemainingMs(end) == 0) break;
    pollfd entry{process, POLLIN, 0};
    poll(&entry, 1, process >= 0 ? RemainingMs(end) : 1);
  }
  if (process >= 0) close(process);
  return reaped_;
}

}  // namespace keyescrow::hsm
