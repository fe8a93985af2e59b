#include "agent/config/config.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "tests/unit/key_locations/scratch_folder.h"

namespace keyescrow::agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr char kWhole[] = R"toml(# the database host
[agent]
host = "db1"
tpm = "swtpm:path=/run/tpm.sock"
state = "/srv/keyescrow"

[defaults]
kdf = "pbkdf2-sha512"
argon2id_memory_kib = 65536
argon2id_passes = 3
argon2id_lanes = 2
pbkdf2_iterations = 500000
paths = ["password & token:ops", "tpm"]
password_profile = "ssrs"

[[key]]
name = "prod/db/main"
source = "file:/etc/app/key"

[[key]]
name = "prod/db/backup"
source = "exec:cat /k"
paths = [
  "off = password & 2 of (token:a, token:b)",
]
kdf = "argon2id"
)toml";

void ExpectRefused(const std::string& text, const std::string& place, const std::string& cause) {
  auto config = ParseConfig(text, "agent.toml");
  ASSERT_FALSE(config) << text;
  EXPECT_EQ(config.error().code(), ErrorCode::kConfiguration);
  EXPECT_EQ(config.error().action(), Action::kFixInput);
  EXPECT_THAT(config.error().message(), HasSubstr("agent.toml " + place + ": ")) << text;
  EXPECT_THAT(config.error().message(), HasSubstr(cause)) << text;
  EXPECT_FALSE(config.error().hint().empty());
}

TEST(Config, ReadsAllThatItMayHold) {
  auto config = ParseConfig(kWhole, "agent.toml");
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_TRUE(config->present);
  EXPECT_EQ(config->host, "db1");
  EXPECT_EQ(config->tpm, "swtpm:path=/run/tpm.sock");
  EXPECT_EQ(config->state, "/srv/keyescrow");
  EXPECT_EQ(config->default_kdf, "pbkdf2-sha512");
  EXPECT_EQ(config->kdf_costs, (KdfCosts{65536, 3, 2, 500000}));
  EXPECT_EQ(config->password_profile, "ssrs");
  EXPECT_THAT(config->default_paths, ElementsAre("password & token:ops", "tpm"));
  ASSERT_EQ(config->keys.size(), 2u);
  EXPECT_EQ(config->keys[0].name, "prod/db/main");
  EXPECT_EQ(config->keys[0].source, "file:/etc/app/key");
  EXPECT_TRUE(config->keys[0].paths.empty());
  EXPECT_EQ(config->keys[0].kdf, "");
  EXPECT_EQ(config->keys[0].line, 16u);
  EXPECT_THAT(config->keys[1].paths, ElementsAre("off = password & 2 of (token:a, token:b)"));
  EXPECT_EQ(config->keys[1].kdf, "argon2id");
  EXPECT_EQ(config->FindKey("prod/db/backup"), &config->keys[1]);
  EXPECT_EQ(config->FindKey("prod/db"), nullptr);
}

TEST(Config, AnEmptyFileGivesTheDefaults) {
  auto config = ParseConfig("# nothing yet\n", "agent.toml");
  ASSERT_TRUE(config);
  EXPECT_TRUE(config->present);
  EXPECT_EQ(config->default_kdf, "argon2id");
  EXPECT_EQ(config->kdf_costs, KdfCosts{});
  EXPECT_TRUE(config->keys.empty());
}

TEST(Config, CostsAreWholeNumbers) {
  for (const std::string key :
       {"argon2id_memory_kib", "argon2id_passes", "argon2id_lanes", "pbkdf2_iterations"}) {
    for (const char* value : {"0", "-1", "1.5", "\"4\"", "true", "33554433"}) {
      ExpectRefused(fmt::format("[defaults]\n{} = {}\n", key, value),
                    fmt::format("line 2 column {}", key.size() + 4),
                    "not a whole number from 1 to 33554432");
    }
  }
}

TEST(Config, RefusesUnknownKeysAndNamesTheNearest) {
  ExpectRefused("[agent]\nhots = \"db1\"\n", "line 2 column 1",
                "unknown key 'hots' in [agent], did you mean 'host'?");
  ExpectRefused("[agnt]\n", "line 1 column 2",
                "unknown key 'agnt' in the file, did you mean 'agent'?");
  ExpectRefused("[[keys]]\nname = \"a\"\n", "line 1 column 3", "did you mean 'key'?");
  ExpectRefused("[[key]]\nname = \"a\"\nsource = \"b\"\n  path = [\"tpm\"]\n", "line 4 column 3",
                "did you mean 'paths'?");
  ExpectRefused("[defaults]\nfrobnicate = 1\n", "line 2 column 1", "unknown key 'frobnicate'");
  ExpectRefused("[defaults]\nkdf = \"argon2\"\n", "line 2 column 7", "did you mean 'argon2id'?");
  ExpectRefused("[defaults]\npassword_profile = \"nist\"\n", "line 2 column 20", "unknown");
}

TEST(Config, RefusesWrongKindsOfValues) {
  ExpectRefused("agent = 1\n", "line 1 column 9", "not a table");
  ExpectRefused("[agent]\nhost = 1\n", "line 2 column 8", "not a text");
  ExpectRefused("[agent]\nhost = \"\"\n", "line 2 column 8", "not a text");
  ExpectRefused("[agent]\nstate = \"a\\u0000b\"\n", "line 2 column 9", "NUL");
  ExpectRefused("[defaults]\npaths = \"tpm\"\n", "line 2 column 9", "not a list");
  ExpectRefused("[defaults]\npaths = []\n", "line 2 column 9", "not a list of 1 to 16");
  ExpectRefused("[defaults]\npaths = [\"tpm\", 2]\n", "line 2 column 17", "not a text");
  ExpectRefused("[key]\nname = \"a\"\n", "line 1 column 1", "not a list of tables");
  ExpectRefused("key = []\nkey = 1\n", "line 2 column 7", "cannot redefine");
}

TEST(Config, RefusesKeysThatAreIncompleteOrTwice) {
  ExpectRefused("[[key]]\nsource = \"a\"\n", "line 1 column 1", "without name");
  ExpectRefused("\n[[key]]\nname = \"a\"\n", "line 2 column 1", "without source");
  const std::string block = "[[key]]\nname = \"a\"\nsource = \"b\"\n";
  ExpectRefused(block + block, "line 4 column 1", "'a' is declared twice, first on line 1");
}

TEST(Config, NamesThePlaceOfBrokenToml) {
  ExpectRefused("[agent]\nhost = db1\n", "line 2 column 8", "");
  ExpectRefused("[agent]\nhost = \"a\"\nhost = \"b\"\n", "line 3 column 8", "cannot redefine");
  ExpectRefused("[$]\n", "line 1 column 2", "");  // an assertion of toml++ 3.3.0
  ExpectRefused("[[[", "line 1 column 3", "");
  EXPECT_FALSE(ParseConfig("[agent\n", "agent.toml"));
  EXPECT_FALSE(ParseConfig("x = \"\xff\"\n", "agent.toml"));
  EXPECT_FALSE(ParseConfig(std::string(5000, '['), "agent.toml"));
}

using LoadConfigTest = ScratchFolder;

TEST_F(LoadConfigTest, AnAbsentFileGivesTheDefaults) {
  auto config = LoadConfig(At("agent.toml"));
  ASSERT_TRUE(config);
  EXPECT_FALSE(config->present);
  EXPECT_EQ(config->default_kdf, "argon2id");
}

TEST_F(LoadConfigTest, ReadsTheFile) {
  auto config = LoadConfig(Put("agent.toml", kWhole, 0644));
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_TRUE(config->present);
  EXPECT_EQ(config->keys.size(), 2u);
}

TEST_F(LoadConfigTest, RefusesAFileThatOthersCanWrite) {
  auto config = LoadConfig(Put("agent.toml", kWhole, 0646));
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code(), ErrorCode::kConfiguration);
  EXPECT_THAT(config.error().hint(), HasSubstr("chmod go-w"));
  if (geteuid() == 0) {  // whose commands run as root, and root's group has more than root
    EXPECT_FALSE(LoadConfig(Put("agent.toml", kWhole, 0664)));
    Put("agent.toml", kWhole, 0644);
    ASSERT_EQ(chown(At("agent.toml").c_str(), 1234, 0), 0);
    EXPECT_FALSE(LoadConfig(At("agent.toml")));
  }
}

TEST_F(LoadConfigTest, RefusesFoldersAndHugeFiles) {
  EXPECT_EQ(LoadConfig(folder_).error().code(), ErrorCode::kConfiguration);
  auto huge = LoadConfig(Put("agent.toml", std::string((1 << 20) + 1, '#'), 0644));
  EXPECT_THAT(huge.error().message(), HasSubstr("larger than 1 MiB"));
}

}  // namespace
}  // namespace keyescrow::agent
