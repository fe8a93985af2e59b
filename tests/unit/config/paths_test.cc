#include "agent/config/paths.h"

#include <gtest/gtest.h>

#include <map>

namespace keyescrow::agent {
namespace {

GetEnvironment Environment(std::map<std::string, std::string> variables) {
  return [variables = std::move(variables)](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
}

TEST(ResolvePaths, GivesRootTheSystemsFolders) {
  auto paths = ResolvePaths({}, Environment({{"HOME", "/root"}, {"XDG_STATE_HOME", "/x"}}), 0);
  ASSERT_TRUE(paths);
  EXPECT_EQ(paths->config_file, "/etc/keyescrow/agent.toml");
  EXPECT_EQ(paths->state_folder, "/var/lib/keyescrow");
  EXPECT_TRUE(paths->state_is_default);
}

TEST(ResolvePaths, FollowsXdgForUsers) {
  auto home =
      ResolvePaths({}, Environment({{"HOME", "/home/a"}, {"XDG_CONFIG_HOME", "relative"}}), 7);
  ASSERT_TRUE(home);
  EXPECT_EQ(home->config_file, "/home/a/.config/keyescrow/agent.toml");
  EXPECT_EQ(home->state_folder, "/home/a/.local/state/keyescrow");
  auto xdg =
      ResolvePaths({}, Environment({{"XDG_CONFIG_HOME", "/c"}, {"XDG_STATE_HOME", "/s"}}), 7);
  ASSERT_TRUE(xdg);
  EXPECT_EQ(xdg->config_file, "/c/keyescrow/agent.toml");
  EXPECT_EQ(xdg->state_folder, "/s/keyescrow");
}

TEST(ResolvePaths, PrefersOptionsThenTheEnvironment) {
  const auto environment =
      Environment({{"KEYESCROW_CONFIG", "/e/a.toml"}, {"KEYESCROW_STATE", "/e/s"}});
  auto from_environment = ResolvePaths({}, environment, 0);
  EXPECT_EQ(from_environment->config_file, "/e/a.toml");
  EXPECT_EQ(from_environment->state_folder, "/e/s");
  EXPECT_FALSE(from_environment->state_is_default);
  auto from_options = ResolvePaths({.config = "a.toml", .state = "s"}, environment, 0);
  EXPECT_EQ(from_options->config_file, "a.toml");
  EXPECT_EQ(from_options->state_folder, "s");
}

TEST(ResolvePaths, WantsAHomeFolder) {
  auto paths = ResolvePaths({.config = "/a.toml"}, Environment({}), 7);
  ASSERT_FALSE(paths);
  EXPECT_EQ(paths.error().code(), ErrorCode::kConfiguration);
  EXPECT_TRUE(ResolvePaths({.config = "/a.toml", .state = "/s"}, Environment({}), 7));
}

}  // namespace
}  // namespace keyescrow::agent
