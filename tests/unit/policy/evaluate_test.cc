#include "agent/policy/evaluate.h"

#include <gtest/gtest.h>

#include "envelope/base/base64url.h"
#include "tests/unit/policy/facts_builder.h"

namespace keyescrow::agent::policy {
namespace {

Policy Parse(const std::string& body) {
  auto policy = ParsePolicy("[policy]\nname = \"corp\"\nserial = 7\nmode = \"enforce\"\n" + body,
                            "policy.toml");
  EXPECT_TRUE(policy) << policy.error().message();
  return policy ? std::move(*policy) : Policy();
}

std::vector<std::string> Ids(const std::vector<Finding>& findings) {
  std::vector<std::string> ids;
  for (const Finding& finding : findings) ids.push_back(finding.rule);
  return ids;
}

TEST(PolicyEvaluation, NamesTheRuleInEachFinding) {
  const Policy policy =
      Parse("[[rule]]\nname = \"production databases\"\nmatch = \"**\"\nportable = true\n");
  const auto evaluation =
      EvaluateKey(policy, KeyBuilder("prod/db").Path("tpm", "tpm"), AgentFacts());
  ASSERT_EQ(evaluation.findings.size(), 1U);
  EXPECT_EQ(evaluation.findings[0].policy_rule, "production databases");
  EXPECT_NE(evaluation.findings[0].what.find("\"production databases\""), std::string::npos);
  EXPECT_EQ(evaluation.rules, std::vector<std::string>{"production databases"});
}

TEST(PolicyEvaluation, SaysOfADeviceThatItIsOnlyReported) {
  const auto what = [](const std::string& mode) {
    const Policy policy =
        *ParsePolicy("[policy]\nname = \"p\"\nserial = 1\nmode = \"" + mode +
                         "\"\n[tokens.ops]\nspki_sha256 = \"" + ToHex(KeyOf("ops")) +
                         "\"\n[[rule]]\nname = \"r\"\nmatch = \"**\"\n",
                     "p");
    const KeyFacts key = KeyBuilder("prod/db").Path("p", "token:ops");
    return EvaluateKey(policy, key, AgentFacts()).findings.at(0).what;
  };
  EXPECT_EQ(what("report"), what("enforce") + " (reported, not enforced)");
}

TEST(PolicyEvaluation, TellsWhichRulesAnExceptionSetsAside) {
  const Policy policy = Parse(
      "[[rule]]\nname = \"r\"\nmatch = \"**\"\nportable = true\n[[exception]]\nkey = \"prod/db\"\n"
      "rule = \"r\"\nuntil = 2030-01-01T00:00:00Z\nreason = \"legacy\"\n");
  const auto evaluation =
      EvaluateKey(policy, KeyBuilder("prod/db").Path("tpm", "tpm"), AgentFacts());
  EXPECT_TRUE(evaluation.findings.empty());
  EXPECT_TRUE(evaluation.rules.empty());
  EXPECT_EQ(evaluation.exempted, std::vector<std::string>{"r"});
}

TEST(PolicyEvaluation, SaysWhenGraceEnds) {
  const Policy policy =
      Parse("[[rule]]\nname = \"r\"\nmatch = \"**\"\nportable = true\ngrace = \"14d\"\n");
  const auto evaluation =
      EvaluateKey(policy, KeyBuilder("prod/db").Path("tpm", "tpm"), AgentFacts());
  ASSERT_EQ(evaluation.findings.size(), 1U);
  EXPECT_NE(evaluation.findings[0].what.find("in grace until 2027-01-10"), std::string::npos)
      << evaluation.findings[0].what;
}

TEST(PolicyEvaluation, SaysWhichCostsAreTooLow) {
  const Policy policy =
      Parse("[[rule]]\nname = \"r\"\nmatch = \"**\"\nkdf = { argon2id_min_passes = 6 }\n");
  const auto told = [&](const KeyBuilder& key) {
    const auto findings = EvaluateKey(policy, key, AgentFacts()).findings;
    return findings.size() == 1 ? findings[0].what + " / " + findings[0].remedy : std::string();
  };
  EXPECT_EQ(
      told(KeyBuilder("prod/db").Path("p", "password & token:ops")),
      "the rule \"r\" asks for argon2id with 6 passes at least, and the path p has 4 passes / "
      "back the key up again: the policy's costs are then used");
  // Of a recovery key a new backup would keep them.
  EXPECT_NE(told(KeyBuilder("prod/db").Path("p", "recovery-key:team").Opened("password"))
                .find("'keyescrow recovery-key password team'"),
            std::string::npos);
}

TEST(PolicyEvaluation, ARemedyHasTheNamesThatTokensHaveHere) {
  const std::string pin = "[tokens.blue]\nspki_sha256 = \"" + EncodeBase64Url(KeyOf("ops")) +
                          "\"\nassurance = \"software\"\n";
  const std::string rule =
      "[[rule]]\nname = \"r\"\nmatch = \"**\"\nrequire = [\"password & token:blue\"]\n";
  const KeyFacts key = KeyBuilder("prod/db").Path("tpm", "tpm");
  Facts facts = AgentFacts();
  const auto remedy = [&](const Policy& policy) {
    const auto findings = EvaluateKey(policy, key, facts, {.shape_only = true}).findings;
    return findings.empty() ? std::string() : findings[0].what + " / " + findings[0].remedy;
  };
  facts.tokens.push_back({"ops", KeyOf("ops"), Assurance::kSoftware, false});
  EXPECT_EQ(
      remedy(Parse(pin + rule)),
      "the rule \"r\" requires the path 'token:blue & password', and the key has no such path "
      "/ back the key up with --path 'token:ops & password' among its paths");
  // The id is the policy's, where it is drilled by that.
  EXPECT_NE(remedy(Parse(pin + rule + "drill_every = \"90d\"\ndrill_paths = [\"token-blue\"]\n"))
                .find("--path 'token-blue=token:ops & password'"),
            std::string::npos);
  facts.tokens.clear();
  EXPECT_NE(remedy(Parse(pin + rule)).find("--path 'token:blue & password'"), std::string::npos);
}

TEST(PolicyEvaluation, TheRemedyOfTooLittleAssuranceFitsTheToken) {
  const auto asking = [](const std::string& assurance) {
    return Parse("[tokens.ops]\nspki_sha256 = \"" + EncodeBase64Url(KeyOf("ops")) +
                 "\"\nassurance = \"" + assurance + "\"\n[[rule]]\nname = \"r\"\nmatch = \"**\"\n");
  };
  Policy policy = asking("asserted");
  Facts facts = AgentFacts();
  const auto remedy = [&] {
    const KeyFacts key = KeyBuilder("prod/db").Path("p", "token:ops");
    for (const Finding& finding : EvaluateKey(policy, key, facts).findings) {
      if (finding.rule == "token_assurance") return finding.remedy;
    }
    return std::string();
  };
  EXPECT_NE(remedy().find("'keyescrow token add ops URI"), std::string::npos);
  facts.tokens.push_back({"blue", KeyOf("ops"), std::nullopt, false});
  EXPECT_NE(remedy().find("'keyescrow token add blue URI"), std::string::npos);
  facts.tokens[0].assurance = Assurance::kSoftware;
  EXPECT_NE(remedy().find("'keyescrow token keygen'"), std::string::npos);
  facts.tokens[0].simulator = true;
  EXPECT_EQ(remedy(), "use a token of hardware: the keys of this one are files");
  facts.tokens[0] = {"blue", KeyOf("ops"), Assurance::kAsserted, false};
  policy = asking("attested");
  EXPECT_NE(remedy().find("reads no maker's attestation"), std::string::npos) << remedy();
}

TEST(PolicyEvaluation, AsksForReasonAndTicketOfARelease) {
  const Policy policy = Parse(
      "[[rule]]\nname = \"r\"\nmatch = \"prod/**\"\nreason = \"required\"\n"
      "ticket = \"^(INC|CHG)-[0-9]+$\"\n");
  const auto ids = [&](Release release) {
    return Ids(EvaluateRelease(policy, release, AgentFacts()));
  };
  EXPECT_EQ(ids({"prod/db", "db1", "", ""}),
            (std::vector<std::string>{"reason_missing", "ticket_missing"}));
  EXPECT_EQ(ids({"prod/db", "db1", " \t", "INC-4711"}), std::vector<std::string>{"reason_missing"});
  // No-break space, zero width space and joiner, ideographic space, a filler that is a letter.
  EXPECT_EQ(ids({"prod/db", "db1", "\u00a0\u200b \u200d\u3000\u3164\u2028", "INC-4711"}),
            std::vector<std::string>{"reason_missing"});
  EXPECT_TRUE(ids({"prod/db", "db1", "\u200b\u00dcbung", "INC-4711"}).empty());
  EXPECT_TRUE(ids({"prod/db", "db1", "\xff", "INC-4711"}).empty());
  EXPECT_EQ(ids({"prod/db", "db1", "disk died", "INC-"}),
            std::vector<std::string>{"ticket_missing"});
  EXPECT_TRUE(ids({"prod/db", "db1", "disk died", "INC-4711"}).empty());
  EXPECT_TRUE(ids({"test/db", "db1", "", ""}).empty());
}

TEST(PolicyEvaluation, AnExpiredPolicyIsAWarningAndHolds) {
  const Policy policy = Parse(
      "expires = 2027-01-01T00:00:00Z\n[[rule]]\nname = \"r\"\nmatch = \"**\"\n"
      "portable = true\n");
  const auto findings = EvaluatePolicy(policy, AgentFacts());
  ASSERT_EQ(findings.size(), 1U);
  EXPECT_EQ(findings[0].rule, "policy_expired");
  EXPECT_EQ(findings[0].severity, Severity::kWarning);
  EXPECT_FALSE(
      EvaluateKey(policy, KeyBuilder("prod/db").Path("tpm", "tpm"), AgentFacts()).Complies());
}

TEST(PolicyEvaluation, TakesTheShortestDrillPeriod) {
  const Policy policy = Parse(
      "[[rule]]\nname = \"a\"\nmatch = \"**\"\ndrill_every = \"90d\"\n"
      "[[rule]]\nname = \"b\"\nmatch = \"prod/**\"\ndrill_every = \"30d\"\n"
      "drill_paths = [\"tpm\"]\n");
  const auto rules = MatchingRules(policy, "prod/db", "db1", kNow);
  EXPECT_EQ(DrillPeriod(rules, "tpm"), 30 * kDay);
  EXPECT_EQ(DrillPeriod(rules, "token-ops"), 90 * kDay);
  EXPECT_EQ(DrillPeriod({}, "tpm"), std::nullopt);
}

TEST(PolicyEvaluation, GathersRequiredPathsAndProfiles) {
  const Policy policy = Parse(
      "[passwords.office]\nprofile = \"nist-800-63b\"\nmin_length = 16\n"
      "[[rule]]\nname = \"a\"\nmatch = \"**\"\nrequire = [\"token:ops\", \"tpm\"]\n"
      "password = \"office\"\n"
      "[[rule]]\nname = \"b\"\nmatch = \"prod/**\"\nrequire = [\"tpm\"]\npassword = \"ssrs\"\n");
  const auto rules = MatchingRules(policy, "prod/db", "db1", kNow);
  EXPECT_EQ(RequiredPaths(rules).size(), 2U);
  const auto profiles = PasswordRulesOf(policy, rules);
  ASSERT_EQ(profiles.size(), 2U);
  EXPECT_EQ(profiles[0].min_length, 16U);
  EXPECT_EQ(profiles[1].profile, envelope::PasswordProfile::kSsrs);
  const auto none = PasswordRulesOf(policy, {});
  ASSERT_EQ(none.size(), 1U);
  EXPECT_EQ(none[0].profile, envelope::PasswordProfile::kNist80063b);
}

TEST(BuiltinPolicy, IsWhatItsTextSays) {
  const auto parsed = ParsePolicy(BuiltinPolicyText(), "builtin");
  ASSERT_TRUE(parsed) << parsed.error().message();
  const Policy& builtin = BuiltinPolicy();
  EXPECT_EQ(parsed->name, builtin.name);
  EXPECT_EQ(parsed->mode, builtin.mode);
  EXPECT_EQ(parsed->simulators, builtin.simulators);
  EXPECT_EQ(parsed->sha256, builtin.sha256);
  ASSERT_EQ(parsed->rules.size(), 1U);
  ASSERT_EQ(builtin.rules.size(), 1U);
  const Rule& left = parsed->rules[0];
  const Rule& right = builtin.rules[0];
  EXPECT_EQ(left.name, right.name);
  EXPECT_EQ(left.match, right.match);
  EXPECT_EQ(left.line, right.line);
  EXPECT_EQ(left.forbid, right.forbid);
  EXPECT_EQ(left.portable, right.portable);
  EXPECT_EQ(left.password_profile, right.password_profile);
  EXPECT_EQ(left.drill_every_s, right.drill_every_s);
}

TEST(BuiltinPolicy, KeepsToItsFourRules) {
  const auto ids = [](const KeyFacts& key) {
    return Ids(EvaluateKey(BuiltinPolicy(), key, AgentFacts()).findings);
  };
  EXPECT_TRUE(ids(KeyBuilder("k").Path("token-ops", "password & token:ops").Proven(1)).empty());
  EXPECT_EQ(ids(KeyBuilder("k").Path("password", "password").Proven(1)),
            std::vector<std::string>{"password_only_path"});
  EXPECT_EQ(ids(KeyBuilder("k").Path("tpm", "password & tpm").Proven(1)),
            std::vector<std::string>{"no_portable_path"});
  EXPECT_EQ(ids(KeyBuilder("k").Path("token-ops", "password & token:ops").Proven(91)),
            (std::vector<std::string>{"path_stale", "portable_path_unproven"}));
}

}  // namespace
}  // namespace keyescrow::agent::policy
