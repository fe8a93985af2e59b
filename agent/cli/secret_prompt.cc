#include "agent/cli/secret_prompt.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "agent/cli/interrupts.h"
#include "agent/cli/patient_prompt.h"
#include "agent/cli/terminal_text.h"

namespace keyescrow::agent {
namespace {

// SIGALRM: of a wrapper that sets an alarm and execs.
constexpr std::array kSignals = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT,
                                 SIGALRM, SIGTSTP, SIGTTIN, SIGTTOU};

volatile sig_atomic_t caught_signal = 0;
void Catch(int signal_number) { caught_signal = signal_number; }

void Write(int fd, std::string_view text) {
  [[maybe_unused]] const ssize_t written = write(fd, text.data(), text.size());
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// SignalGuard gives the signals that end or stop the process a handler that only takes note, and
// blocks them: they get through in ppoll alone, so none is missed between a check and the wait.
// SIGTTIN and SIGTTOU are not blocked, since the terminal's driver sends them anew for each call of
// a background process, and lets it do what it should not where they are blocked.
class SignalGuard {
 public:
  SignalGuard() {
    caught_signal = 0;
    sigset_t blocked;
    sigemptyset(&blocked);
    struct sigaction note {};
    note.sa_handler = Catch;
    sigemptyset(&note.sa_mask);
    for (std::size_t index = 0; index < kSignals.size(); ++index) {
      const bool from_terminal = kSignals[index] == SIGTTIN || kSignals[index] == SIGTTOU;
      if (!from_terminal) sigaddset(&blocked, kSignals[index]);
      sigaction(kSignals[index], nullptr, &actions_[index]);
      // What is ignored (nohup) stays ignored.
      if (actions_[index].sa_handler != SIG_IGN) sigaction(kSignals[index], &note, nullptr);
    }
    pthread_sigmask(SIG_BLOCK, &blocked, &mask_);
  }
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;
  ~SignalGuard() {
    for (std::size_t index = 0; index < kSignals.size(); ++index) {
      sigaction(kSignals[index], &actions_[index], nullptr);
    }
    pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
  }
  const sigset_t& mask_outside() const { return mask_; }

 private:
  std::array<struct sigaction, kSignals.size()> actions_{};
  sigset_t mask_{};
};

// What makes of an answer something else than was typed, which is no password on another terminal.
// A getty sets such modes, by its options or by what it takes the line for.
constexpr tcflag_t kChangesInput = ISTRIP | IUCLC | INLCR | IGNCR;

// ModeGuard sets lines as a whole, with or without echo, and restores the mode that it found.
class ModeGuard {
 public:
  ModeGuard(int fd, bool echo) : fd_(fd) {
    if (tcgetattr(fd, &before_) != 0) return;
    termios mode = before_;
    mode.c_lflag |= ICANON | ISIG;
    mode.c_iflag &= ~kChangesInput;
    mode.c_iflag |= ICRNL | IUTF8;
    if (echo) {
      mode.c_lflag |= ECHO;
    } else {
      mode.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHOE | ECHOK | ECHONL);
    }
    // TCSAFLUSH drops what was typed before the question.
    is_set_ = tcsetattr(fd, TCSAFLUSH, &mode) == 0;
  }
  ModeGuard(const ModeGuard&) = delete;
  ModeGuard& operator=(const ModeGuard&) = delete;
  ~ModeGuard() {
    if (is_set_) tcsetattr(fd_, TCSAFLUSH, &before_);
  }
  bool is_set() const { return is_set_; }

 private:
  int fd_;
  termios before_{};
  bool is_set_ = false;
};

Error Unreadable(std::string message, std::string_view remedy) {
  return Error(ErrorCode::kSecretSourceUnreadable, Action::kFixInput, std::move(message),
               std::string(remedy));
}

enum class LineEnd : std::uint8_t { kLine, kEndOfInput, kTooLong, kInterrupted, kFailed, kSeen };

using Look = std::function<bool()>;

struct LineRead {
  LineEnd end;
  std::size_t size = 0;
};

// ReadLine fills `buffer` up to and without the line feed; kSeen once `look`, if any, is true.
LineRead ReadLine(int fd, std::span<std::uint8_t> buffer, const sigset_t& mask, const Look* look) {
  const timespec period{kLookPeriodMs / 1000, kLookPeriodMs % 1000 * 1000000L};
  std::size_t size = 0;
  while (true) {
    pollfd waiting{.fd = fd, .events = POLLIN, .revents = 0};
    const int ready = ppoll(&waiting, 1, look != nullptr ? &period : nullptr, &mask);
    if (caught_signal != 0) return {LineEnd::kInterrupted};
    if (ready == 0) {
      if ((*look)()) return {LineEnd::kSeen};
      continue;
    }
    if (ready < 0 && errno == EINTR) continue;
    if (ready < 0) return {LineEnd::kFailed};
    if (size == buffer.size()) {
      tcflush(fd, TCIFLUSH);
      return {LineEnd::kTooLong};
    }
    const ssize_t got = read(fd, buffer.data() + size, buffer.size() - size);
    if (caught_signal != 0) return {LineEnd::kInterrupted};
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return {errno == EIO ? LineEnd::kEndOfInput : LineEnd::kFailed};
    if (got == 0) return {LineEnd::kEndOfInput};
    size += static_cast<std::size_t>(got);
    if (buffer[size - 1] == '\n') return {LineEnd::kLine, size - 1};
  }
}

// AskOn asks once on an open terminal. After a stop and a continue it asks again; after any other
// signal it delivers that signal, with the terminal as it was found. With `look` nothing is
// returned once that is true, and after a stop.
Result<std::optional<SecretBytes>> AskOn(int fd, std::string_view label, bool echo,
                                         std::string_view remedy, const Look* look) {
  while (true) {
    if (InterruptsAreKept() && TakeInterrupt()) return Interrupted();
    ASSIGN_OR_RETURN(SecretBytes line, SecretBytes::Allocate(SecretPrompt::kMaxSecretBytes + 1));
    LineRead result{LineEnd::kFailed};
    {
      const SignalGuard signals;
      const ModeGuard mode(fd, echo);
      if (caught_signal != 0) {
        result.end = LineEnd::kInterrupted;
      } else if (!mode.is_set()) {
        return Unreadable("the terminal's echo cannot be turned off", remedy);
      } else {
        Write(fd, EscapeForTerminal(label) + ": ");
        result = ReadLine(fd, line.ExposeMutable(), signals.mask_outside(), look);
        if (!echo || result.end != LineEnd::kLine) Write(fd, "\n");
      }
    }
    switch (result.end) {
      case LineEnd::kLine: line.Truncate(result.size); return std::optional(std::move(line));
      case LineEnd::kSeen: return std::optional<SecretBytes>();
      case LineEnd::kEndOfInput: return Unreadable("the input ended before an answer", remedy);
      case LineEnd::kTooLong:
        return Unreadable(
            "the answer is longer than " + std::to_string(SecretPrompt::kMaxSecretBytes) + " bytes",
            "type a shorter one");
      case LineEnd::kFailed: return Unreadable("the terminal cannot be read", remedy);
      case LineEnd::kInterrupted: {
        const int signal_number = caught_signal;
        if (signal_number == SIGINT && InterruptsAreKept()) return Interrupted();
        kill(getpid(), signal_number);
        const bool stopped =
            signal_number == SIGTSTP || signal_number == SIGTTIN || signal_number == SIGTTOU;
        if (stopped && look != nullptr) return std::optional<SecretBytes>();
        if (stopped) continue;
        return Unreadable("interrupted", "run the command again");
      }
    }
  }
}

}  // namespace

SecretPrompt::SecretPrompt(bool no_input, const char* device, bool terminal_only)
    : no_input_(no_input), device_(device), terminal_only_(terminal_only) {}

bool SecretPrompt::available() const {
  if (no_input_) return false;
  const Descriptor terminal(open(device_, O_RDWR | O_NOCTTY | O_CLOEXEC));
  return terminal.get() >= 0 && isatty(terminal.get()) == 1;
}

Result<SecretBytes> SecretPrompt::AskOnce(std::string_view label, bool echo,
                                          std::string_view remedy) {
  const Descriptor terminal(no_input_ ? -1 : open(device_, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (terminal.get() < 0 || isatty(terminal.get()) != 1) {
    return Error(
        ErrorCode::kSecretSourceMissing, Action::kFixInput,
        (no_input_ ? "--no-input forbids to ask for the " : "no terminal to ask for the ") +
            std::string(label),
        std::string(remedy));
  }
  ASSIGN_OR_RETURN(std::optional<SecretBytes> line,
                   AskOn(terminal.get(), label, echo, remedy, nullptr));
  return std::move(*line);
}

Result<SecretBytes> SecretPrompt::Ask(std::string_view label, std::string_view remedy) {
  ASSIGN_OR_RETURN(SecretBytes secret, AskOnce(label, false, remedy));
  if (secret.empty()) return Unreadable("the " + std::string(label) + " is empty", "type it");
  return secret;
}

Result<SecretBytes> SecretPrompt::AskMaybe(std::string_view label, std::string_view remedy) {
  return AskOnce(label, false, remedy);
}

Result<SecretBytes> SecretPrompt::AskNew(std::string_view label, std::string_view remedy) {
  for (int mismatches = 0; mismatches < kMaxMismatches; ++mismatches) {
    ASSIGN_OR_RETURN(SecretBytes first, Ask(label, remedy));
    ASSIGN_OR_RETURN(const SecretBytes second,
                     AskOnce(std::string(label) + ", once more", false, remedy));
    if (first.EqualsConstantTime(second)) return first;
    Tell("the two differ");
  }
  return Unreadable("the " + std::string(label) + " was not typed twice alike",
                    "run the command again");
}

Result<std::string> SecretPrompt::AskLine(std::string_view label, std::string_view remedy) {
  ASSIGN_OR_RETURN(const SecretBytes line, AskOnce(label, true, remedy));
  return std::string(AsText(line.Expose()));
}

Result<std::optional<SecretBytes>> AskLinePatiently(const char* device, std::string_view label,
                                                    const Look& look) {
  constexpr std::string_view kRemedy = "run the command on a terminal";
  const Descriptor terminal(open(device, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (terminal.get() < 0 || isatty(terminal.get()) != 1) {
    return Error(ErrorCode::kSecretSourceMissing, Action::kFixInput, "the terminal is gone",
                 std::string(kRemedy));
  }
  return AskOn(terminal.get(), label, true, kRemedy, &look);
}

void SecretPrompt::Tell(std::string_view line) { TellLines(EscapeForTerminal(line) + "\n"); }

void SecretPrompt::TellLines(std::string_view text) {
  const Descriptor terminal(no_input_ ? -1 : open(device_, O_WRONLY | O_NOCTTY | O_CLOEXEC));
  if (terminal.get() < 0 && terminal_only_) return;
  Write(terminal.get() >= 0 ? terminal.get() : STDERR_FILENO, EscapeLinesForTerminal(text));
}

}  // namespace keyescrow::agent
