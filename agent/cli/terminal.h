// Rules for output, which every command keeps:
//  1. Results go to standard output, everything else (notes, warnings, errors, progress, questions)
//     to standard error or the terminal itself. `keyescrow list | wc -l` counts keys only.
//  2. An error is two lines, "error: …" (the cause) and "hint: …" (the remedy), lower case, without
//     a full stop. With --json it is one document on standard error, and nothing else is.
//  3. Binary output to a terminal is refused.
//  4. Text that came from outside (names, labels, notes, device strings, paths) is escaped before
//  it
//     reaches a terminal: EscapeForTerminal. Errors are escaped here, whatever they quote.
//  5. Colours: --color always or never decides; auto means a terminal, no NO_COLOR, and a TERM that
//     is not "dumb". Nothing is said by colour alone.
//  6. --quiet silences notes and progress, never warnings, errors or results. --json silences
//     notes, warnings and progress: the document carries them.
//  7. No secret is ever written here, but a restored key that was asked for on standard output.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "agent/cli/options.h"
#include "agent/cli/terminal_text.h"
#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent {

// PrepareProcess makes descriptors 0, 1 and 2 open (on /dev/null where they were closed, so that no
// file opened later is taken for one of them) and ignores SIGPIPE. The first call of main.
Status PrepareProcess();

enum class Color : std::uint8_t { kRed, kYellow, kGreen, kBold, kDim };

class Terminal {
 public:
  explicit Terminal(const GlobalOptions& global, int out_fd = 1, int err_fd = 2);

  bool json() const { return json_; }
  bool quiet() const { return quiet_; }
  bool out_is_terminal() const { return out_is_terminal_; }
  bool err_is_terminal() const { return err_is_terminal_; }
  // shows_progress: a spinner may be drawn on err_fd.
  bool shows_progress() const { return err_is_terminal_ && !quiet_ && !json_; }
  int err_fd() const { return err_fd_; }

  // WriteResult writes all of `text` (rendered, so already escaped) to standard output.
  // Errors: kDestinationUnwritable, kDestinationFull. A reader that went away (EPIPE) is no error.
  Status WriteResult(std::string_view text);

  // WriteBinary writes bytes to standard output. Errors: kBinaryToTerminal where that is a
  // terminal, else as WriteResult, but here EPIPE is an error.
  Status WriteBinary(ByteView bytes);

  // CheckBinaryOutput tells before the work is done what WriteBinary would refuse.
  Status CheckBinaryOutput() const;

  void Note(std::string_view text);     // one line, escaped here
  void Warn(std::string_view text);     // "warning: …", escaped here
  void PrintError(const Error& error);  // rule 2
  // Trace tells a step with the time since the command began, with --trace and without --json.
  // `text` holds no secret; it is escaped here.
  void Trace(std::string_view text);
  bool traces() const { return trace_ && !json_; }

  // PaintResult and PaintNote wrap `text` in a colour where standard output, or standard error,
  // takes colours; else they return it unchanged.
  std::string PaintResult(Color color, std::string_view text) const;
  std::string PaintNote(Color color, std::string_view text) const;

 private:
  Status Write(const char* bytes, std::size_t size, bool reader_may_leave) const;

  int out_fd_;
  int err_fd_;
  bool json_;
  bool quiet_;
  bool trace_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  bool out_is_terminal_;
  bool err_is_terminal_;
  bool out_colored_;
  bool err_colored_;
};

}  // namespace keyescrow::agent
