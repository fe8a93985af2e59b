#include "agent/cli/cli_secrets.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <future>

#include "tests/unit/cli/pseudo_terminal.h"

namespace keyescrow::agent {
namespace {

constexpr std::string_view kLoss = "a lost password cannot be recovered";

class CliSecretsTest : public testing::Test {
 protected:
  void SetUp() override {
    unsetenv("CREDENTIALS_DIRECTORY");
    std::string pattern = testing::TempDir() + "secrets.XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    err_ = open((folder_ + "/err").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  }
  void TearDown() override {
    close(err_);
    std::filesystem::remove_all(folder_);
  }

  std::string File(const std::string& name, std::string_view content) {
    const std::string path = folder_ + "/" + name;
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    EXPECT_EQ(write(fd, content.data(), content.size()), static_cast<ssize_t>(content.size()));
    close(fd);
    return path;
  }
  std::string Told() const {
    char bytes[4096];
    const ssize_t size = pread(err_, bytes, sizeof bytes, 0);
    return {bytes, static_cast<std::size_t>(std::max<ssize_t>(size, 0))};
  }

  std::string folder_;
  int err_ = -1;
};

TEST_F(CliSecretsTest, SaysWhatALostPasswordMeansAndAsksNobodyInAScript) {
  Terminal terminal({}, 1, err_);
  CliProgress progress(terminal);
  SecretPrompt silent(true);
  auto sources = SecretSources::Create({.password_files = {File("pw", "secret\n")}}, silent);
  ASSERT_TRUE(sources);
  CliSecrets secrets(std::move(*sources), false, silent, terminal, progress);
  EXPECT_TRUE(secrets.NewPassword("a", ""));
  EXPECT_TRUE(secrets.ConfirmLoss());
  EXPECT_TRUE(secrets.ConfirmLoss());
  const std::string told = Told();
  EXPECT_EQ(told.find(kLoss), 0U) << told;
  EXPECT_EQ(told.find(kLoss, 1), std::string::npos) << told;  // once a command
}

TEST_F(CliSecretsTest, WhoTypesThePasswordTypesThatItIsUnderstood) {
  for (const auto& [answer, accepted] :
       {std::pair{"understood\n", true}, std::pair{"yes\n", false}}) {
    PseudoTerminal person;
    Terminal terminal({}, 1, err_);
    CliProgress progress(terminal);
    SecretPrompt prompt(false, person.name());
    auto sources = SecretSources::Create({}, prompt);
    ASSERT_TRUE(sources);
    CliSecrets secrets(std::move(*sources), false, prompt, terminal, progress);
    auto confirmed = std::async(std::launch::async, [&] { return secrets.ConfirmLoss(); });
    ASSERT_TRUE(person.WaitFor("type \"understood\" to go on: "));
    person.Type(answer);
    const Status status = confirmed.get();
    EXPECT_EQ(status.has_value(), accepted);
    if (!accepted) {
      EXPECT_EQ(status.error().code(), ErrorCode::kUsage);
    }
  }
}

TEST_F(CliSecretsTest, YesTakesTheConfirmationAsGiven) {
  PseudoTerminal person;
  Terminal terminal({}, 1, err_);
  CliProgress progress(terminal);
  SecretPrompt prompt(false, person.name());
  auto sources = SecretSources::Create({}, prompt);
  ASSERT_TRUE(sources);
  CliSecrets secrets(std::move(*sources), true, prompt, terminal, progress);
  EXPECT_TRUE(secrets.ConfirmLoss());
}

TEST_F(CliSecretsTest, HasAPinWhereASourceOrAPersonIs) {
  Terminal terminal({}, 1, err_);
  CliProgress progress(terminal);
  SecretPrompt silent(true);
  auto none = SecretSources::Create({}, silent);
  ASSERT_TRUE(none);
  EXPECT_FALSE(CliSecrets(std::move(*none), false, silent, terminal, progress).HasPin("ops"));
  auto file = SecretSources::Create({.pin_files = {"ops=" + File("pin", "1")}}, silent);
  ASSERT_TRUE(file);
  CliSecrets named(std::move(*file), false, silent, terminal, progress);
  EXPECT_TRUE(named.HasPin("ops"));
  EXPECT_FALSE(named.HasPin("alice"));
  PseudoTerminal person;
  SecretPrompt prompt(false, person.name());
  auto asked = SecretSources::Create({}, prompt);
  ASSERT_TRUE(asked);
  EXPECT_TRUE(CliSecrets(std::move(*asked), false, prompt, terminal, progress).HasPin("ops"));
}

TEST_F(CliSecretsTest, GivesATokenItsPinUnderTheNameThatItGetsMeanwhile) {
  Terminal terminal({}, 1, err_);
  CliProgress progress(terminal);
  SecretPrompt silent(true);
  auto sources = SecretSources::Create({.pin_files = {File("pin", "4711")}}, silent);
  ASSERT_TRUE(sources);
  CliSecrets secrets(std::move(*sources), false, silent, terminal, progress);
  envelope::PinRequest request;
  request.token_label = "label";
  request.token_serial = "0001";
  EXPECT_TRUE(secrets.Pins().AskPin(request));  // keygen: not registered yet
  EXPECT_TRUE(secrets.HasPin("ops"));
  request.token_name = "ops";
  EXPECT_TRUE(secrets.Pins().AskPin(request));
  request.token_serial = "0002";
  const auto other = secrets.Pins().AskPin(request);
  ASSERT_FALSE(other);
  EXPECT_EQ(other.error().code(), ErrorCode::kSecretSourceMissing);
}

}  // namespace
}  // namespace keyescrow::agent
