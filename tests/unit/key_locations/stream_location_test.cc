#include <fcntl.h>
#include <gmock/gmock.h>
#include <pty.h>
#include <signal.h>

#include <thread>

#include "agent/key_locations/key_location.h"
#include "tests/unit/key_locations/scratch_folder.h"

namespace keyescrow::agent {
namespace {

using testing::HasSubstr;

std::unique_ptr<KeyLocation> Location(const std::string& text) {
  auto location = ParseLocation(text);
  EXPECT_TRUE(location) << location.error().message();
  return std::move(*location);
}

// Redirected puts `fd` in the place of a standard descriptor until it goes.
class Redirected {
 public:
  Redirected(int fd, int standard) : standard_(standard), saved_(dup(standard)) {
    dup2(fd, standard);
  }
  Redirected(const Redirected&) = delete;
  Redirected& operator=(const Redirected&) = delete;
  ~Redirected() {
    dup2(saved_, standard_);
    close(saved_);
  }

 private:
  int standard_;
  int saved_;
};

TEST(ParseLocation, KnowsTheFourForms) {
  EXPECT_EQ(Location("file:/etc/key")->Describe(), "file:/etc/key");
  EXPECT_EQ(Location("/etc/key")->Describe(), "file:/etc/key");
  EXPECT_EQ(Location("key.bin")->FilePath(), "key.bin");
  EXPECT_EQ(Location("./a:b")->FilePath(), "./a:b");
  EXPECT_EQ(Location("file:odd:name")->FilePath(), "odd:name");
  EXPECT_EQ(Location("-")->Describe(), "-");
  EXPECT_EQ(Location("exec:cat /k | tr a b")->Describe(), "exec:cat /k | tr a b");
  EXPECT_EQ(Location("exec:true")->FilePath(), "");
}

TEST(ParseLocation, RefusesWhatMightBeMisspelt) {
  const std::pair<std::string, std::string> cases[] = {{"", "empty"},
                                                       {"file:", "empty"},
                                                       {"exec:", "empty"},
                                                       {"fiel:/etc/key", "did you mean 'file'?"},
                                                       {"FILE:/etc/key", "did you mean 'file'?"},
                                                       {"https://example.org/key", "unknown kind"},
                                                       {"luks:", "empty"},
                                                       {std::string("a\0b", 3), "NUL"}};
  for (const auto& [text, cause] : cases) {
    auto location = ParseLocation(text);
    ASSERT_FALSE(location) << text;
    EXPECT_EQ(location.error().code(), ErrorCode::kInvalidLocation);
    EXPECT_THAT(location.error().message(), HasSubstr(cause));
  }
}

TEST(Command, YieldsItsOutput) {
  EXPECT_EQ(Text(*Location("exec:printf 'a\\000b'")->Read()), std::string("a\0b", 3));
  EXPECT_EQ(Location("exec:head -c 1048576 /dev/zero")->Read()->size(), kMaxKeyBytes);
  EXPECT_EQ(Text(*Location("exec:cat; echo x")->Read()), "x\n");  // its input is empty
}

TEST(Command, FailsAsASource) {
  const std::pair<const char*, ErrorCode> cases[] = {
      {"exec:echo key; exit 3", ErrorCode::kSourceCommand},
      {"exec:exit 3", ErrorCode::kSourceCommand},
      {"exec:kill -9 $$", ErrorCode::kSourceCommand},
      {"exec:no-such-command-here 2>/dev/null", ErrorCode::kSourceCommand},
      {"exec:true", ErrorCode::kSourceSize},
      {"exec:cat /dev/zero", ErrorCode::kSourceSize}};
  for (const auto& [text, code] : cases) {
    auto key = Location(text)->Read();
    ASSERT_FALSE(key) << text;
    EXPECT_EQ(key.error().code(), code) << text;
  }
  EXPECT_THAT(Location("exec:exit 3")->Read().error().message(), HasSubstr("exit status was 3"));
  EXPECT_THAT(Location("exec:kill -9 $$")->Read().error().message(), HasSubstr("signal 9"));
}

using CommandSink = ScratchFolder;

TEST_F(CommandSink, ReadsTheWholeKey) {
  const std::string key(300000, 'k');  // more than a pipe holds
  auto outcome = Location("exec:cat > " + At("out"))->Write(Secret(key), {});
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_TRUE(outcome->written);
  EXPECT_EQ(Get("out"), key);
}

TEST_F(CommandSink, FailsWithItsExitStatusOrWhenItReadsTooLittle) {
  for (const char* text : {"exec:cat >/dev/null; exit 1", "exec:exec 0<&-; sleep 0.1"}) {
    auto outcome = Location(text)->Write(Secret(std::string(300000, 'k')), {});
    ASSERT_FALSE(outcome) << text;
    EXPECT_EQ(outcome.error().code(), ErrorCode::kDestinationCommand);
  }
}

// A key that the pipe holds whole is in it before the command begins, and nobody need read it.
TEST_F(CommandSink, FailsWhereAShortKeyIsLeftUnread) {
  for (const char* text : {"exec:true", "exec:head -c 5 >/dev/null", "exec:exec 0<&-; sleep 0.1"}) {
    auto outcome = Location(text)->Write(Secret("secret"), {});
    ASSERT_FALSE(outcome) << text;
    EXPECT_EQ(outcome.error().code(), ErrorCode::kDestinationCommand);
    EXPECT_THAT(outcome.error().message(), HasSubstr("before it had read the whole key"));
  }
  EXPECT_TRUE(Location("exec:head -c 6 >/dev/null")->Write(Secret("secret"), {}));
}

TEST(StandardStreams, CarryTheKey) {
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  {
    const Redirected output(pipe_fds[1], STDOUT_FILENO);
    auto outcome = Location("-")->Write(Secret("secret"), {});
    EXPECT_TRUE(outcome);
  }
  close(pipe_fds[1]);
  {
    const Redirected input(pipe_fds[0], STDIN_FILENO);
    EXPECT_EQ(Text(*Location("-")->Read()), "secret");
    EXPECT_EQ(Location("-")->Read().error().code(), ErrorCode::kSourceSize);
  }
  close(pipe_fds[0]);
}

TEST(StandardStreams, AReaderThatIsGoneIsAnErrorNotASignal) {
  int pipe_fds[2];
  ASSERT_EQ(pipe2(pipe_fds, O_CLOEXEC), 0);
  close(pipe_fds[0]);
  Result<WriteOutcome> outcome;
  {
    const Redirected output(pipe_fds[1], STDOUT_FILENO);
    outcome = Location("-")->Write(Secret("secret"), {});
  }
  close(pipe_fds[1]);
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code(), ErrorCode::kDestinationUnwritable);
  sigset_t pending;
  sigpending(&pending);
  EXPECT_EQ(sigismember(&pending, SIGPIPE), 0);
}

TEST(StandardStreams, RefuseATerminal) {
  int master = -1, slave = -1;
  ASSERT_EQ(openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
  Status writable;
  Result<WriteOutcome> outcome;
  {
    const Redirected output(slave, STDOUT_FILENO);
    writable = Location("-")->CheckWritable();
    outcome = Location("-")->Write(Secret("secret"), {});
  }
  close(master);
  close(slave);
  ASSERT_FALSE(writable);
  EXPECT_EQ(writable.error().code(), ErrorCode::kBinaryToTerminal);
  ASSERT_FALSE(outcome);
}

}  // namespace
}  // namespace keyescrow::agent
