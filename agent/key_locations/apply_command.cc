#include "agent/key_locations/apply_command.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "agent/key_locations/stream.h"

namespace keyescrow::agent {
namespace {

// The numbers of the descriptors in the command.
constexpr int kOldKeyFd = 3;
constexpr int kNewKeyFd = 4;
constexpr int kLastWord = 127;                     // of exit statuses that say which key is in use
constexpr std::chrono::milliseconds kGrace{2000};  // from SIGTERM to SIGKILL

Error Failed(const char* step, int error_number) {
  return ErrnoError(ErrorCode::kDestinationCommand, Action::kCheckSystemState,
                    fmt::format("the command could not be started ({})", step),
                    "check that /bin/sh is there and that processes can be started", error_number);
}

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// StartTime is the process's start in clock ticks since boot (proc(5), stat, field 22), or "".
std::string StartTime(pid_t pid) {
  std::string line = FirstLine(fmt::format("/proc/{}/stat", pid));
  const std::size_t name_end = line.rfind(')');  // the name may hold anything
  if (name_end == std::string::npos) return "";
  std::size_t at = name_end + 1;
  for (int field = 3; field <= 22; ++field) {
    at = line.find_first_not_of(' ', at);
    if (at == std::string::npos) return "";
    const std::size_t end = std::min(line.find(' ', at), line.size());
    if (field == 22) return line.substr(at, end - at);
    if (field == 3 && line[at] == 'Z') return "";  // it is dead, and not yet buried
    at = end;
  }
  return "";
}

class Pipe {
 public:
  Pipe() = default;
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    for (const int end : ends_) {
      if (end >= 0) close(end);
    }
  }
  // Open gives both ends numbers above those that the command will know.
  int Open() {
    std::array<int, 2> low{};
    if (pipe2(low.data(), O_CLOEXEC) != 0) return errno;
    int error_number = 0;
    for (std::size_t i = 0; i < low.size(); ++i) {
      ends_[i] = fcntl(low[i], F_DUPFD_CLOEXEC, kNewKeyFd + 1);
      if (ends_[i] < 0) error_number = errno;
      close(low[i]);
    }
    return error_number;
  }
  int reader() const { return ends_[0]; }
  int TakeWriter() { return std::exchange(ends_[1], -1); }

 private:
  std::array<int, 2> ends_ = {-1, -1};
};

// RunChild is the child between fork and exec: async-signal-safe calls alone.
[[noreturn]] void RunChild(const std::array<int, 3>& readers, const std::array<int, 3>& writers,
                           char* const* arguments, char* const* environment) {
  setpgid(0, 0);
  for (const int writer : writers) close(writer);
  char go = 0;
  ssize_t got = 0;
  do {
    got = read(readers[0], &go, 1);
  } while (got < 0 && errno == EINTR);
  if (got != 1) _exit(125);  // who was to say it is gone: nothing ran
  const int nothing = open("/dev/null", O_RDONLY);
  if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0 ||
      dup2(readers[1], kOldKeyFd) < 0 || dup2(readers[2], kNewKeyFd) < 0) {
    _exit(126);
  }
  close_range(kNewKeyFd + 1, ~0U, 0);
  for (int signal_number = 1; signal_number < NSIG; ++signal_number) {
    signal(signal_number, SIG_DFL);
  }
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  execve("/bin/sh", arguments, environment);
  _exit(127);
}

struct Feed {
  int fd = -1;
  ByteView left;
};

// WriteSome feeds a pipe; closes it once all is in, or nobody reads.
void WriteSome(Feed& feed) {
  while (!feed.left.empty()) {
    const ssize_t written = write(feed.fd, feed.left.data(), feed.left.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) return;
    if (written < 0) break;
    feed.left = feed.left.subspan(static_cast<std::size_t>(written));
  }
  close(feed.fd);
  feed.fd = -1;
}

// HeldSignals: what would end this process is read from `fd` meanwhile, and SIGCHLD, which tells of
// a command that was stopped. What is ignored (nohup) stays ignored.
class HeldSignals {
 public:
  HeldSignals() {
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGCHLD);
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
      struct sigaction action {};
      sigaction(number, nullptr, &action);
      if (action.sa_handler != SIG_IGN) sigaddset(&held, number);
    }
    pthread_sigmask(SIG_BLOCK, &held, &before_);
    fd_ = signalfd(-1, &held, SFD_NONBLOCK | SFD_CLOEXEC);
  }
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;
  ~HeldSignals() {
    if (fd_ >= 0) close(fd_);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  int fd() const { return fd_; }
  // Take returns the first of those that end this process, or 0.
  int Take() const {
    int taken = 0;
    signalfd_siginfo info{};
    while (fd_ >= 0 && read(fd_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      if (taken == 0 && info.ssi_signo != SIGCHLD) taken = static_cast<int>(info.ssi_signo);
    }
    return taken;
  }

 private:
  sigset_t before_{};
  int fd_ = -1;
};

// WantsTerminal: the terminal's driver stopped it, since it is in no foreground group.
bool WantsTerminal(pid_t pid) {
  siginfo_t info{};
  constexpr int kOptions = WSTOPPED | WNOHANG;
  if (waitid(P_PID, static_cast<id_t>(pid), &info, kOptions) != 0 || info.si_pid == 0) return false;
  return info.si_status == SIGTTIN || info.si_status == SIGTTOU;
}

std::string HowItEnded(int status) {
  if (WIFSIGNALED(status)) return fmt::format("it was killed by signal {}", WTERMSIG(status));
  if (WEXITSTATUS(status) == 0) return "";
  return fmt::format("its exit status was {}", WEXITSTATUS(status));
}

}  // namespace

std::string ProcessName(pid_t pid) {
  return fmt::format("{} {} {}", FirstLine("/proc/sys/kernel/random/boot_id"), pid, StartTime(pid));
}

Result<ApplyCommand> ApplyCommand::Start(const ApplyRequest& request) {
  std::array<Pipe, 3> pipes;  // go, old key, new key
  for (Pipe& pipe : pipes) {
    if (const int error_number = pipe.Open(); error_number != 0)
      return Failed("pipe", error_number);
  }
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string_view text(*variable);
    const bool is_ours = text.starts_with("KEYESCROW_KEY=") || text.starts_with("KEYESCROW_OLD_") ||
                         text.starts_with("KEYESCROW_NEW_");
    if (!is_ours) variables.emplace_back(text);
  }
  variables.push_back(fmt::format("KEYESCROW_OLD_KEY_FD={}", kOldKeyFd));
  variables.push_back(fmt::format("KEYESCROW_NEW_KEY_FD={}", kNewKeyFd));
  variables.push_back("KEYESCROW_KEY=" + request.key_name);
  variables.push_back(fmt::format("KEYESCROW_OLD_VERSION={}", request.old_version));
  variables.push_back(fmt::format("KEYESCROW_NEW_VERSION={}", request.new_version));
  std::vector<char*> environment;
  for (std::string& variable : variables) environment.push_back(variable.data());
  environment.push_back(nullptr);
  std::string shell = "sh", option = "-c", script = request.command;
  char* const arguments[] = {shell.data(), option.data(), script.data(), nullptr};

  ApplyCommand command;
  command.timeout_ = request.timeout;
  command.go_ = pipes[0].TakeWriter();
  command.old_key_ = pipes[1].TakeWriter();
  command.new_key_ = pipes[2].TakeWriter();
  command.pid_ = fork();
  if (command.pid_ < 0) return Failed("fork", errno);
  if (command.pid_ == 0) {
    RunChild({pipes[0].reader(), pipes[1].reader(), pipes[2].reader()},
             {command.go_, command.old_key_, command.new_key_}, arguments, environment.data());
  }
  setpgid(command.pid_, command.pid_);  // whoever is first
  command.process_ = ProcessName(command.pid_);
  command.child_ = static_cast<int>(syscall(SYS_pidfd_open, command.pid_, 0));
  if (command.child_ < 0) return Failed("pidfd_open", errno);
  return command;
}

ApplyCommand::ApplyCommand(ApplyCommand&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      child_(std::exchange(other.child_, -1)),
      go_(std::exchange(other.go_, -1)),
      old_key_(std::exchange(other.old_key_, -1)),
      new_key_(std::exchange(other.new_key_, -1)),
      timeout_(other.timeout_),
      process_(std::move(other.process_)) {}

ApplyCommand::~ApplyCommand() {
  CloseAll();
  if (pid_ <= 0) return;
  // It waits for the word that will not come, and ends by itself.
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

void ApplyCommand::CloseAll() {
  for (int* fd : {&go_, &old_key_, &new_key_, &child_}) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
  }
}

ApplyOutcome ApplyCommand::Run(const SecretBytes& old_key, const SecretBytes& new_key) {
  struct sigaction ignore {};
  struct sigaction before {};
  ignore.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &ignore, &before);
  std::array<Feed, 2> feeds = {Feed{std::exchange(old_key_, -1), old_key.Expose()},
                               Feed{std::exchange(new_key_, -1), new_key.Expose()}};
  for (Feed& feed : feeds) {
    feed.left = FillPipe(feed.fd, feed.left);
    fcntl(feed.fd, F_SETFL, O_NONBLOCK);
  }
  const HeldSignals held;
  const bool started = write(go_, "g", 1) == 1;
  close(std::exchange(go_, -1));
  ApplyOutcome outcome;
  int status = 0;
  bool ended = false;
  bool timed_out = false;
  std::string ended_for;  // why it was told to end, where that was not the time
  auto limit = std::chrono::steady_clock::now() + timeout_;
  int next_signal = SIGTERM;
  const pid_t group = pid_;
  while (started && !ended) {
    for (Feed& feed : feeds) {
      if (feed.fd >= 0) WriteSome(feed);
    }
    std::array<pollfd, 4> waits = {pollfd{child_, POLLIN, 0}, pollfd{feeds[0].fd, POLLOUT, 0},
                                   pollfd{feeds[1].fd, POLLOUT, 0}, pollfd{held.fd(), POLLIN, 0}};
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(limit - std::chrono::steady_clock::now());
    const int wait_ms = static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 3'600'000));
    const int ready = poll(waits.data(), waits.size(), wait_ms);
    if (ready < 0 && errno != EINTR) break;
    if (ready > 0 && (waits[0].revents & POLLIN) != 0) {
      ended = waitpid(pid_, &status, 0) == pid_;
      if (ended) pid_ = -1;
      break;
    }
    if (ready > 0 && (waits[3].revents & POLLIN) != 0 && ended_for.empty() && !timed_out) {
      outcome.interrupted_by = held.Take();
      if (outcome.interrupted_by != 0) {
        ended_for =
            fmt::format("it was ended by signal {}, which keyescrow got", outcome.interrupted_by);
      } else if (WantsTerminal(pid_)) {
        ended_for = "it wanted the terminal, which a command does not have, and was ended";
      }
      if (!ended_for.empty()) {
        kill(-group, next_signal);
        kill(-group, SIGCONT);  // what is stopped takes no signal but this one
        next_signal = SIGKILL;
        limit = std::chrono::steady_clock::now() + kGrace;
      }
      continue;
    }
    static_cast<void>(held.Take());
    if (std::chrono::steady_clock::now() < limit) continue;
    timed_out = ended_for.empty();
    kill(-group, next_signal);
    next_signal = SIGKILL;
    limit += kGrace;
  }
  // One that came too late to end it counts once the rotation is settled.
  if (outcome.interrupted_by == 0) outcome.interrupted_by = held.Take();
  // What the command left in its group goes with it when the time was over.
  if (started && (timed_out || !ended_for.empty() || !ended)) kill(-group, SIGKILL);
  for (Feed& feed : feeds) {
    if (feed.fd >= 0) close(feed.fd);
  }
  sigaction(SIGPIPE, &before, nullptr);
  if (!started) {
    outcome.failure = "it was ended before it began";
    outcome.gave_word = true;
    return outcome;
  }
  outcome.failure = ended ? HowItEnded(status) : "its exit status was lost";
  outcome.gave_word = ended && !timed_out && WIFEXITED(status) && WEXITSTATUS(status) <= kLastWord;
  if (timed_out) {
    outcome.failure =
        fmt::format("it did not end within {} s",
                    std::chrono::duration_cast<std::chrono::seconds>(timeout_).count());
  }
  if (!ended_for.empty() && !outcome.failure.empty()) outcome.failure = ended_for;
  return outcome;
}

bool StillRuns(const std::string& process) {
  const std::size_t space = process.find(' ');
  if (space == std::string::npos) return false;
  pid_t pid = 0;
  std::from_chars(process.data() + space + 1, process.data() + process.size(), pid);
  return pid > 0 && !StartTime(pid).empty() && ProcessName(pid) == process;
}

}  // namespace keyescrow::agent
