#include "agent/cli/terminal.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "agent/cli/exit_code.h"
#include "agent/cli/spinner.h"

namespace keyescrow::agent {
namespace {

// Output runs `write` with a terminal whose standard error is a pipe, and returns what it got.
template <typename Function>
std::string ErrorOutput(const GlobalOptions& global, Function write) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  Terminal terminal(global, 1, ends[1]);
  write(terminal);
  close(ends[1]);
  std::string text(65536, '\0');
  const ssize_t size = read(ends[0], text.data(), text.size());
  close(ends[0]);
  text.resize(static_cast<std::size_t>(std::max<ssize_t>(0, size)));
  return text;
}

TEST(TerminalText, EscapesWhatATerminalWouldObey) {
  EXPECT_EQ(EscapeForTerminal("plain Grüße 鍵"), "plain Grüße 鍵");
  EXPECT_EQ(EscapeForTerminal("a\x1b]0;title\x07"), "a\\x1b]0;title\\x07");
  EXPECT_EQ(EscapeForTerminal("a\nb\tc\rd"), "a\\nb\\tc\\rd");
  EXPECT_EQ(EscapeLinesForTerminal("a\nb\rc"), "a\nb\\rc");
  EXPECT_EQ(EscapeForTerminal("\xc2\x9b"
                              "2J"),
            "\\u{9b}2J");  // C1: CSI
  EXPECT_EQ(EscapeForTerminal("\x9b"
                              "2J"),
            "\\x9b2J");                                             // the same, raw
  EXPECT_EQ(EscapeForTerminal("\xe2\x80\xaegnp"), "\\u{202e}gnp");  // right-to-left override
  EXPECT_EQ(EscapeForTerminal("a\xe2\x80\x8b"
                              "b"),
            "a\\u{200b}b");                                         // zero-width space
  EXPECT_EQ(EscapeForTerminal("\xf3\xa0\x81\xa1"), "\\u{e0061}");   // a tag character
  EXPECT_EQ(EscapeForTerminal("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // a surrogate
  EXPECT_EQ(EscapeForTerminal("\xc0\xaf"), "\\xc0\\xaf");           // overlong
  EXPECT_EQ(EscapeForTerminal("\xf4\x90\x80\x80"), "\\xf4\\x90\\x80\\x80");
  EXPECT_EQ(EscapeForTerminal("\xe2\x82"), "\\xe2\\x82");  // cut short
  EXPECT_EQ(EscapeForTerminal(std::string_view("\0", 1)), "\\x00");
}

TEST(Terminal, PrintsAnErrorInTwoLines) {
  const Error error(ErrorCode::kWrongPassword, Action::kReauthenticate, "wrong \x1b[31m one",
                    "try\nagain");
  EXPECT_EQ(ErrorOutput({}, [&](Terminal& terminal) { terminal.PrintError(error); }),
            "error: wrong \\x1b[31m one\nhint: try\\nagain\n");
}

TEST(Terminal, PrintsAnErrorAsOneDocument) {
  GlobalOptions global;
  global.json = true;
  global.color = ColorMode::kAlways;
  const auto document_of = [&](const Error& error) {
    return nlohmann::json::parse(ErrorOutput(global, [&](Terminal& terminal) {
      terminal.Note("nothing else");
      terminal.Warn("nothing else");
      terminal.PrintError(error);
    }));
  };
  const auto plain = document_of(
      Error(ErrorCode::kWrongPassword, Action::kReauthenticate, "wrong \xff\x1b", "type it again"));
  EXPECT_EQ(plain["error"].size(), 5U);
  EXPECT_EQ(plain["error"]["code"], "wrong_password");
  EXPECT_EQ(plain["error"]["action"], "reauthenticate");
  EXPECT_TRUE(plain["error"]["failure"].is_null());
  EXPECT_EQ(plain["error"]["message"], "wrong \xef\xbf\xbd\x1b");
  EXPECT_EQ(plain["error"]["hint"], "type it again");
  const auto failed = document_of(
      Error(ErrorCode::kEnvelopeMac, Action::kCallOperator, "m", "h").WithFailure(Failure::kMac));
  EXPECT_EQ(failed["error"]["failure"], "mac");
}

TEST(Terminal, QuietSilencesNotesAloneAndColorsFollowTheOption) {
  GlobalOptions global;
  global.quiet = true;
  global.color = ColorMode::kAlways;
  EXPECT_EQ(ErrorOutput(global,
                        [](Terminal& terminal) {
                          terminal.Note("note");
                          terminal.Warn("care");
                        }),
            "\x1b[33mwarning:\x1b[0m care\n");
  EXPECT_EQ(ErrorOutput({}, [](Terminal& terminal) { terminal.Note("a\x07note"); }),
            "a\\x07note\n");
}

TEST(Terminal, ShowsTheNativeCodeWhenTracing) {
  GlobalOptions global;
  global.trace = true;
  const Error error =
      Error(ErrorCode::kTpmFailure, Action::kCallOperator, "m", "h").WithNative("TPM_RC", 0x98e);
  EXPECT_EQ(ErrorOutput(global, [&](Terminal& terminal) { terminal.PrintError(error); }),
            "error: m\nhint: h\nnative: TPM_RC 0x98e\n");
}

TEST(Terminal, RefusesBinaryOutputToATerminal) {
  int master = -1;
  int slave = -1;
  ASSERT_EQ(openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
  Terminal terminal(GlobalOptions{}, slave, slave);
  const Bytes bytes = {1, 2, 3};
  const Status status = terminal.WriteBinary(bytes);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), ErrorCode::kBinaryToTerminal);
  close(slave);
  close(master);
}

TEST(Terminal, TellsAFullDiskAndForgivesAReaderThatLeft) {
  const int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
  ASSERT_GE(full, 0);
  const Status status = Terminal(GlobalOptions{}, full, 2).WriteResult("text");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), ErrorCode::kDestinationFull);
  close(full);
  ASSERT_TRUE(PrepareProcess());  // SIGPIPE
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  Terminal left(GlobalOptions{}, ends[1], 2);
  EXPECT_TRUE(left.WriteResult("text"));
  const Bytes bytes = {1};
  EXPECT_FALSE(left.WriteBinary(bytes));
  close(ends[1]);
}

TEST(Terminal, OpensClosedStandardStreams) {
  const pid_t child = fork();
  if (child == 0) {
    close(0);
    close(1);
    close(2);
    if (!PrepareProcess()) _exit(1);
    const int next = open("/dev/null", O_RDONLY);
    char byte = 0;
    _exit(next == 3 || next > 2 ? static_cast<int>(read(0, &byte, 1)) : 2);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

std::string SpinnerOutput(const GlobalOptions& global, std::chrono::milliseconds duration) {
  int master = -1;
  int slave = -1;
  EXPECT_EQ(openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
  {
    const Terminal terminal(global, 1, slave);
    Spinner spinner(terminal, "unlocking \x1b[2J");
    std::this_thread::sleep_for(duration);
  }
  close(slave);
  // A terminal hands its output over from a worker of the kernel: read until it says that it is
  // done.
  std::string text;
  char buffer[4096];
  for (ssize_t size; (size = read(master, buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(size));
  }
  close(master);
  return text;
}

TEST(Spinner, DrawsAfterHalfASecondAndErasesItself) {
  using std::chrono::milliseconds;
  const std::string text = SpinnerOutput({}, milliseconds(700));
  EXPECT_NE(text.find("unlocking \\x1b[2J 0 s"), std::string::npos);
  EXPECT_TRUE(text.ends_with("\r\x1b[K"));
  EXPECT_EQ(SpinnerOutput({}, milliseconds(20)), "");
  GlobalOptions quiet;
  quiet.quiet = true;
  EXPECT_EQ(SpinnerOutput(quiet, milliseconds(600)), "");
  GlobalOptions json;
  json.json = true;
  EXPECT_EQ(SpinnerOutput(json, milliseconds(600)), "");
}

TEST(ExitStatus, FollowsTheFailureBeforeTheCode) {
  const auto status = [](ErrorCode code, Failure failure, bool verified = true) {
    return ExitStatus(Error(code, Action::kCallOperator, "m", "h").WithFailure(failure), verified);
  };
  EXPECT_EQ(status(ErrorCode::kWrongPassword, Failure::kNone), 3);
  EXPECT_EQ(status(ErrorCode::kInternal, Failure::kNone), 70);
  EXPECT_EQ(status(ErrorCode::kEnvelopeFormat, Failure::kFormat), 4);
  EXPECT_EQ(status(ErrorCode::kEnvelopeLimit, Failure::kLimit), 4);
  EXPECT_EQ(status(ErrorCode::kAgentNotTrusted, Failure::kSignature), 4);
  EXPECT_EQ(status(ErrorCode::kEnvelopeMac, Failure::kMac), 4);
  EXPECT_EQ(status(ErrorCode::kEnvelopeUnwrap, Failure::kUnwrap), 3);
  EXPECT_EQ(status(ErrorCode::kEnvelopeUnwrap, Failure::kUnwrap, false), 4);
  EXPECT_EQ(status(ErrorCode::kWrongPin, Failure::kFactor), 3);
  EXPECT_EQ(status(ErrorCode::kTokenNotFound, Failure::kFactor), 5);
  EXPECT_EQ(status(ErrorCode::kTpmLockout, Failure::kFactor), 6);
  EXPECT_EQ(status(ErrorCode::kTpmWrongDevice, Failure::kFactor), 10);
  EXPECT_EQ(status(ErrorCode::kTokenNotRegistered, Failure::kFactor), 5);
}

}  // namespace
}  // namespace keyescrow::agent
