#include "agent/cli/secret_sources.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <future>

#include "tests/unit/cli/pseudo_terminal.h"

namespace keyescrow::agent {
namespace {

class SecretSourcesTest : public testing::Test {
 protected:
  void SetUp() override {
    unsetenv("CREDENTIALS_DIRECTORY");
    std::string pattern = testing::TempDir() + "sources.XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override {
    unsetenv("CREDENTIALS_DIRECTORY");
    std::filesystem::remove_all(folder_);
  }

  std::string File(const std::string& name, std::string_view content) {
    const std::string path = folder_ + "/" + name;
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    EXPECT_EQ(write(fd, content.data(), content.size()), static_cast<ssize_t>(content.size()));
    close(fd);
    return path;
  }

  static std::string TextOf(const Result<SecretBytes>& secret) {
    return secret ? std::string(AsText(secret->Expose())) : "error: " + secret.error().message();
  }

  SecretSources Make(const SecretOptions& options) {
    auto sources = SecretSources::Create(options, silent_);
    EXPECT_TRUE(sources) << sources.error().message();
    return std::move(*sources);
  }
  void ExpectUsage(const SecretOptions& options, std::string_view stdin_user = "") {
    const auto sources = SecretSources::Create(options, silent_, stdin_user);
    ASSERT_FALSE(sources);
    EXPECT_EQ(sources.error().code(), ErrorCode::kUsage);
  }

  static envelope::PinRequest Token(std::string name, bool count_low = false) {
    envelope::PinRequest request;
    request.token_name = std::move(name);
    request.count_low = count_low;
    return request;
  }

  std::string folder_;
  SecretPrompt silent_{true};
};

TEST_F(SecretSourcesTest, OnePasswordServesEveryPathWithoutItsOwn) {
  auto sources = Make({.password_files = {File("all", "general\nsecond line\n"),
                                          "safe=" + File("safe", "special")}});
  EXPECT_EQ(TextOf(sources.Password("tpm", "")), "general");
  EXPECT_EQ(TextOf(sources.Password("safe", "")), "special");
  EXPECT_EQ(TextOf(sources.NewPassword("safe", "")), "special");
  std::filesystem::remove(folder_ + "/all");
  EXPECT_EQ(TextOf(sources.Password("ops", "")), "general");  // read once
  EXPECT_FALSE(sources.ForgetTyped());
}

TEST_F(SecretSourcesTest, NewPasswordsComeFromTheirOwnFilesFirst) {
  SecretOptions options{.password_files = {File("old", "old")},
                        .new_password_files = {"safe=" + File("new", "new")}};
  auto sources = Make(options);
  EXPECT_EQ(TextOf(sources.NewPassword("safe", "")), "new");
  EXPECT_EQ(TextOf(sources.NewPassword("tpm", "")), "old");
  const auto strict =
      sources.NewPassword("tpm", "", SecretSources::NewPasswordFrom::kNewSourcesOnly);
  ASSERT_FALSE(strict);
  EXPECT_EQ(strict.error().code(), ErrorCode::kSecretSourceMissing);
  EXPECT_NE(strict.error().hint().find("--new-password-file"), std::string::npos);
  // One for every path is not known to be this path's.
  EXPECT_FALSE(sources.HasPasswordFor("tpm"));
}

TEST_F(SecretSourcesTest, ReadsADescriptor) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  ASSERT_EQ(write(ends[1], "from fd\n", 8), 8);
  close(ends[1]);
  auto sources = Make({.password_fd = static_cast<std::uint32_t>(ends[0])});
  EXPECT_EQ(TextOf(sources.Password("a", "")), "from fd");
  EXPECT_EQ(TextOf(sources.Password("b", "")), "from fd");
  close(ends[0]);
}

TEST_F(SecretSourcesTest, AFileNameWithEqualsIsWrittenWithASlash) {
  const std::string path = File("a=b", "pw");
  auto sources = Make({.password_files = {path}});
  EXPECT_EQ(TextOf(sources.Password("x", "")), "pw");
}

TEST_F(SecretSourcesTest, RefusesWhatWouldBeReadTwice) {
  const std::string file = File("p", "pw");
  ExpectUsage({.password_files = {file}, .pin_files = {file}});
  ExpectUsage({.password_files = {file, "safe=" + file}});
  ExpectUsage({.password_files = {"safe=a", "safe=b"}});
  ExpectUsage({.password_files = {"a", "b"}});
  ExpectUsage({.password_files = {"safe="}});
  ExpectUsage({.password_files = {"-"}, .pin_files = {"ops=-"}});
  ExpectUsage({.password_files = {"-"}}, "--from -");
  ExpectUsage({.password_fd = 0, .pin_files = {"-"}});
  ExpectUsage({.password_fd = 3, .pin_fd = 3});
  ExpectUsage({.password_files = {"a"}, .password_fd = 3});
  ExpectUsage({.password_fd = 4000000000U});
}

TEST_F(SecretSourcesTest, TwoTokensMayHaveOnePinAndEachIsNamed) {
  const std::string pin = File("pin", "4711");
  auto sources = Make({.pin_files = {"ops=" + pin, "safe=" + pin}});
  EXPECT_EQ(TextOf(sources.AskPin(Token("ops"))), "4711");
  EXPECT_EQ(TextOf(sources.AskPin(Token("safe"))), "4711");
  EXPECT_TRUE(sources.CheckPins({"ops", "safe"}));
  const auto twice = SecretSources::Create({.pin_files = {pin, "safe=" + pin}}, silent_);
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().hint().find("password"), std::string::npos);
}

TEST_F(SecretSourcesTest, APinWithoutANameIsNotSentWhereTwoTokensCouldAsk) {
  auto one = Make({.pin_files = {File("pin", "4711"), "bob=" + File("bob", "0815")}});
  EXPECT_TRUE(one.HasNamelessPin());
  EXPECT_TRUE(one.CheckPins({"ops"}));
  EXPECT_TRUE(one.CheckPins({"bob", "ops"}));
  const Status two = one.CheckPins({"bob", "ops", "safe"});
  ASSERT_FALSE(two);
  EXPECT_EQ(two.error().code(), ErrorCode::kUsage);
  EXPECT_NE(two.error().hint().find("--pin-file ops=FILE"), std::string::npos);
  EXPECT_FALSE(Make({.pin_files = {"ops=" + File("named", "1")}}).HasNamelessPin());
}

TEST_F(SecretSourcesTest, WhatMadeAPathInThisCommandOpensIt) {
  auto sources = Make(
      {.password_files = {File("old", "old")}, .new_password_files = {"a=" + File("new", "new")}});
  EXPECT_EQ(TextOf(sources.Password("a", "")), "old");
  EXPECT_EQ(TextOf(sources.NewPassword("a", "")), "new");
  EXPECT_EQ(TextOf(sources.NewPassword("b", "")), "old");
  EXPECT_EQ(TextOf(sources.Password("a", "")), "new");
  EXPECT_EQ(TextOf(sources.Password("b", "")), "old");
}

TEST_F(SecretSourcesTest, TellsOfALineThatEndsWithAReturnAndStripsNothing) {
  const std::string file = File("dos", "pw\r\nmore\r\n");
  auto sources = Make({.password_files = {file}});
  EXPECT_EQ(sources.EndsWithReturn(false), "");  // not read yet
  EXPECT_EQ(TextOf(sources.Password("a", "")), "pw\r");
  EXPECT_EQ(sources.EndsWithReturn(false), file);
  EXPECT_EQ(sources.EndsWithReturn(true), "");
}

TEST_F(SecretSourcesTest, RefusesAFileThatOthersRead) {
  const std::string path = File("open", "pw");
  ASSERT_EQ(chmod(path.c_str(), 0644), 0);
  auto sources = Make({.password_files = {path}});
  const auto result = sources.Password("x", "");
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code(), ErrorCode::kSecretFileUnsafe);
}

TEST_F(SecretSourcesTest, UsesCredentialsAfterTheCommandLine) {
  File("password", "from systemd");
  File("pin", "4711");
  setenv("CREDENTIALS_DIRECTORY", folder_.c_str(), 1);
  auto sources = Make({});
  EXPECT_EQ(TextOf(sources.Password("a", "")), "from systemd");
  EXPECT_EQ(TextOf(sources.AskPin(Token("ops"))), "4711");
  auto named = Make({.password_files = {File("named", "from option")}});
  EXPECT_EQ(TextOf(named.Password("a", "")), "from option");
}

TEST_F(SecretSourcesTest, APinWithoutATokensNameServesOneToken) {
  auto sources = Make({.pin_files = {File("pin", "1234"), "bob=" + File("bob", "5678")}});
  EXPECT_EQ(TextOf(sources.AskPin(Token("alice"))), "1234");
  EXPECT_EQ(TextOf(sources.AskPin(Token("alice"))), "1234");
  EXPECT_EQ(TextOf(sources.AskPin(Token("bob"))), "5678");
  const auto third = sources.AskPin(Token("carol"));
  ASSERT_FALSE(third);
  EXPECT_EQ(third.error().code(), ErrorCode::kSecretSourceMissing);
  EXPECT_NE(third.error().hint().find("--pin-file carol=FILE"), std::string::npos);
}

TEST_F(SecretSourcesTest, APinGoesToNoOtherTokenThatGivesItselfOutForItsOwn) {
  // Label and serial number are what a token, or its module, says of itself.
  const auto claims = [](std::string name) {
    envelope::PinRequest request;
    request.token_name = std::move(name);
    request.token_label = "OPS";
    request.token_serial = "0123";
    return request;
  };
  auto sources = Make({.pin_files = {"ops=" + File("ops", "1234"), "bob=" + File("bob", "5678")}});
  EXPECT_EQ(TextOf(sources.AskPin(claims("ops"))), "1234");
  EXPECT_EQ(TextOf(sources.AskPin(claims("bob"))), "5678");
  EXPECT_EQ(TextOf(sources.AskPin(claims("ops"))), "1234");
  const auto nobodys = sources.AskPin(claims("carol"));
  ASSERT_FALSE(nobodys);
  EXPECT_EQ(nobodys.error().code(), ErrorCode::kSecretSourceMissing);
  // One that is registered in between has no name before.
  auto made = Make({.pin_files = {File("pin", "4711")}});
  EXPECT_EQ(TextOf(made.AskPin(claims(""))), "4711");
  EXPECT_EQ(TextOf(made.AskPin(claims("ops"))), "4711");
  EXPECT_EQ(TextOf(made.AskPin(claims("ops"))), "4711");
  EXPECT_EQ(made.AskPin(claims("carol")).error().code(), ErrorCode::kSecretSourceMissing);
}

TEST_F(SecretSourcesTest, AWrongPinIsNotSentASecondTime) {
  auto sources = Make({.pin_files = {File("pin", "1234")}});
  EXPECT_TRUE(sources.AskPin(Token("ops")));
  const auto again = sources.AskPin(Token("ops", true));
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), ErrorCode::kWrongPin);
  // A token may tell of the last try alone; and it may be one token under two names.
  envelope::PinRequest last = Token("bob");
  last.token_label = "OPS";
  last.token_serial = "0123";
  const std::string pin = File("same", "4711");
  auto named = Make({.pin_files = {"bob=" + pin, "carol=" + pin}});
  EXPECT_TRUE(named.AskPin(last));
  EXPECT_TRUE(named.AskPin(last));
  last.final_try = true;
  EXPECT_EQ(named.AskPin(last).error().code(), ErrorCode::kWrongPin);
  last.token_name = "carol";
  EXPECT_EQ(named.AskPin(last).error().code(), ErrorCode::kWrongPin);
}

TEST_F(SecretSourcesTest, TakesAPinSourceThatIsAFile) {
  auto sources = Make({});
  const std::string path = File("pin", "9999");
  ASSERT_TRUE(sources.AddPinSource("ops", "file://" + path));
  EXPECT_EQ(TextOf(sources.AskPin(Token("ops"))), "9999");
  ASSERT_TRUE(sources.AddPinSource("b", "file:" + path));
  ASSERT_TRUE(sources.AddPinSource("c", path));
  for (const char* refused : {"|/bin/cat pin", "https://example.org/pin", "pin", "file:pin", ""}) {
    EXPECT_FALSE(sources.AddPinSource("d", refused)) << refused;
  }
}

TEST_F(SecretSourcesTest, AsksOnceAndAgainOnlyWhenForgotten) {
  PseudoTerminal terminal;
  SecretPrompt prompt(false, terminal.name());
  auto sources = SecretSources::Create({}, prompt);
  ASSERT_TRUE(sources);
  const auto ask = [&](std::string_view typed) {
    auto answer =
        std::async(std::launch::async, [&] { return sources->Password("ops", "to restore k"); });
    EXPECT_TRUE(terminal.WaitFor("password of path 'ops' to restore k: "));
    terminal.Type(typed);
    return TextOf(answer.get());
  };
  EXPECT_EQ(ask("first\n"), "first");
  EXPECT_EQ(TextOf(sources->Password("other", "")), "first");
  EXPECT_TRUE(sources->ForgetTyped());
  EXPECT_EQ(ask("second\n"), "second");
}

TEST_F(SecretSourcesTest, WhatWasTypedAsNewOpensToo) {
  PseudoTerminal terminal;
  SecretPrompt prompt(false, terminal.name());
  auto sources = SecretSources::Create({}, prompt);
  ASSERT_TRUE(sources);
  auto answer = std::async(std::launch::async, [&] { return sources->NewPassword("ops", ""); });
  for (int question = 0; question < 2; ++question) {
    ASSERT_TRUE(terminal.WaitFor(": "));
    terminal.Type("typed\n");
  }
  EXPECT_EQ(TextOf(answer.get()), "typed");
  EXPECT_EQ(TextOf(sources->Password("ops", "")), "typed");
}

}  // namespace
}  // namespace keyescrow::agent
