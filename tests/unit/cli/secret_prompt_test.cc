#include "agent/cli/secret_prompt.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <future>

#include "agent/cli/patient_prompt.h"
#include "tests/left_on_stack.h"
#include "tests/unit/cli/pseudo_terminal.h"

namespace keyescrow::agent {
namespace {

std::string TextOf(const Result<SecretBytes>& secret) {
  return secret ? std::string(AsText(secret->Expose())) : "error: " + secret.error().message();
}

TEST(SecretPrompt, ReadsALineWithoutEchoAndRestoresTheMode) {
  PseudoTerminal terminal;
  auto answer = std::async(std::launch::async, [&] {
    return SecretPrompt(false, terminal.name()).Ask("password", "remedy");
  });
  ASSERT_TRUE(terminal.WaitFor("password: "));
  EXPECT_FALSE(terminal.Echoes());
  terminal.Type("correct hörse\n");
  EXPECT_EQ(TextOf(answer.get()), "correct hörse");
  ASSERT_TRUE(terminal.WaitFor("\n"));
  EXPECT_TRUE(terminal.Echoes());
  EXPECT_EQ(terminal.shown().find("correct"), std::string::npos);
}

TEST(SecretPrompt, DropsWhatWasTypedBeforeTheQuestion) {
  PseudoTerminal terminal;
  terminal.Type("meant for the shell\n");
  ASSERT_TRUE(terminal.WaitFor("shell\r\n"));  // it lies in the terminal's queue
  auto answer = std::async(std::launch::async, [&] {
    return SecretPrompt(false, terminal.name()).Ask("password", "remedy");
  });
  ASSERT_TRUE(terminal.WaitFor("password: "));
  terminal.Type("the answer\n");
  EXPECT_EQ(TextOf(answer.get()), "the answer");
}

TEST(SecretPrompt, BackspaceIsTheTerminalsOwn) {
  PseudoTerminal terminal;
  auto answer = std::async(std::launch::async, [&] {
    return SecretPrompt(false, terminal.name()).Ask("password", "remedy");
  });
  ASSERT_TRUE(terminal.WaitFor("password: "));
  terminal.Type(
      "abx\x7f"
      "c\n");
  EXPECT_EQ(TextOf(answer.get()), "abc");
}

// A line that strips the eighth bit or turns capitals to small letters would have the key escrowed
// under another password than the one that was typed, and proven by it.
TEST(SecretPrompt, ReadsWhatWasTypedWhateverTheLineMakesOfIt) {
  for (const tcflag_t modes : {tcflag_t{ISTRIP}, tcflag_t{IUCLC}, tcflag_t{INLCR}}) {
    PseudoTerminal terminal;
    terminal.SetInput(modes);
    const tcflag_t before = terminal.Input();
    auto answer = std::async(std::launch::async, [&] {
      return SecretPrompt(false, terminal.name()).Ask("password", "remedy");
    });
    ASSERT_TRUE(terminal.WaitFor("password: "));
    terminal.Type("Bänke im Grünen\n\r");
    EXPECT_EQ(TextOf(answer.get()), "Bänke im Grünen");
    EXPECT_EQ(terminal.Input(), before);
  }
}

TEST(SecretPrompt, EnterIsHeardWhereCarriageReturnsAreNot) {
  PseudoTerminal terminal;
  terminal.SetInput(IGNCR);
  auto answer = std::async(std::launch::async, [&] {
    return SecretPrompt(false, terminal.name()).Ask("password", "remedy");
  });
  ASSERT_TRUE(terminal.WaitFor("password: "));
  terminal.Type("abc\rd\n");
  EXPECT_EQ(TextOf(answer.get()), "abc");
}

// Half a character would go into a PIN, and cost a try.
TEST(SecretPrompt, BackspaceTakesAWholeCharacter) {
  PseudoTerminal terminal;
  terminal.SetInput(0, IUTF8);
  auto answer = std::async(std::launch::async, [&] {
    return SecretPrompt(false, terminal.name()).Ask("password", "remedy");
  });
  ASSERT_TRUE(terminal.WaitFor("password: "));
  terminal.Type(
      "ab\u00e4\x7f"
      "c\n");
  EXPECT_EQ(TextOf(answer.get()), "abc");
}

TEST(SecretPrompt, AsksTwiceForANewOneAndAgainWhereTheTwoDiffer) {
  PseudoTerminal terminal;
  auto answer = std::async(std::launch::async, [&] {
    return SecretPrompt(false, terminal.name()).AskNew("password", "remedy");
  });
  for (const char* typed : {"one\n", "two\n", "three\n", "three\n"}) {
    ASSERT_TRUE(terminal.WaitFor(": "));
    terminal.Type(typed);
  }
  EXPECT_EQ(TextOf(answer.get()), "three");
  EXPECT_NE(terminal.shown().find("password, once more: "), std::string::npos);
  EXPECT_NE(terminal.shown().find("the two differ"), std::string::npos);
}

TEST(SecretPrompt, GivesUpAfterThreeMismatches) {
  PseudoTerminal terminal;
  auto answer = std::async(std::launch::async, [&] {
    return SecretPrompt(false, terminal.name()).AskNew("password", "remedy");
  });
  for (int question = 0; question < 6; ++question) {
    ASSERT_TRUE(terminal.WaitFor(": "));
    terminal.Type(question % 2 == 0 ? "one\n" : "two\n");
  }
  const auto result = answer.get();
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kSecretSourceUnreadable);
}

TEST(SecretPrompt, EndOfInputEmptyAndTooLongAreErrors) {
  for (const std::string& typed :
       {std::string("\x04"), std::string("\n"), std::string(2000, 'x') + "\n"}) {
    PseudoTerminal terminal;
    auto answer = std::async(std::launch::async, [&] {
      return SecretPrompt(false, terminal.name()).Ask("password", "remedy");
    });
    ASSERT_TRUE(terminal.WaitFor("password: "));
    terminal.Type(typed);
    const auto result = answer.get();
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), ErrorCode::kSecretSourceUnreadable);
    EXPECT_TRUE(terminal.Echoes());
  }
}

TEST(SecretPrompt, SaysWhatToDoWithoutATerminal) {
  PseudoTerminal terminal;
  for (const SecretPrompt& candidate :
       {SecretPrompt(true, terminal.name()), SecretPrompt(false, "/dev/null"),
        SecretPrompt(false, "/nonexistent/tty")}) {
    SecretPrompt prompt = candidate;
    EXPECT_FALSE(prompt.available());
    const auto result = prompt.Ask("password", "give --password-file FILE");
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code(), ErrorCode::kSecretSourceMissing);
    EXPECT_EQ(result.error().hint(), "give --password-file FILE");
    EXPECT_FALSE(prompt.AskNew("password", "remedy"));
    EXPECT_FALSE(prompt.AskLine("type yes", "give --yes"));
  }
}

TEST(SecretPrompt, AskLineEchoesAndEscapesItsQuestion) {
  PseudoTerminal terminal;
  auto answer = std::async(std::launch::async, [&] {
    return SecretPrompt(false, terminal.name()).AskLine("type '\x1b[2J'", "remedy");
  });
  ASSERT_TRUE(terminal.WaitFor("type '\\x1b[2J': "));
  terminal.Type("yes\n");
  ASSERT_TRUE(terminal.WaitFor("yes"));
  EXPECT_EQ(answer.get().value(), "yes");
}

// At the officers' desk a PIN is soon typed where a number is asked for.
TEST(SecretPrompt, APatientQuestionLeavesNoAnswerOnTheStack) {
  PseudoTerminal terminal;
  const std::string_view pin = "4711-0815-22";
  auto person = std::async(std::launch::async, [&] {
    EXPECT_TRUE(terminal.WaitFor("number: "));
    terminal.Type(std::string(pin) + "\n");
  });
  const auto stack = StackAfter([&] {
    const auto line = AskLinePatiently(terminal.name(), "number", [] { return false; });
    ASSERT_TRUE(line && *line);
    EXPECT_EQ(AsText((*line)->Expose()), pin);
  });
  ASSERT_FALSE(stack.empty());
  EXPECT_FALSE(HoldsPart(stack, AsBytes(pin)));
}

// A child asks on the terminal and is then sent a signal.
pid_t StartAsking(const PseudoTerminal& terminal) {
  const pid_t child = fork();
  if (child == 0) {
    SecretPrompt prompt(false, terminal.name());
    const auto result = prompt.Ask("password", "remedy");
    _exit(result && TextOf(result) == "again" ? 0 : 9);
  }
  return child;
}

TEST(SecretPrompt, RestoresTheModeBeforeASignalEndsIt) {
  for (const int signal_number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGALRM}) {
    PseudoTerminal terminal;
    const pid_t child = StartAsking(terminal);
    ASSERT_TRUE(terminal.WaitFor("password: "));
    EXPECT_FALSE(terminal.Echoes());
    kill(child, signal_number);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == signal_number);
    EXPECT_TRUE(terminal.Echoes());
  }
}

TEST(SecretPrompt, AsksAgainAfterAStop) {
  PseudoTerminal terminal;
  const pid_t child = StartAsking(terminal);
  ASSERT_GT(setpgid(child, child) + 1, 0);  // a group of its own is not orphaned: it can stop
  ASSERT_TRUE(terminal.WaitFor("password: "));
  kill(child, SIGTSTP);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, WUNTRACED), child);
  if (WIFSTOPPED(status)) {
    EXPECT_TRUE(terminal.Echoes());
    kill(child, SIGCONT);
    ASSERT_TRUE(terminal.WaitFor("password: "));
    EXPECT_FALSE(terminal.Echoes());
    terminal.Type("again\n");
    ASSERT_EQ(waitpid(child, &status, 0), child);
  }
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace
}  // namespace keyescrow::agent
