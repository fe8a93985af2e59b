// Evaluation as a table: one row a case. A finding is its id, with "!" where it is critical.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "agent/policy/evaluate.h"
#include "envelope/base/base64url.h"
#include "tests/unit/policy/facts_builder.h"

namespace keyescrow::agent::policy {
namespace {

struct Case {
  const char* name;
  std::string policy;  // what stands after the head
  KeyFacts key;
  std::vector<std::string> findings;
  Facts facts = AgentFacts();
  EvaluateOptions options = {};
};

std::string Head(const char* mode, const char* simulators = "allowed") {
  return fmt::format("[policy]\nname = \"corp\"\nserial = 7\nmode = \"{}\"\nsimulators = \"{}\"\n",
                     mode, simulators);
}

// R is an enforced policy of one rule for every key.
std::string R(const std::string& body) {
  return Head("enforce") + "[[rule]]\nname = \"r\"\nmatch = \"**\"\n" + body + "\n";
}

std::string Report(const std::string& body) {
  return Head("report") + "[[rule]]\nname = \"r\"\nmatch = \"**\"\n" + body + "\n";
}

std::string Pinned(const std::string& tables, const std::string& body) {
  return Head("enforce") + tables + "\n[[rule]]\nname = \"r\"\nmatch = \"**\"\n" + body + "\n";
}

std::string OpsPin(const char* assurance) {
  return fmt::format("[tokens.ops]\nspki_sha256 = \"{}\"\nassurance = \"{}\"",
                     EncodeBase64Url(KeyOf("ops")), assurance);
}

constexpr char kThumbprint[] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
constexpr char kOtherThumbprint[] = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

KeyBuilder Key() { return KeyBuilder("prod/db/main"); }
KeyBuilder TokenKey() { return Key().Path("token-ops", "password & token:ops"); }
KeyBuilder TpmKey() { return Key().Path("tpm", "password & tpm"); }

Facts WithToken(std::optional<Assurance> assurance, bool simulator) {
  Facts facts = AgentFacts();
  facts.tokens.push_back({"ops", KeyOf("ops"), assurance, simulator});
  return facts;
}

Facts WithTpmSimulator() {
  Facts facts = AgentFacts();
  facts.tpm_simulator = true;
  return facts;
}

std::vector<Case> AllCases() {
  const std::string require = R("require = [\"password & token:ops\"]");
  const std::string drills = R("drill_every = \"90d\"");
  const std::string portable_drills = R("portable = true\ndrill_every = \"90d\"");
  const std::string named_drills = R("drill_every = \"90d\"\ndrill_paths = [\"token-ops\"]");
  const std::string costs = R(
      "kdf = { argon2id_min_memory_kib = 262144, argon2id_min_passes = 4, pbkdf2_min_iterations = "
      "1000000 }");
  const std::string grace = R("grace = \"14d\"\nrequire = [\"token:ops\"]");
  const std::string exception = R("require = [\"token:ops\"]") +
                                "[[exception]]\nkey = \"prod/db/*\"\nhost = \"db1\"\nrule = \"r\"\n"
                                "until = 2027-03-31T00:00:00Z\nreason = \"migration\"\n";
  const std::string exception_of_another =
      R("require = [\"token:ops\"]") +
      "[[rule]]\nname = \"s\"\nmatch = \"**\"\n"
      "[[exception]]\nkey = \"prod/db/*\"\nrule = \"s\"\nuntil = 2030-01-01T00:00:00Z\nreason = "
      "\"migration\"\n";
  const std::string ended =
      R("require = [\"token:ops\"]") +
      "[[exception]]\nkey = \"prod/db/*\"\nrule = \"r\"\nuntil = 2027-01-01T00:00:00Z\nreason = "
      "\"migration\"\n";
  const std::string two_rules =
      Head("enforce") +
      "[[rule]]\nname = \"one\"\nmatch = \"prod/**\"\nrequire = [\"token:ops\"]\n"
      "[[rule]]\nname = \"two\"\nmatch = \"prod/db/*\"\nmode = \"report\"\nportable = true\n";
  const std::string recovery =
      Pinned(fmt::format("[recovery_keys.team]\npublic_thumbprint = \"{}\"", kThumbprint),
             "require = [\"recovery-key:team\"]");
  const envelope::Argon2idParameters weak_memory{4, 65536, 4};
  const envelope::Argon2idParameters weak_passes{1, 262144, 4};
  const envelope::Pbkdf2Parameters weak_pbkdf2{600000};
  const envelope::Pbkdf2Parameters pbkdf2{1000000};
  return {
      // require
      {"the required path is there", require, TokenKey(), {}},
      {"factors may be written in any order",
       R("require = [\"token:ops & password\"]"),
       TokenKey(),
       {}},
      {"the required path is missing", require, TpmKey(), {"required_path_missing!"}},
      {"a path with one more factor is another path",
       require,
       Key().Path("all", "password & token:ops & tpm"),
       {"required_path_missing!"}},
      {"each required path counts",
       R("require = [\"token:ops\", \"token:hr\"]"),
       Key().Path("a", "token:ops"),
       {"required_path_missing!"}},
      {"two that are missing are two findings",
       R("require = [\"token:ops\", \"token:hr\"]"),
       TpmKey(),
       {"required_path_missing!", "required_path_missing!"}},
      {"tpm means the key's own host",
       R("require = [\"password & tpm\"]"),
       Key().Path("tpm", "password & tpm:db1"),
       {}},
      {"another host's tpm is not it",
       R("require = [\"password & tpm\"]"),
       Key().Path("tpm", "password & tpm:db2"),
       {"required_path_missing!"}},
      {"a tpm by its host's name", R("require = [\"password & tpm:db1\"]"), TpmKey(), {}},
      {"shares, whatever their order",
       R("require = [\"2 of (token:b, token:a)\"]"),
       Key().Path("2of2", "2 of (token:a, token:b)"),
       {}},
      {"another threshold is another path",
       R("require = [\"2 of (token:a, token:b, token:c)\"]"),
       Key().Path("x", "3 of (token:a, token:b, token:c)"),
       {"required_path_missing!"}},
      {"a rule of other keys says nothing",
       Head("enforce") + "[[rule]]\nname = \"r\"\nmatch = \"test/**\"\nrequire = [\"token:ops\"]\n"
                         "[[rule]]\nname = \"all\"\nmatch = \"**\"\n",
       TpmKey(),
       {}},
      // forbid
      {"a password alone is forbidden",
       R("forbid = [\"password\"]"),
       Key().Path("password", "password"),
       {"password_only_path!"}},
      {"the tpm alone is forbidden",
       R("forbid = [\"tpm\"]"),
       Key().Path("tpm", "tpm"),
       {"forbidden_path!"}},
      {"forbidden are exactly these factors", R("forbid = [\"password\", \"tpm\"]"), TpmKey(), {}},
      {"every forbidden path is found",
       R("forbid = [\"tpm\"]"),
       Key().Path("a", "tpm").Path("b", "tpm:db1"),
       {"forbidden_path!", "forbidden_path!"}},
      {"a recovery key is what opens it",
       R("forbid = [\"password & token:ops\"]"),
       Key().Path("r", "recovery-key:team").Opened("password & token:ops"),
       {"forbidden_path!"}},
      {"a recovery key that a password alone opens",
       R("forbid = [\"password\"]"),
       Key().Path("r", "recovery-key:team").Opened("password"),
       {"password_only_path!"}},
      {"a recovery key that more opens is another",
       R("forbid = [\"password & token:ops\"]"),
       Key().Path("r", "recovery-key:team").Opened("password & token:ops & token:b"),
       {}},
      {"a recovery key itself is forbidden",
       R("forbid = [\"recovery-key:team\"]"),
       Key().Path("r", "recovery-key:team").Opened("password & token:ops"),
       {"forbidden_path!"}},
      // portable
      {"a token's path is portable", R("portable = true"), TokenKey(), {}},
      {"a recovery key is portable",
       R("portable = true"),
       Key().Path("r", "recovery-key:team"),
       {}},
      {"every path needs a tpm", R("portable = true"), TpmKey(), {"no_portable_path!"}},
      {"portable = false asks for nothing", R("portable = false"), TpmKey(), {}},
      // survive, withstand
      {"one path survives no loss", R("survive = 1"), TokenKey(), {"survives_too_little!"}},
      {"two paths without a common factor survive one",
       R("survive = 1"),
       Key().Path("a", "token:ops").Path("b", "token:hr"),
       {}},
      {"one password in both does not",
       R("survive = 1"),
       Key().Path("a", "password & token:ops").Path("b", "password & tpm"),
       {"survives_too_little!"}},
      {"three paths survive two",
       R("survive = 2"),
       Key().Path("a", "token:a").Path("b", "token:b").Path("c", "tpm"),
       {}},
      {"two of three officers survive one",
       R("survive = 1"),
       Key().Path("x", "2 of (token:a, token:b, token:c)"),
       {}},
      {"two of three officers survive no two",
       R("survive = 2"),
       Key().Path("x", "2 of (token:a, token:b, token:c)"),
       {"survives_too_little!"}},
      {"two factors withstand one theft", R("withstand = 1"), TokenKey(), {}},
      {"a token alone withstands none",
       R("withstand = 1"),
       Key().Path("a", "token:ops"),
       {"withstands_too_little!"}},
      {"the weakest path counts",
       R("withstand = 1"),
       Key().Path("a", "password & token:ops").Path("b", "tpm"),
       {"withstands_too_little!"}},
      {"both at once",
       R("survive = 1\nwithstand = 1"),
       Key().Path("a", "token:a & token:b").Path("b", "token:c & token:d"),
       {}},
      {"a recovery key shares what opens it",
       R("survive = 1"),
       Key()
           .Path("a", "password & token:ops")
           .Path("r", "recovery-key:team")
           .Opened("password & token:ops"),
       {"survives_too_little!"}},
      {"a recovery key of others survives",
       R("survive = 1"),
       Key()
           .Path("a", "password & token:ops")
           .Path("r", "recovery-key:team")
           .Opened("2 of (token:a, token:b, token:c)"),
       {}},
      {"a recovery key withstands what its factors do",
       R("withstand = 1"),
       Key().Path("r", "recovery-key:team").Opened("password & token:ops"),
       {}},
      {"a recovery key of which nothing is known is one factor",
       R("withstand = 1"),
       Key().Path("r", "recovery-key:team"),
       {"withstands_too_little!"}},
      {"a recovery key that a tpm opens is not portable",
       R("portable = true"),
       Key().Path("r", "recovery-key:team").Opened("password & tpm"),
       {"no_portable_path!"}},
      // kdf, fips
      {"the usual costs are enough", costs, TokenKey(), {}},
      {"too little memory", costs, TokenKey().Kdf(weak_memory), {"kdf_too_weak!"}},
      {"too few passes", costs, TokenKey().Kdf(weak_passes), {"kdf_too_weak!"}},
      {"too few iterations", costs, TokenKey().Kdf(weak_pbkdf2), {"kdf_too_weak!"}},
      {"enough iterations", costs, TokenKey().Kdf(pbkdf2), {}},
      {"a path without a password has no kdf", costs, Key().Path("a", "token:ops"), {}},
      {"argon2id is not FIPS-approvable", R("fips = true"), TokenKey(), {"not_fips!"}},
      {"pbkdf2 is", R("fips = true"), TokenKey().Kdf(pbkdf2), {}},
      // drills
      {"proven lately", drills, TokenKey().Proven(3), {}},
      {"proven on the last day", drills, TokenKey().Proven(90), {}},
      {"never proven", drills, TokenKey(), {"path_unproven", "no_path_proven!"}},
      {"proven too long ago", drills, TokenKey().Proven(91), {"path_stale", "no_path_proven!"}},
      {"proven before it was edited",
       drills,
       TokenKey().ProvenBeforeEdit(3),
       {"path_stale", "no_path_proven!"}},
      {"one fresh path is enough to be no more than warned",
       drills,
       Key().Path("a", "token:ops").Proven(3).Path("b", "tpm"),
       {"path_unproven"}},
      {"failed since", drills, TokenKey().Proven(3).Failed(1), {"path_broken!", "no_path_proven!"}},
      {"failed in the same second",
       drills,
       TokenKey().Proven(3).Failed(3),
       {"path_broken!", "no_path_proven!"}},
      {"failed before it was proven", drills, TokenKey().Proven(1).Failed(3), {}},
      {"the portable one must be fresh",
       portable_drills,
       Key().Path("a", "token:ops").Path("b", "tpm").Proven(1),
       {"path_unproven", "portable_path_unproven!"}},
      {"no portable path is one finding, not two",
       portable_drills,
       TpmKey().Proven(1),
       {"no_portable_path!"}},
      {"a named path that is fresh",
       named_drills,
       Key().Path("token-ops", "token:ops").Proven(1).Path("tpm", "tpm"),
       {}},
      {"a named path that is not",
       named_drills,
       Key().Path("token-ops", "token:ops").Path("tpm", "tpm").Proven(1),
       {"path_unproven!"}},
      {"a named path that is not there", named_drills, TpmKey().Proven(1), {"drill_path_missing!"}},
      {"no drill asked for", R("portable = true"), TokenKey(), {}},
      // rotation
      {"young enough", R("rotate_every = \"365d\""), TokenKey().Created(365), {}},
      {"too old", R("rotate_every = \"365d\""), TokenKey().Created(366), {"rotation_due!"}},
      {"imported, and too old",
       R("rotate_every = \"365d\""),
       TokenKey().Made(366),
       {"rotation_due!"}},
      {"of a maker whose clock was ahead",
       R("rotate_every = \"365d\""),
       TokenKey().Created(366).Made(1),
       {"rotation_due!"}},
      {"released, and time is left",
       R("rotate_after_restore = \"7d\""),
       TokenKey().Restored(3),
       {"rotate_after_restore"}},
      {"released too long ago",
       R("rotate_after_restore = \"7d\""),
       TokenKey().Restored(8),
       {"rotate_after_restore!"}},
      {"released as long ago as it may be",
       R("rotate_after_restore = \"7d\""),
       TokenKey().Restored(7),
       {"rotate_after_restore"}},
      {"never released", R("rotate_after_restore = \"7d\""), TokenKey(), {}},
      // modes and grace
      {"a policy that reports",
       Report("require = [\"token:hr\"]"),
       TokenKey(),
       {"required_path_missing"}},
      {"a rule that enforces in a policy that reports",
       Report("mode = \"enforce\"\nrequire = [\"token:hr\"]"),
       TokenKey(),
       {"required_path_missing!"}},
      {"a rule that reports in a policy that enforces",
       R("mode = \"report\"\nrequire = [\"token:hr\"]"),
       TokenKey(),
       {"required_path_missing"}},
      {"in grace from the day the policy was set", grace, TpmKey(), {"required_path_missing"}},
      {"in grace from the day of the key",
       grace,
       TpmKey().FirstCreated(2),
       {"required_path_missing"},
       [] {
         Facts facts = AgentFacts();
         facts.policy_set = kNow - 100 * kDay;
         return facts;
       }()},
      {"grace is over",
       grace,
       TpmKey().FirstCreated(100),
       {"required_path_missing!"},
       [] {
         Facts facts = AgentFacts();
         facts.policy_set = kNow - 14 * kDay;
         return facts;
       }()},
      {"as if enforced: reported",
       Report("require = [\"token:hr\"]"),
       TokenKey(),
       {"required_path_missing!"},
       AgentFacts(),
       {false, true}},
      {"as if enforced: in grace",
       grace,
       TpmKey(),
       {"required_path_missing!"},
       AgentFacts(),
       {false, true}},
      {"the shape alone",
       R("drill_every = \"90d\"\nrequire = [\"token:hr\"]"),
       TokenKey(),
       {"required_path_missing!"},
       AgentFacts(),
       {true, false}},
      // several rules
      {"every matching rule applies",
       two_rules,
       TpmKey(),
       {"required_path_missing!", "no_portable_path"}},
      {"a pattern of one segment stops there",
       two_rules,
       KeyBuilder("prod/db/a/b").Path("tpm", "tpm"),
       {"required_path_missing!"}},
      {"no rule matches", two_rules, KeyBuilder("test/x").Path("tpm", "tpm"), {"no_rule_matches!"}},
      {"no rule matches where nothing is enforced",
       Head("report") + "[[rule]]\nname = \"r\"\nmatch = \"prod/**\"\n",
       KeyBuilder("test/x").Path("tpm", "tpm"),
       {"no_rule_matches"}},
      // exceptions
      {"an exception sets the rule aside", exception, TpmKey(), {}},
      {"of another host", exception, TpmKey().Host("db2"), {"required_path_missing!"}},
      {"of another key",
       exception,
       KeyBuilder("prod/web").Path("tpm", "tpm"),
       {"required_path_missing!"}},
      {"of another rule", exception_of_another, TpmKey(), {"required_path_missing!"}},
      {"that has ended", ended, TpmKey(), {"required_path_missing!"}},
      // pins
      {"the pinned token under its name",
       Pinned(OpsPin("software"), "require = [\"token:ops\"]"),
       Key().Path("a", "token:ops"),
       {}},
      {"the pinned key under another name",
       Pinned(OpsPin("software"), "require = [\"token:ops\"]"),
       Key().Path("a", "token:blue").TokenKey("blue", "ops"),
       {}},
      {"another key under the pinned name",
       Pinned(OpsPin("software"), "require = [\"token:ops\"]"),
       Key().Path("a", "token:ops").TokenKey("ops", "mallory"),
       {"token_not_pinned!", "required_path_missing!"}},
      {"a forbidden path by the pinned key",
       Pinned(OpsPin("software"), "forbid = [\"token:ops\"]"),
       Key().Path("a", "token:blue").TokenKey("blue", "ops"),
       {"forbidden_path!"}},
      {"nothing is known of the token",
       Pinned(OpsPin("asserted"), ""),
       Key().Path("a", "token:ops"),
       {"token_assurance!"}},
      {"its key was never looked at",
       Pinned(OpsPin("asserted"), ""),
       Key().Path("a", "token:ops"),
       {"token_assurance!"},
       WithToken(std::nullopt, false)},
      {"a software token where more is asked",
       Pinned(OpsPin("asserted"), ""),
       Key().Path("a", "token:ops"),
       {"token_assurance!"},
       WithToken(Assurance::kSoftware, false)},
      {"asserted is enough",
       Pinned(OpsPin("asserted"), ""),
       Key().Path("a", "token:ops"),
       {},
       WithToken(Assurance::kAsserted, false)},
      {"asserted where attested is asked",
       Pinned(OpsPin("attested"), ""),
       Key().Path("a", "token:ops"),
       {"token_assurance!"},
       WithToken(Assurance::kAsserted, false)},
      {"said once for two paths",
       Pinned(OpsPin("asserted"), ""),
       Key().Path("a", "token:ops").Path("b", "token:ops & password"),
       {"token_assurance!"}},
      {"the pinned recovery key",
       recovery,
       Key().Path("r", "recovery-key:team").RecoveryKey(kThumbprint),
       {}},
      {"the pin of another recovery key does not bind it",
       Pinned(fmt::format("[recovery_keys.other]\npublic_thumbprint = \"{}\"\n"
                          "[recovery_keys.team]\npublic_thumbprint = \"{}\"",
                          kOtherThumbprint, kThumbprint),
              "require = [\"recovery-key:team\"]"),
       Key().Path("r", "recovery-key:team").RecoveryKey(kThumbprint),
       {}},
      {"another recovery key under its name",
       recovery,
       Key().Path("r", "recovery-key:team").RecoveryKey(kOtherThumbprint),
       {"recovery_key_not_pinned!", "required_path_missing!"}},
      // simulators
      {"a simulated token is forbidden",
       Head("enforce", "forbidden") + "[[rule]]\nname = \"r\"\nmatch = \"**\"\n",
       Key().Path("a", "token:ops"),
       {"simulator!"},
       WithToken(Assurance::kSoftware, true)},
      {"a simulated token is reported",
       Head("enforce", "reported") + "[[rule]]\nname = \"r\"\nmatch = \"**\"\n",
       Key().Path("a", "token:ops"),
       {"simulator"},
       WithToken(Assurance::kSoftware, true)},
      {"a simulated token is allowed",
       R(""),
       Key().Path("a", "token:ops"),
       {},
       WithToken(Assurance::kSoftware, true)},
      {"a simulated tpm is forbidden",
       Head("enforce", "forbidden") + "[[rule]]\nname = \"r\"\nmatch = \"**\"\n",
       TpmKey(),
       {"simulator!"},
       WithTpmSimulator()},
      {"a simulated tpm of another host is not known",
       Head("enforce", "forbidden") + "[[rule]]\nname = \"r\"\nmatch = \"**\"\n",
       TpmKey().Host("db2"),
       {},
       WithTpmSimulator()},
      {"simulators in a policy that reports",
       Head("report", "forbidden") + "[[rule]]\nname = \"r\"\nmatch = \"**\"\n",
       Key().Path("a", "token:ops"),
       {"simulator"},
       WithToken(Assurance::kSoftware, true)},
  };
}

TEST(PolicyEvaluation, FindsWhatEachRowSays) {
  const std::vector<Case> cases = AllCases();
  EXPECT_GE(cases.size(), 60U);
  for (const Case& row : cases) {
    SCOPED_TRACE(row.name);
    const auto policy = ParsePolicy(row.policy, "policy.toml");
    ASSERT_TRUE(policy) << policy.error().message();
    const Evaluation evaluation = EvaluateKey(*policy, row.key, row.facts, row.options);
    std::vector<std::string> found;
    bool any_critical = false;
    for (const Finding& finding : evaluation.findings) {
      const bool critical = finding.severity == Severity::kCritical;
      any_critical = any_critical || critical;
      found.push_back(finding.rule + (critical ? "!" : ""));
      EXPECT_EQ(finding.key, row.key.name);
      EXPECT_EQ(finding.host, row.key.host);
      EXPECT_FALSE(finding.what.empty());
      EXPECT_FALSE(finding.remedy.empty());
    }
    EXPECT_EQ(found, row.findings);
    EXPECT_EQ(evaluation.Complies(), !any_critical);
  }
}

}  // namespace
}  // namespace keyescrow::agent::policy
