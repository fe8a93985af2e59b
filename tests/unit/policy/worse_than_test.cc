#include "agent/policy/worse_than.h"

#include <gtest/gtest.h>

#include "tests/unit/policy/facts_builder.h"

namespace keyescrow::agent::policy {
namespace {

constexpr const char* kOps = "password & token:ops";
constexpr const char* kSafe = "password & token:safe";
constexpr const char* kTpm = "password & tpm";

class WorseThanTest : public testing::Test {
 protected:
  // Rules returns the rules that `after` breaks and `before` did not.
  static std::vector<std::string> Rules(const std::string& rule, const KeyFacts& before,
                                        const KeyFacts& after) {
    auto policy = ParsePolicy(
        "[policy]\nname = \"corp\"\nserial = 7\nmode = \"enforce\"\n[[rule]]\nname = \"r\"\n"
        "match = \"**\"\n" +
            rule,
        "policy.toml");
    EXPECT_TRUE(policy) << policy.error().message();
    std::vector<std::string> rules;
    for (const Finding& finding : WorseThan(*policy, before, after, AgentFacts())) {
      rules.push_back(finding.rule);
    }
    return rules;
  }
  using List = std::vector<std::string>;
};

TEST_F(WorseThanTest, NothingThatHoldsMayBeGivenUp) {
  const auto both = KeyBuilder("k").Path("ops", kOps).Path("tpm", kTpm);
  const auto tpm = KeyBuilder("k").Path("tpm", kTpm);
  EXPECT_EQ(Rules("portable = true\n", both, tpm), List{"no_portable_path"});
  EXPECT_EQ(Rules("require = [\"password & token:ops\"]\n", both, tpm),
            List{"required_path_missing"});
  const auto weak = KeyBuilder("k").Path("ops", kOps).Path("tpm", kTpm).Path("p", "password");
  EXPECT_EQ(Rules("forbid = [\"password\"]\n", both, weak), List{"password_only_path"});
}

TEST_F(WorseThanTest, WhatWasBrokenBeforeDoesNotStandInTheWay) {
  const auto weak = KeyBuilder("k").Path("p", "password").Path("ops", kOps);
  const auto more = KeyBuilder("k").Path("p", "password").Path("ops", kOps).Path("s", kSafe);
  const std::string rule =
      "forbid = [\"password\"]\nrequire = [\"recovery-key:team\"]\nportable = true\n";
  EXPECT_EQ(Rules(rule, weak, weak), List{});
  EXPECT_EQ(Rules(rule, weak, more), List{});
  // A second one of the same kind is new.
  const auto second = KeyBuilder("k").Path("p", "password").Path("q", "password").Path("ops", kOps);
  EXPECT_EQ(Rules(rule, weak, second), List{"password_only_path"});
}

TEST_F(WorseThanTest, SurvivalMayStayLowAndNotFall) {
  const std::string rule = "survive = 2\n";
  const auto three = KeyBuilder("k").Path("a", "token:a").Path("b", "token:b").Path("c", "token:c");
  const auto two = KeyBuilder("k").Path("a", "token:a").Path("b", "token:b");
  const auto other = KeyBuilder("k").Path("a", "token:a").Path("d", "token:d");
  const auto one = KeyBuilder("k").Path("a", "token:a");
  EXPECT_EQ(Rules(rule, three, two), List{"survives_too_little"});
  EXPECT_EQ(Rules(rule, two, other), List{});
  EXPECT_EQ(Rules(rule, one, two), List{});
  EXPECT_EQ(Rules(rule, two, one), List{"survives_too_little"});
  // To a recovery key that the same token opens.
  const auto same = KeyBuilder("k").Path("a", "token:a").Path("r", "recovery-key:team");
  EXPECT_EQ(Rules(rule, two, KeyBuilder(same).Opened("token:a")), List{"survives_too_little"});
  EXPECT_EQ(Rules(rule, two, KeyBuilder(same).Opened("token:b")), List{});
}

TEST_F(WorseThanTest, TheftsMayStayTooManyAndNotRise) {
  const std::string rule = "withstand = 2\n";
  const auto three = KeyBuilder("k").Path("a", "token:a & token:b & token:c");
  const auto two = KeyBuilder("k").Path("a", "token:a & token:b");
  const auto other = KeyBuilder("k").Path("a", "token:a & token:d");
  const auto one = KeyBuilder("k").Path("a", "token:a");
  EXPECT_EQ(Rules(rule, three, two), List{"withstands_too_little"});
  EXPECT_EQ(Rules(rule, two, other), List{});
  EXPECT_EQ(Rules(rule, one, two), List{});
  EXPECT_EQ(Rules(rule, two, one), List{"withstands_too_little"});
}

// The TPM without a host is that of the key's host: one factor under two names.
TEST_F(WorseThanTest, ATpmUnderTwoNamesIsOne) {
  const auto two = KeyBuilder("k").Path("t", "tpm").Path("a", "token:a");
  const auto one = KeyBuilder("k").Path("t", "tpm").Path("a", "tpm:db1");
  EXPECT_EQ(Rules("survive = 2\n", two, one), List{"survives_too_little"});
}

// Of more factors than can be counted nothing is known, so nothing is said to be as before.
TEST_F(WorseThanTest, WhatCannotBeCountedIsWorse) {
  const auto one = KeyBuilder("k").Path("a", "token:a");
  auto many = KeyBuilder("k");
  for (char name = 'a'; name < 'a' + 17; ++name) {
    many.Path(std::string(1, name), std::string("token:") + name);
  }
  const List rules = Rules("survive = 2\nwithstand = 1\n", one, many);
  EXPECT_EQ(rules, List{"not_analysed"});
}

TEST_F(WorseThanTest, AWarningStandsInNobodysWay) {
  const auto both = KeyBuilder("k").Path("ops", kOps).Path("tpm", kTpm);
  const auto tpm = KeyBuilder("k").Path("tpm", kTpm);
  EXPECT_EQ(Rules("mode = \"report\"\nportable = true\n", both, tpm), List{});
}

TEST(FactsOf, AHeaderTellsWhatOpensARecoveryKey) {
  envelope::Header header;
  header.host = "db1";
  envelope::PathRecord& path = header.paths.emplace_back();
  envelope::Pkcs11RsaRecord token;
  token.token = "ops";
  path.factors.emplace_back(token);
  path.factors.emplace_back(envelope::PasswordRecord{envelope::Argon2idParameters{}, ""});
  path.recovery_key.emplace();
  path.recovery_key->name = "team";
  const KeyFacts key = FactsOf(header);
  EXPECT_EQ(FormatPathExpression(key.paths.at(0).expression), "recovery-key:team");
  EXPECT_EQ(FormatPathExpression(key.paths.at(0).OpenedBy()), "token:ops & password");
  EXPECT_TRUE(key.paths.at(0).kdf);
}

}  // namespace
}  // namespace keyescrow::agent::policy
