#include <gmock/gmock.h>

#include <thread>
#include <vector>

#include "agent/config/config.h"
#include "tests/unit/key_locations/scratch_folder.h"

namespace keyescrow::agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kTwoKeys[] = R"(# ours
[agent]
host = "db1"   # the name in envelopes

# the main key
# (rotated by hand)
[[key]]
name = "main"
source = "file:/etc/app/key"
paths = [
  "password & token:ops",   # in the safe
]

[[key]]   # no comment above
name = "backup"
source = "-"

# vim: set ft=toml:
)";

class ConfigEdit : public ScratchFolder {
 protected:
  std::string path_ = At("agent.toml");
};

TEST_F(ConfigEdit, AddMakesTheFileAndItsFolder) {
  const std::string path = At("etc/agent.toml");
  ASSERT_TRUE(AddDeclaredKey(path, {.name = "main", .source = "file:/k"}));
  EXPECT_EQ(Get("etc/agent.toml"), "[[key]]\nname = \"main\"\nsource = \"file:/k\"\n");
  EXPECT_EQ(ModeOf("etc/agent.toml"), 0644u);
}

TEST_F(ConfigEdit, AddAppendsAndKeepsEveryByte) {
  Put("agent.toml", kTwoKeys, 0640);
  ASSERT_TRUE(AddDeclaredKey(path_, {.name = "third",
                                     .source = "exec:printf \"a\\b\"\t'\x01'",
                                     .paths = {"password & tpm", "off=tpm"},
                                     .kdf = "argon2id"}));
  EXPECT_TRUE(Get("agent.toml").starts_with(kTwoKeys));
  EXPECT_EQ(ModeOf("agent.toml"), 0640u);
  auto config = LoadConfig(path_);
  ASSERT_TRUE(config) << config.error().message();
  ASSERT_EQ(config->keys.size(), 3u);
  EXPECT_EQ(config->keys[2].source, "exec:printf \"a\\b\"\t'\x01'");
  EXPECT_THAT(config->keys[2].paths, ElementsAre("password & tpm", "off=tpm"));
  EXPECT_THAT(Names(), ElementsAre("agent.toml"));
}

TEST_F(ConfigEdit, AddRefusesANameThatIsTaken) {
  Put("agent.toml", kTwoKeys, 0644);
  auto added = AddDeclaredKey(path_, {.name = "main", .source = "-"});
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code(), ErrorCode::kAlreadyExists);
  EXPECT_THAT(added.error().message(), HasSubstr("line 7"));
  EXPECT_EQ(Get("agent.toml"), kTwoKeys);
}

TEST_F(ConfigEdit, AddRefusesWhatWouldNotParse) {
  Put("agent.toml", "key = [{name = \"a\", source = \"b\"}]\n", 0644);
  EXPECT_EQ(AddDeclaredKey(path_, {.name = "c", .source = "-"}).error().code(),
            ErrorCode::kConfiguration);
  EXPECT_EQ(RemoveDeclaredKey(path_, "a").error().code(), ErrorCode::kConfiguration);
  Put("agent.toml", "", 0644);
  EXPECT_FALSE(AddDeclaredKey(path_, {.name = "\xff", .source = "-"}));
  EXPECT_FALSE(AddDeclaredKey(path_, {.name = "a", .source = "-", .kdf = "none"}));
  Put("agent.toml", "[agnt]\n", 0644);
  EXPECT_FALSE(AddDeclaredKey(path_, {.name = "a", .source = "-"}));
  EXPECT_EQ(Get("agent.toml"), "[agnt]\n");
}

TEST_F(ConfigEdit, RemoveTakesTheBlockAndItsComment) {
  Put("agent.toml", kTwoKeys, 0644);
  ASSERT_TRUE(RemoveDeclaredKey(path_, "main"));
  EXPECT_EQ(Get("agent.toml"), R"(# ours
[agent]
host = "db1"   # the name in envelopes

[[key]]   # no comment above
name = "backup"
source = "-"

# vim: set ft=toml:
)");
  ASSERT_TRUE(RemoveDeclaredKey(path_, "backup"));
  EXPECT_EQ(Get("agent.toml"), R"(# ours
[agent]
host = "db1"   # the name in envelopes

# vim: set ft=toml:
)");
  EXPECT_EQ(RemoveDeclaredKey(path_, "main").error().code(), ErrorCode::kNotFound);
}

TEST_F(ConfigEdit, RemoveKeepsTheCommentThatBeginsTheFile) {
  Put("agent.toml", "# managed by hand\n[[key]]\nname = \"a\"\nsource = '''\n/k'''", 0644);
  ASSERT_TRUE(RemoveDeclaredKey(path_, "a"));
  EXPECT_EQ(Get("agent.toml"), "# managed by hand\n");
}

TEST_F(ConfigEdit, RemoveUndoesAdd) {
  Put("agent.toml", kTwoKeys, 0644);
  ASSERT_TRUE(AddDeclaredKey(path_, {.name = "third", .source = "-"}));
  ASSERT_TRUE(RemoveDeclaredKey(path_, "third"));
  EXPECT_EQ(Get("agent.toml"), std::string(kTwoKeys) + "\n");
}

TEST_F(ConfigEdit, ManyWritersLoseNothing) {
  std::vector<std::thread> writers;
  for (int i = 0; i < 8; ++i) {
    writers.emplace_back([&, i] {
      EXPECT_TRUE(AddDeclaredKey(path_, {.name = "key" + std::to_string(i), .source = "-"}));
    });
  }
  for (std::thread& writer : writers) writer.join();
  auto config = LoadConfig(path_);
  ASSERT_TRUE(config);
  EXPECT_EQ(config->keys.size(), 8u);
}

TEST_F(ConfigEdit, RefusesASymbolicLink) {
  Put("real.toml", kTwoKeys, 0644);
  symlink("real.toml", path_.c_str());
  EXPECT_EQ(AddDeclaredKey(path_, {.name = "c", .source = "-"}).error().code(),
            ErrorCode::kDestinationIsSymlink);
}

}  // namespace
}  // namespace keyescrow::agent
