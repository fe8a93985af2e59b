#include "agent/key_locations/command_location.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "agent/key_locations/stream.h"

namespace keyescrow::agent {
namespace {

enum class Direction { kFromChild, kToChild };

struct Child {
  pid_t pid = -1;
  int fd = -1;      // our end of the pipe
  int reader = -1;  // a second one of the child's end, where the pipe holds the whole key
};

// Spawn starts the shell: 0 or an errno. `input` is for the child, and becomes what the pipe did
// not take before it began. The child gets the default reaction to signals that we ignore, an empty
// signal mask and no descriptor above 2: those of --password-fd and --pin-fd came to us without
// close-on-exec.
int Spawn(const std::string& command, Direction direction, Child* child, ByteView* input) {
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) return errno;
  const bool from_child = direction == Direction::kFromChild;
  const int ours = from_child ? pipe_fds[0] : pipe_fds[1];
  const int theirs = from_child ? pipe_fds[1] : pipe_fds[0];

  if (!from_child) *input = FillPipe(ours, *input);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (from_child) {
    posix_spawn_file_actions_adddup2(&actions, theirs, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  } else {
    posix_spawn_file_actions_adddup2(&actions, theirs, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  }
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  sigaddset(&signals, SIGPIPE);
  sigaddset(&signals, SIGXFSZ);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  std::string shell = "sh", option = "-c", text = command;
  char* const arguments[] = {shell.data(), option.data(), text.data(), nullptr};
  const int result = posix_spawn(&child->pid, "/bin/sh", &actions, &attributes, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  // Of a longer key, which is written while it is read, a reader that ends early is told by EPIPE.
  if (!from_child && result == 0 && input->empty()) {
    child->reader = fcntl(theirs, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  }
  close(theirs);
  if (result != 0) {
    close(ours);
    return result;
  }
  child->fd = ours;
  return 0;
}

// IsLeft tells whether the pipe still holds some of what was written, and closes it.
bool IsLeft(int reader) {
  if (reader < 0) return false;
  int num_bytes = 0;
  const bool is_left = ioctl(reader, FIONREAD, &num_bytes) == 0 && num_bytes > 0;
  close(reader);
  return is_left;
}

// Outcome waits for the child: "" for exit status 0, else how it ended.
std::string Outcome(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return "its exit status was lost";
  }
  if (WIFSIGNALED(status)) return fmt::format("it was killed by signal {}", WTERMSIG(status));
  if (WEXITSTATUS(status) == 0) return "";
  return fmt::format("its exit status was {}", WEXITSTATUS(status));
}

class CommandLocation final : public KeyLocation {
 public:
  explicit CommandLocation(std::string command) : command_(std::move(command)) {}

  Result<SecretBytes> Read() override {
    Child child;
    if (const int result = Spawn(command_, Direction::kFromChild, &child, nullptr); result != 0) {
      return CannotStart(ErrorCode::kSourceCommand, result);
    }
    auto key = ReadKey(child.fd, "the output of '" + command_ + "'");
    close(child.fd);  // a child that has more to say gets SIGPIPE
    if (!key && key.error().code() != ErrorCode::kSourceSize) kill(child.pid, SIGKILL);
    const std::string failure = Outcome(child.pid);
    if (!key) return key;
    if (!failure.empty()) return Failed(ErrorCode::kSourceCommand, failure);
    if (key->empty()) return KeySizeError("the output of '" + command_ + "'", true);
    return key;
  }

  Status CheckWritable() override { return Ok(); }

  Result<WriteOutcome> Write(const SecretBytes& key, const WriteOptions&) override {
    Child child;
    ByteView input = key.Expose();
    if (const int result = Spawn(command_, Direction::kToChild, &child, &input); result != 0) {
      return CannotStart(ErrorCode::kDestinationCommand, result);
    }
    const int result = WritePipe(child.fd, input);
    close(child.fd);
    const std::string failure = Outcome(child.pid);
    const bool is_left = IsLeft(child.reader);
    if (!failure.empty()) return Failed(ErrorCode::kDestinationCommand, failure);
    if (result != 0 || is_left) {
      return Failed(ErrorCode::kDestinationCommand, "it ended before it had read the whole key");
    }
    return WriteOutcome{.written = true};
  }

  std::string Describe() const override { return "exec:" + command_; }

 private:
  Error Failed(ErrorCode code, const std::string& how) const {
    return Error(code, Action::kCheckSystemState,
                 fmt::format("the command '{}' failed: {}", command_, how),
                 "run it by hand; what it printed to standard error stands above");
  }
  Error CannotStart(ErrorCode code, int error_number) const {
    return ErrnoError(
        code, Action::kCheckSystemState, fmt::format("cannot start '/bin/sh -c {}'", command_),
        "check that /bin/sh is there and that processes can be started", error_number);
  }

  std::string command_;
};

}  // namespace

std::unique_ptr<KeyLocation> MakeCommandLocation(std::string command) {
  return std::make_unique<CommandLocation>(std::move(command));
}

}  // namespace keyescrow::agent
