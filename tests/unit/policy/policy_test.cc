#include "agent/policy/policy.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>

#include "agent/policy/version.h"

namespace keyescrow::agent::policy {
namespace {

constexpr char kHead[] = "[policy]\nname = \"corp\"\nserial = 7\nmode = \"enforce\"\n";
constexpr char kRule[] = "[[rule]]\nname = \"r\"\nmatch = \"**\"\n";

Result<Policy> Parse(const std::string& text) { return ParsePolicy(text, "policy.toml"); }

// Accept is what a policy goes through before it is signed or set.
Status Accept(const std::string& text) {
  ASSIGN_OR_RETURN(const Policy policy, Parse(text));
  return CheckContradictions(policy, "policy.toml");
}

constexpr char kWhole[] = R"([policy]
name = "corp"
serial = 7
mode = "enforce"
min_agent_version = "0.1"
expires = 2027-12-31T01:00:00+01:00
simulators = "forbidden"

[signers]
threshold = 1
keys = ["alice+9e5c9a29+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]

[passwords.office]
profile = "ssrs"
min_length = 16
blocklist = "blocklist.txt"
blocklist_sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

[tokens.ops]
spki_sha256 = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
assurance = "asserted"
[recovery_keys.security-team]
public_thumbprint = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"

[[rule]]
name = "production databases"
match = "prod/db/**"
mode = "report"
grace = "14d"
require = ["password & token:ops", "recovery-key:security-team"]
forbid = ["password", "tpm"]
password = "office"
survive = 1
withstand = 0
portable = true
kdf = { argon2id_min_memory_kib = 262144, argon2id_min_passes = 4, pbkdf2_min_iterations = 1000000 }
fips = false
drill_every = "90d"
drill_paths = ["token-ops"]
rotate_every = "52w"
rotate_after_restore = "7d"
reason = "required"
ticket = "^(INC|CHG)-[0-9]+$"

[[exception]]
key = "prod/db/legacy"
host = "db9"
rule = "production databases"
until = 2027-03-31T00:00:00Z
reason = "migration CHG-1234"
)";

// The vkey's id is computed, so that the text above needs no tool.
std::string Whole() {
  std::string text = kWhole;
  const envelope::NoteKey key = envelope::NoteKey::Ed25519("alice", Bytes32{});
  const std::size_t at = text.find("alice+");
  return text.replace(at, text.find('"', at) - at, key.Vkey());
}

TEST(Policy, ReadsEveryWord) {
  const auto parsed = Parse(Whole());
  ASSERT_TRUE(parsed) << parsed.error().message();
  EXPECT_EQ(parsed->name, "corp");
  EXPECT_EQ(parsed->serial, 7U);
  EXPECT_EQ(parsed->mode, Mode::kEnforce);
  EXPECT_EQ(parsed->min_agent_version, "0.1");
  EXPECT_EQ(parsed->expires, 1830211200);  // 2027-12-31T00:00:00Z
  EXPECT_EQ(parsed->simulators, Simulators::kForbidden);
  ASSERT_TRUE(parsed->signers);
  EXPECT_EQ(parsed->signers->threshold, 1U);
  ASSERT_EQ(parsed->passwords.size(), 1U);
  EXPECT_EQ(parsed->passwords[0].profile, envelope::PasswordProfile::kSsrs);
  EXPECT_EQ(parsed->passwords[0].min_length, 16U);
  EXPECT_EQ(parsed->passwords[0].blocklist, "blocklist.txt");
  ASSERT_EQ(parsed->tokens.size(), 1U);
  // The two hashes are one, written in hexadecimal and in base64url.
  EXPECT_EQ(parsed->tokens[0].spki_sha256, parsed->passwords[0].blocklist_sha256);
  EXPECT_EQ(parsed->tokens[0].assurance, Assurance::kAsserted);
  ASSERT_EQ(parsed->recovery_keys.size(), 1U);
  ASSERT_EQ(parsed->rules.size(), 1U);
  const Rule& rule = parsed->rules[0];
  EXPECT_EQ(rule.line, 25U);
  EXPECT_EQ(rule.mode, Mode::kReport);
  EXPECT_EQ(rule.grace_s, 14 * 86400);
  EXPECT_EQ(rule.require.size(), 2U);
  EXPECT_EQ(rule.forbid.size(), 2U);
  EXPECT_EQ(rule.password_profile, "office");
  EXPECT_EQ(rule.survive, 1U);
  EXPECT_EQ(rule.withstand, 0U);
  EXPECT_TRUE(rule.portable);
  EXPECT_EQ(rule.kdf.argon2id_memory_kib, 262144U);
  EXPECT_EQ(rule.kdf.argon2id_passes, 4U);
  EXPECT_EQ(rule.kdf.pbkdf2_iterations, 1000000U);
  EXPECT_FALSE(rule.fips);
  EXPECT_EQ(rule.drill_every_s, 90 * 86400);
  EXPECT_EQ(rule.drill_paths, std::vector<std::string>{"token-ops"});
  EXPECT_EQ(rule.rotate_every_s, 364 * 86400);
  EXPECT_EQ(rule.rotate_after_restore_s, 7 * 86400);
  EXPECT_TRUE(rule.reason_required);
  EXPECT_EQ(rule.ticket, "^(INC|CHG)-[0-9]+$");
  ASSERT_EQ(parsed->exceptions.size(), 1U);
  EXPECT_EQ(parsed->exceptions[0].host, "db9");
}

struct Wrong {
  std::string text;
  const char* says;  // what the message holds
};

TEST(Policy, NamesPlaceAndNearestWord) {
  const std::string head = kHead;
  const std::string rule = head + kRule;
  const Wrong rows[] = {
      {"x = 1\n" + rule, "line 1 column 1: unknown key 'x'"},
      {head + "[[rules]]\n",
       "line 5 column 3: unknown key 'rules' in the file, did you mean 'rule'?"},
      {rule + "requires = [\"tpm\"]\n",
       "line 8 column 1: unknown key 'requires' in [[rule]], did you "
       "mean 'require'?"},
      {"[policy]\nname = \"c\"\nserail = 7\n", "did you mean 'serial'?"},
      {"[policy]\nname = \"c\"\nserial = 7\n" + std::string(kRule), "[policy] has no 'mode'"},
      {"[policy]\nname = \"c d\"\nserial = 7\nmode = \"report\"\n", "'name' is not a name"},
      {"[policy]\nname = \"c\"\nserial = 0\nmode = \"report\"\n", "'serial' is not a whole number"},
      {"[policy]\nname = \"c\"\nserial = \"7\"\nmode = \"report\"\n", "'serial' is not"},
      {"[policy]\nname = \"c\"\nserial = 7\nmode = \"enforced\"\n", "did you mean 'enforce'?"},
      {head, "there is no [[rule]]"},
      {head + "expires = \"2027-12-31\"\n" + kRule, "'expires' is not a time with its zone"},
      {head + "expires = 2027-12-31T00:00:00\n" + kRule, "'expires' is not a time with its zone"},
      {head + "simulators = \"yes\"\n" + kRule, "unknown simulators 'yes'"},
      {head + "min_agent_version = \"one\"\n" + kRule, "'min_agent_version' is not a version"},
      {head + "[signers]\nthreshold = 1\n" + kRule, "[signers] has no 'keys'"},
      {head + "[signers]\nkeys = [\"alice\"]\n" + kRule, "not a verifier key"},
      {head + "[signers]\nkeys = []\nkey = 1\n" + kRule, "unknown key 'key' in [signers]"},
      {head + "[passwords.a]\nmax_length = 8\n" + kRule, "unknown key 'max_length' in"},
      {head + "[passwords.a]\nblocklist = \"../b\"\nblocklist_sha256 = \"" + std::string(64, 'a') +
           "\"\n" + kRule,
       "not the name of a file beside the policy"},
      {head + "[tokens.ops]\nspki_sha256 = \"" + std::string(64, 'a') + "\"\nurl = 1\n" + kRule,
       "unknown key 'url' in [tokens.ops]"},
      {head + "[tokens.\"a b\"]\n" + kRule, "has no name of letters"},
      {head + "[tokens]\nops = 1\n" + kRule, "has no name of letters"},
      {head + "[recovery_keys.a]\nname = 1\n" + kRule, "unknown key 'name' in"},
      {head + "[recovery_keys.a]\npublic_thumbprint = \"!\"\n" + kRule, "RFC 7638"},
      {head + "[recovery_keys.a]\n" + kRule, "has no 'public_thumbprint'"},
      {rule + "[[exception]]\nkey = \"k\"\nrule = \"r\"\nuntil = 2027-01-01T00:00:00Z\nreason = "
              "\"x\"\nwhy = 1\n",
       "unknown key 'why' in [[exception]]"},
      {head + "[passwords.nist-800-63b]\n" + kRule, "is built in"},
      {head + "[passwords.a]\nmin_length = 7\n" + kRule,
       "'min_length' is not a whole number from 8"},
      {head + "[passwords.a]\nblocklist = \"b\"\n" + kRule, "come together"},
      {head + "[tokens.ops]\nassurance = \"attested\"\n" + kRule, "has no 'spki_sha256'"},
      {head + "[tokens.ops]\nspki_sha256 = \"abc\"\n" + kRule, "'spki_sha256' is not a SHA-256"},
      {head + "[recovery_keys.a]\npublic_thumbprint = \"abc\"\n" + kRule, "RFC 7638"},
      {head + "tokens = 1\n" + kRule, "unknown key 'tokens' in [policy]"},
      {rule + kRule, "two rules are called 'r', the first on line 5"},
      {head + "[[rule]]\nname = \"r\"\n", "[[rule]] has no 'match'"},
      {head + "[[rule]]\nname = \"r\"\nmatch = \"a b\"\n", "not a pattern of key names"},
      {head + "[[rule]]\nname = \"r\"\nmatch = \"/a\"\n", "not a pattern of key names"},
      {head + "[[rule]]\nname = \"r\"\nmatch = \"a/../**\"\n", "not a pattern of key names"},
      {head + "[[rule]]\nname = \"r\"\nmatch = \"./a\"\n", "not a pattern of key names"},
      {rule + "[[exception]]\nkey = \"k\"\nrule = \"r\"\nuntil = 2027-01-01T00:00:00Z\nreason = "
              "\" \\u200b\"\n",
       "the exception's reason says nothing"},
      {rule + "grace = \"14\"\n", "'grace' is not a duration"},
      {rule + "grace = 14\n", "'grace' is not a text"},
      {rule + "require = \"tpm\"\n", "'require' is not a list"},
      {rule + "require = [\"tokn:ops\"]\n", "'require': column 1"},
      {rule + "require = [\"tpm\", \"tpm\"]\n", "names one path twice"},
      {rule + "password = \"offce\"\n", "no password profile is called 'offce'"},
      {rule + "survive = -1\n", "'survive' is not a whole number"},
      {rule + "portable = \"yes\"\n", "neither true nor false"},
      {rule + "kdf = { argon2id_passes = 4 }\n", "unknown key 'argon2id_passes' in kdf"},
      {rule + "drill_paths = [\"a\"]\n", "'drill_paths' without 'drill_every'"},
      {rule + "reason = \"yes\"\n", "unknown reason 'yes'"},
      {rule + "ticket = \"(\"\n", "'ticket' does not compile"},
      {rule + "ticket = \"(a)\\\\1\"\n", "'ticket' refers back"},
      {rule + "ticket = \"(a*){9}\"\n", "'ticket' repeats a repetition"},
      {rule + "ticket = \"a{65}\"\n", "more than 64 times"},
      {rule + "[[exception]]\nkey = \"k\"\nrule = \"q\"\nuntil = 2027-01-01T00:00:00Z\nreason = "
              "\"x\"\n",
       "no rule is called 'q'"},
      {rule + "[[exception]]\nkey = \"k\"\nrule = \"r\"\nreason = \"x\"\n",
       "[[exception]] has no 'until'"},
      {rule + "[[exception]]\nkey = \"k\"\nrule = \"r\"\nuntil = 0000-01-01T00:00:00Z\nreason = "
              "\"x\"\n",
       "'until' is before 1970"},
      {head + "expires = 1970-01-01T00:00:00+00:01\n" + kRule, "'expires' is before 1970"},
      {"\xEF\xBB\xBF" + rule, "begins with a byte order mark"},
      {rule + "require = [\"02 of (token:a, token:b)\"]\n", "the number 02 begins with a zero"},
      {"[policy\n", "line 1"},
      {"a." + std::string(200, 'a') + "\n" + std::string(1000, '.'), "more than 64 parts"},
      {std::string(300 * 1024, ' '), "larger than 256 KiB"},
  };
  for (const Wrong& row : rows) {
    SCOPED_TRACE(row.says);
    const auto parsed = Parse(row.text);
    ASSERT_FALSE(parsed);
    EXPECT_EQ(parsed.error().code(), ErrorCode::kPolicyInvalid);
    EXPECT_NE(parsed.error().message().find(row.says), std::string::npos)
        << parsed.error().message();
  }
}

TEST(Policy, OneKeyUnderTwoNamesIsOneSigner) {
  const std::string alice = envelope::NoteKey::Ed25519("alice", Bytes32{1}).Vkey();
  const std::string bob = envelope::NoteKey::Ed25519("bob", Bytes32{1}).Vkey();
  const auto parsed = Parse(std::string(kHead) + "[signers]\nkeys = [\"" + alice + "\", \"" + bob +
                            "\"]\n" + kRule);
  ASSERT_FALSE(parsed);
  EXPECT_NE(parsed.error().message().find("'alice' and 'bob' are one key"), std::string::npos);
  const std::string carol = envelope::NoteKey::Ed25519("carol", Bytes32{2}).Vkey();
  const auto two = Parse(std::string(kHead) + "[signers]\nkeys = [\"" + alice + "\", \"" + carol +
                         "\"]\n" + kRule);
  ASSERT_TRUE(two) << two.error().message();
  EXPECT_EQ(two->signers->threshold, 2U);
}

TEST(Policy, AsksForANewerAgentBeforeItsUnknownWords) {
  const std::string text =
      "future = 1\n[policy]\nname = \"corp\"\nserial = 8\nmode = \"enforce\"\nmin_agent_version = "
      "\"2.0\"\nnew_word = 3\n";
  const auto parsed = ParsePolicy(text, "policy.toml", "1.9.9");
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().code(), ErrorCode::kPolicyNewerAgent);
  const auto head = ParsePolicyHead(text, "policy.toml");
  ASSERT_TRUE(head);
  EXPECT_EQ(head->name, "corp");
  EXPECT_EQ(head->serial, 8U);
  EXPECT_EQ(head->min_agent_version, "2.0");
  // With that version the unknown word is an error again.
  const auto newer = ParsePolicy(text, "policy.toml", "2.0");
  ASSERT_FALSE(newer);
  EXPECT_EQ(newer.error().code(), ErrorCode::kPolicyInvalid);
}

TEST(Policy, ComparesVersionsByNumber) {
  EXPECT_TRUE(IsOlder("0.1.0", "0.2"));
  EXPECT_TRUE(IsOlder("0.9", "0.10"));
  EXPECT_FALSE(IsOlder("1.0.0", "1"));
  EXPECT_FALSE(IsOlder("1.0.1", "1.0"));
  EXPECT_TRUE(IsVersion("1.2.3"));
  for (const char* text : {"", "1.", ".1", "1.2.3.4", "a", "1.-2", "1 "}) {
    EXPECT_FALSE(IsVersion(text)) << text;
  }
}

struct Contradiction {
  const char* left;
  const char* right;
  const char* says;  // null: they agree
  const char* left_match = "prod/**";
  const char* right_match = "**";
};

TEST(Policy, RefusesRulesThatNoPathsCanMeetTogether) {
  const Contradiction rows[] = {
      {"require = [\"tpm\"]", "forbid = [\"tpm\"]", "the second forbids it"},
      {"require = [\"token:ops & password\"]", "forbid = [\"password & token:ops\"]",
       "the second forbids it"},
      {"require = [\"tpm\"]", "forbid = [\"password & tpm\"]", nullptr},
      {"require = [\"tpm\"]", "forbid = [\"tpm\"]", nullptr, "prod/*", "test/*"},
      {"require = [\"tpm\"]", "forbid = [\"tpm\"]", "the second forbids it", "prod/*-key", "*/db*"},
      {"require = [\"token:ops\"]", "withstand = 1", "1 theft(s) open"},
      {"require = [\"token:ops & password\"]", "withstand = 1", nullptr},
      {"require = [\"2 of (token:a, token:b, token:c)\"]", "withstand = 2", "2 theft(s) open"},
      {"require = [\"token:ops\"]", "survive = 3\nportable = true", nullptr},
      {"require = [\"recovery-key:team\"]", "withstand = 1", nullptr},
      {"kdf = { argon2id_min_memory_kib = 4194304 }", "kdf = { argon2id_min_passes = 8 }", nullptr},
      {"kdf = { argon2id_min_memory_kib = 4194304 }", "kdf = { argon2id_min_passes = 9 }",
       "together they ask for kdf costs that no envelope can hold"},
      {"require = [\"password\"]", "password = \"ssrs\"", "hardware beside each password"},
      {"require = [\"password & tpm\"]", "password = \"ssrs\"", nullptr},
      {"require = [\"token:a\", \"token:b\", \"token:c\", \"token:d\", \"token:e\", \"token:f\", "
       "\"token:g\", \"token:h\", \"token:i\"]",
       "require = [\"token:j\", \"token:k\", \"token:l\", \"token:m\", \"token:n\", \"token:o\", "
       "\"token:p\", \"token:q\"]",
       "together they require 17 paths"},
      // Whoever holds all but those that may be lost opens it: 16 factors are 8 + 7 + 1.
      {"survive = 8", "withstand = 7", nullptr},
      {"survive = 8", "withstand = 8", "takes 17 factors"},
      {"withstand = 15", "survive = 15", "takes 31 factors"},
      {"survive = 15", "withstand = 1", nullptr, "prod/*", "test/*"},
      {"require = [\"token:a & token:b & token:c & token:d\", \"token:e & token:f & token:g & "
       "token:h\", \"token:i & token:j & token:k & token:l\", \"token:m & token:n & token:o & "
       "token:p\"]",
       "survive = 1\nrequire = [\"token:a & password\"]", "the required paths have 17 factors"},
      {"require = [\"token:a & token:b & token:c & token:d\", \"token:e & token:f & token:g & "
       "token:h\", \"token:i & token:j & token:k & token:l\", \"token:m & token:n & token:o & "
       "tpm\"]",
       "survive = 1\nrequire = [\"token:a & tpm:db1\"]", nullptr},
      {"require = [\"token:a & password\", \"token:b & password\", \"token:c & password\", "
       "\"token:d & password\", \"token:e & password\", \"token:f & password\", \"token:g & "
       "password\", \"token:h & password\"]",
       "survive = 1\nrequire = [\"token:i & password\", \"token:j & password\", \"token:k & "
       "password\", \"token:l & password\", \"token:m & password\", \"token:n & password\", "
       "\"token:o & password\", \"token:a & token:b & password\"]",
       "leave no room for another path"},
      {"drill_every = \"1d\"\ndrill_paths = [\"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", "
       "\"8\", "
       "\"9\"]",
       "drill_every = \"1d\"\ndrill_paths = [\"1\", \"b\", \"c\", \"d\", \"e\", \"f\", \"g\", "
       "\"h\", "
       "\"i\"]",
       "together they have 17 paths drilled"},
  };
  for (const Contradiction& row : rows) {
    SCOPED_TRACE(std::string(row.left) + " / " + row.right);
    const auto parsed =
        Accept(std::string(kHead) + "[[rule]]\nname = \"one\"\nmatch = \"" + row.left_match +
               "\"\n" + row.left + "\n[[rule]]\nname = \"two\"\nmatch = \"" + row.right_match +
               "\"\n" + row.right + "\n");
    if (row.says == nullptr) {
      EXPECT_TRUE(parsed);
      continue;
    }
    ASSERT_FALSE(parsed);
    EXPECT_EQ(parsed.error().code(), ErrorCode::kPolicyContradiction);
    EXPECT_NE(parsed.error().message().find("\"one\" (line 5)"), std::string::npos);
    const std::string_view left = row.left;
    const auto second = 9 + std::count(left.begin(), left.end(), '\n');
    EXPECT_NE(parsed.error().message().find(fmt::format("\"two\" (line {})", second)),
              std::string::npos);
    EXPECT_NE(parsed.error().message().find(row.says), std::string::npos)
        << parsed.error().message();
  }
}

TEST(Policy, ARuleMayContradictItself) {
  const auto parsed =
      Accept(std::string(kHead) + kRule + "require = [\"tpm\"]\nforbid = [\"tpm\"]\n");
  ASSERT_FALSE(parsed);
  EXPECT_EQ(parsed.error().code(), ErrorCode::kPolicyContradiction);
  EXPECT_NE(parsed.error().message().find("contradicts itself"), std::string::npos);
  EXPECT_TRUE(Accept(std::string(kHead) + kRule + "survive = 15\n"));
  EXPECT_FALSE(Accept(std::string(kHead) + kRule + "survive = 15\nwithstand = 1\n"));
}

TEST(Policy, TakesNoCostsThatNoEnvelopeCanHold) {
  const auto accepts = [](const std::string& costs) {
    const std::string text = std::string(kHead) + kRule + "kdf = { " + costs + " }\n";
    EXPECT_TRUE(Parse(text));  // one that was set already still holds
    const Status accepted = Accept(text);
    EXPECT_TRUE(accepted || accepted.error().code() == ErrorCode::kPolicyInvalid);
    return accepted.has_value();
  };
  EXPECT_TRUE(accepts("argon2id_min_passes = 32"));
  EXPECT_FALSE(accepts("argon2id_min_passes = 33"));
  EXPECT_TRUE(accepts("argon2id_min_memory_kib = 1"));
  EXPECT_FALSE(accepts("argon2id_min_memory_kib = 2000000000"));
  EXPECT_TRUE(accepts("argon2id_min_memory_kib = 4194304, argon2id_min_passes = 8"));
  EXPECT_FALSE(accepts("argon2id_min_memory_kib = 4194304, argon2id_min_passes = 9"));
  EXPECT_TRUE(accepts("pbkdf2_min_iterations = 20000000"));
  EXPECT_FALSE(accepts("pbkdf2_min_iterations = 20000001"));
}

TEST(Policy, TakesNoPatternOfManyStars) {
  const auto of_stars = [](int num_stars) {
    std::string match;
    for (int i = 0; i < num_stars; ++i) match += "*a";
    return std::string(kHead) + "[[rule]]\nname = \"r\"\nmatch = \"" + match + "\"\n";
  };
  EXPECT_TRUE(Accept(of_stars(16)));
  EXPECT_TRUE(Parse(of_stars(17)));
  const Status many = Accept(of_stars(17));
  ASSERT_FALSE(many);
  EXPECT_NE(many.error().message().find("line 5"), std::string::npos) << many.error().message();
}

// toml++ destroys the tables of such a key recursively.
TEST(Policy, FindsAKeyOfManyPartsBehindAnyString) {
  std::string many = "b";
  for (int i = 0; i < 70; ++i) many += ".b";
  const std::string head = std::string(kHead) + kRule;
  const std::string strings[] = {
      "\"\"\"\n\"\"\"", "'''\n'''", "\"\"\"\\\"\"\"\"", "\"\"\" \" \"\" \"\"\"\"\"",
      "\"\\\"\"",       "\"\"",     "1 # \"\"\"\n"};
  for (const std::string& string : strings) {
    SCOPED_TRACE(string);
    const auto inside = Parse(head + "x = " + string + "\n" + many + " = 1\n");
    ASSERT_FALSE(inside);
    EXPECT_NE(inside.error().message().find("more than 64 parts"), std::string::npos)
        << inside.error().message();
    const auto table = Parse(head + "x = {a = " + string + ", " + many + " = 1}\n");
    ASSERT_FALSE(table);
    if (string.find('#') != std::string::npos) continue;
    EXPECT_NE(table.error().message().find("more than 64 parts"), std::string::npos)
        << table.error().message();
  }
  // In a string or a comment it is no key.
  const auto none = Parse(head + "# " + many + "\nx = \"\"\"\n" + many + "\n\"\"\"\n");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().message().find("more than 64 parts"), std::string::npos);
}

TEST(Policy, TellsWhetherTwoPatternsMeet) {
  EXPECT_TRUE(PatternsMeet("**", "prod/db"));
  EXPECT_TRUE(PatternsMeet("prod/*", "*/db"));
  EXPECT_TRUE(PatternsMeet("a*c", "ab*"));
  EXPECT_TRUE(PatternsMeet("**/x", "a/**"));
  EXPECT_FALSE(PatternsMeet("prod/*", "prod/db/*"));
  EXPECT_FALSE(PatternsMeet("*", "a/b"));
  EXPECT_FALSE(PatternsMeet("a*", "b*"));
  EXPECT_FALSE(PatternsMeet("prod/db", "prod/web"));
}

TEST(Policy, ReadsDurations) {
  EXPECT_EQ(ParseDuration("90d"), 90 * 86400);
  EXPECT_EQ(ParseDuration("1s"), 1);
  EXPECT_EQ(ParseDuration("2m"), 120);
  EXPECT_EQ(ParseDuration("3h"), 10800);
  EXPECT_EQ(ParseDuration("4w"), 4 * 604800);
  for (const char* text : {"", "d", "0d", "-1d", "1", "1y", "1dd", "99999999w", "1 d", "+1d"}) {
    EXPECT_FALSE(ParseDuration(text)) << text;
  }
  EXPECT_EQ(FormatDuration(90 * 86400), "90d");
  EXPECT_EQ(FormatDuration(14 * 86400), "2w");
  EXPECT_EQ(FormatDuration(61), "61s");
}

TEST(Policy, MatchesTickets) {
  EXPECT_TRUE(TicketMatches("^(INC|CHG)-[0-9]+$", "CHG-12"));
  EXPECT_FALSE(TicketMatches("^(INC|CHG)-[0-9]+$", "CHG-12 "));
  EXPECT_FALSE(TicketMatches("^(INC|CHG)-[0-9]+$", ""));
  EXPECT_EQ(CheckTicketExpression("^INC-[0-9]{4,7}$"), "");
  EXPECT_EQ(CheckTicketExpression(std::string(256, 'I')), "");
  EXPECT_EQ(CheckTicketExpression(std::string(257, 'I')), "is longer than 256 bytes");
}

}  // namespace
}  // namespace keyescrow::agent::policy
