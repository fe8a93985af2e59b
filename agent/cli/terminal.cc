#include "agent/cli/terminal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "agent/cli/render.h"

namespace keyescrow::agent {
namespace {

// WriteAll returns 0, or the errno of the write that failed.
int WriteAll(int fd, const char* bytes, std::size_t size) {
  while (size > 0) {
    const ssize_t written = write(fd, bytes, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    bytes += written;
    size -= static_cast<std::size_t>(written);
  }
  return 0;
}

// Standard error has nobody to tell of its own failure.
void WriteMessage(int fd, const std::string& text) { WriteAll(fd, text.data(), text.size()); }

bool WantsColor(ColorMode mode, bool is_terminal) {
  if (mode != ColorMode::kAuto) return mode == ColorMode::kAlways;
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  return is_terminal && (no_color == nullptr || *no_color == '\0') && term != nullptr &&
         std::strcmp(term, "dumb") != 0;
}

std::string Paint(bool colored, Color color, std::string_view text) {
  if (!colored) return std::string(text);
  constexpr std::array<std::string_view, 5> kCodes = {"31", "33", "32", "1", "2"};
  return fmt::format("\x1b[{}m{}\x1b[0m", kCodes[static_cast<std::size_t>(color)], text);
}

}  // namespace

Status PrepareProcess() {
  for (int fd = 0; fd <= 2; ++fd) {
    if (fcntl(fd, F_GETFD) != -1) continue;
    // The lowest free descriptor is `fd`, since those below are open. Only to be read: what is
    // written to a closed stream is not delivered, and fails as it would have.
    if (open("/dev/null", O_RDONLY) != fd) {
      return ErrnoError(ErrorCode::kUsage, Action::kCheckSystemState,
                        "a standard stream is closed, and /dev/null cannot be opened in its place",
                        "start keyescrow with standard input, output and error open", errno);
    }
  }
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a write that fails says why, and tidies up
  signal(SIGCHLD, SIG_DFL);  // ignored by the caller, it would take every command's exit status
  return Ok();
}

Terminal::Terminal(const GlobalOptions& global, int out_fd, int err_fd)
    : out_fd_(out_fd),
      err_fd_(err_fd),
      json_(global.json),
      quiet_(global.quiet),
      trace_(global.trace),
      out_is_terminal_(isatty(out_fd) == 1),
      err_is_terminal_(isatty(err_fd) == 1),
      out_colored_(!global.json && WantsColor(global.color, out_is_terminal_)),
      err_colored_(!global.json && WantsColor(global.color, err_is_terminal_)) {}

Status Terminal::Write(const char* bytes, std::size_t size, bool reader_may_leave) const {
  const int error_number = WriteAll(out_fd_, bytes, size);
  if (error_number == 0 || (error_number == EPIPE && reader_may_leave)) return Ok();
  const bool full = error_number == ENOSPC || error_number == EDQUOT;
  return ErrnoError(
      full ? ErrorCode::kDestinationFull : ErrorCode::kDestinationUnwritable,
      Action::kCheckSystemState, "cannot write to standard output",
      full ? "free some space where standard output goes" : "check where standard output goes",
      error_number);
}

Status Terminal::WriteResult(std::string_view text) {
  return Write(text.data(), text.size(), true);
}

Status Terminal::CheckBinaryOutput() const {
  if (!out_is_terminal_) return Ok();
  return Error(ErrorCode::kBinaryToTerminal, Action::kFixInput,
               "standard output is a terminal, and binary output to a terminal is refused",
               "name a file, or send standard output to a file or a pipe");
}

Status Terminal::WriteBinary(ByteView bytes) {
  RETURN_IF_ERROR(CheckBinaryOutput());
  return Write(AsText(bytes).data(), bytes.size(), false);
}

void Terminal::Note(std::string_view text) {
  if (quiet_ || json_) return;
  WriteMessage(err_fd_, EscapeForTerminal(text) + "\n");
}

void Terminal::Warn(std::string_view text) {
  if (json_) return;
  WriteMessage(err_fd_,
               PaintNote(Color::kYellow, "warning:") + " " + EscapeForTerminal(text) + "\n");
}

void Terminal::Trace(std::string_view text) {
  if (!traces()) return;
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin_;
  WriteMessage(err_fd_, fmt::format("{} {:6.3f} s  {}\n", PaintNote(Color::kDim, "trace:"),
                                    elapsed.count(), EscapeForTerminal(text)));
}

void Terminal::PrintError(const Error& error) {
  if (json_) {
    Json fields;
    fields["code"] = ErrorCodeName(error.code());
    fields["action"] = ActionName(error.action());
    fields["failure"] = nullptr;
    if (error.failure() != Failure::kNone) fields["failure"] = FailureName(error.failure());
    fields["message"] = error.message();
    fields["hint"] = error.hint();
    Json document;
    document["error"] = std::move(fields);
    WriteMessage(err_fd_, DumpDocument(document));
    return;
  }
  std::string text =
      PaintNote(Color::kRed, "error:") + " " + EscapeForTerminal(error.message()) + "\n";
  if (!error.hint().empty()) {
    text += PaintNote(Color::kBold, "hint:") + " " + EscapeForTerminal(error.hint()) + "\n";
  }
  if (trace_ && !error.native_domain().empty()) {
    text += fmt::format("native: {} {:#x}\n", EscapeForTerminal(error.native_domain()),
                        error.native_code());
  }
  WriteMessage(err_fd_, text);
}

std::string Terminal::PaintResult(Color color, std::string_view text) const {
  return Paint(out_colored_, color, text);
}

std::string Terminal::PaintNote(Color color, std::string_view text) const {
  return Paint(err_colored_, color, text);
}

}  // namespace keyescrow::agent
