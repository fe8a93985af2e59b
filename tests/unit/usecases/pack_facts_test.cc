// What an evidence pack states beside the log: its forms, and the proofs of paths that hold.
#include "agent/usecases/pack_facts.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "agent/audit/drill_proof.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/base/ed25519.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kUpdated = 1'795'600'000;
constexpr std::uint64_t kSeq = 41;

const SecretBytes& Seed() {
  static const SecretBytes kSeed = *SecretBytes::CopyOf(Bytes(32, 5));
  return kSeed;
}

Json SummaryJson() {
  const std::string drill_key = EncodeBase64Url(*Ed25519PublicKey(Seed()));
  return {{"key", {{"name", "prod/db"}, {"version", 3}}},
          {"revision", 2},
          {"envelope_id", "AAECAwQFBgcICQoLDA0ODw"},
          {"envelope_sha256", EncodeBase64Url(Bytes32{9})},
          {"log_seq", 7},
          {"previous", EncodeBase64Url(Bytes32{4})},
          {"host", "db1"},
          {"agent", "thumbprint"},
          {"created", FormatUtc(kUpdated - 60)},
          {"updated", FormatUtc(kUpdated)},
          {"paths",
           {{{"id", "token-ops"},
             {"factors",
              {{{"kind", "pkcs11-rsa"}, {"id", "ops"}, {"key_sha256", EncodeBase64Url(Bytes32{7})}},
               {{"kind", "password"}, {"kdf", "argon2id t=4 m=262144 p=4"}}}},
             {"drill_key", drill_key}}}}};
}

TEST(PackSummary, IsReadFromItsLine) {
  const auto summary = ParseSummary(SummaryJson().dump());
  ASSERT_TRUE(summary);
  EXPECT_EQ(summary->key_name, "prod/db");
  EXPECT_EQ(summary->key_version, 3U);
  EXPECT_EQ(summary->revision, 2U);
  EXPECT_EQ(summary->sha256, Bytes32{9});
  EXPECT_EQ(summary->log_seq, 7U);
  ASSERT_EQ(summary->drill_keys.size(), 1U);
  EXPECT_EQ(summary->drill_keys[0].first, "token-ops");
}

TEST(PackSummary, RefusesOtherShapes) {
  const auto refused = [](auto change) {
    Json json = SummaryJson();
    change(json);
    const auto summary = ParseSummary(json.dump());
    return !summary && summary.error().code() == ErrorCode::kLogDamaged;
  };
  const Json whole = SummaryJson();
  for (const auto& [name, value] : whole.items()) {
    EXPECT_TRUE(refused([&](Json& json) { json.erase(name); })) << name;
    EXPECT_TRUE(refused([&](Json& json) { json[name] = nullptr; })) << name;
    EXPECT_TRUE(refused([&](Json& json) { json[name] = {1, 2}; })) << name;
  }
  EXPECT_TRUE(refused([](Json& json) { json["key"]["version"] = 1ULL << 32; }));
  EXPECT_TRUE(refused([](Json& json) { json["revision"] = -1; }));
  EXPECT_TRUE(refused([](Json& json) { json["revision"] = 1.5; }));
  EXPECT_TRUE(refused([](Json& json) { json["log_seq"] = "7"; }));
  EXPECT_TRUE(refused([](Json& json) { json["envelope_sha256"] = "AAAA"; }));
  EXPECT_TRUE(refused([](Json& json) { json["updated"] = "yesterday"; }));
  EXPECT_TRUE(refused([](Json& json) { json["paths"][0]["drill_key"] = "AAAA"; }));
  EXPECT_TRUE(refused([](Json& json) { json["paths"][0].erase("id"); }));
  EXPECT_TRUE(refused([](Json& json) { json["paths"][0].erase("factors"); }));
  EXPECT_TRUE(refused([](Json& json) { json["paths"][0]["factors"][0] = 7; }));
  EXPECT_TRUE(refused([](Json& json) { json["paths"][0]["factors"][0].erase("kind"); }));
  EXPECT_TRUE(refused([](Json& json) { json["paths"][0]["factors"][0]["key_sha256"] = "AAAA"; }));
  EXPECT_TRUE(refused([](Json& json) { json["paths"][0]["factors"] = Json::array(); }));
  EXPECT_TRUE(refused([](Json& json) { json["paths"] = Json::array(); }));
  // Which recovery key a path goes to is told by name and key, or not at all.
  EXPECT_TRUE(refused([](Json& json) { json["paths"][0]["recovery_key"] = "team"; }));
  EXPECT_TRUE(refused([](Json& json) { json["paths"][0]["recovery_thumbprint"] = "x"; }));
  const std::string line = SummaryJson().dump();
  EXPECT_FALSE(ParseSummary("{\"revision\":1," + line.substr(1)));  // two of one name
  for (const char* text : {"", "[]", "7", "null", "{", "\xff", "\"a\""}) {
    EXPECT_FALSE(ParseSummary(text)) << text;
  }
}

TEST(PackSummary, HasThePathsOfItsEntry) {
  const EnvelopeSummary summary = *ParseSummary(SummaryJson().dump());
  const std::vector<audit::EventPath> entry = {
      {"token-ops",
       {{"pkcs11-rsa", "ops", Bytes32{7}, ""}, {"password", "", {}, "argon2id t=4 m=262144 p=4"}}}};
  EXPECT_TRUE(PathsOfEntry(summary, entry));
  const auto agrees = [&](auto change) {
    auto other = entry;
    change(other);
    return PathsOfEntry(summary, other);
  };
  // A long entry lost its details, its factors or its paths.
  EXPECT_TRUE(agrees([](auto& paths) {
    paths[0].factors[0].key_sha256.reset();
    paths[0].factors[1].kdf = "";
  }));
  EXPECT_TRUE(agrees([](auto& paths) { paths[0].factors.clear(); }));
  EXPECT_TRUE(agrees([](auto& paths) { paths.clear(); }));
  EXPECT_FALSE(agrees([](auto& paths) { paths[0].id = "tpm"; }));
  EXPECT_FALSE(agrees([](auto& paths) { paths.push_back(paths[0]); }));
  EXPECT_FALSE(agrees([](auto& paths) { paths[0].factors.pop_back(); }));
  EXPECT_FALSE(agrees([](auto& paths) { paths[0].factors[0].kind = "pkcs11-ecdh"; }));
  EXPECT_FALSE(agrees([](auto& paths) { paths[0].factors[0].id = "blue"; }));
  EXPECT_FALSE(agrees([](auto& paths) { paths[0].factors[0].key_sha256 = Bytes32{8}; }));
  EXPECT_FALSE(agrees([](auto& paths) { paths[0].factors[1].kdf = "argon2id t=1 m=65536 p=4"; }));
}

TEST(PackPolicyFacts, HaveOneForm) {
  const PolicyFacts facts{"corp", 7, Bytes32{3}, kUpdated};
  const std::string text = FormatPolicyFacts(facts);
  const auto read = ParsePolicyFacts(text);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->name, "corp");
  EXPECT_EQ(read->serial, 7U);
  EXPECT_EQ(read->sha256, Bytes32{3});
  EXPECT_EQ(read->set_time, kUpdated);
  EXPECT_TRUE(ParsePolicyFacts(FormatPolicyFacts({"builtin-1", 0, Bytes32{3}, 0})));
  EXPECT_FALSE(ParsePolicyFacts(text + " "));
  EXPECT_FALSE(ParsePolicyFacts(Json::parse(text).dump()));
  EXPECT_FALSE(ParsePolicyFacts("{}"));
}

TEST(PackLines, AreWholeLines) {
  EXPECT_TRUE(SplitLines("")->empty());
  EXPECT_EQ(SplitLines("a\n\nb\n")->size(), 3U);
  EXPECT_FALSE(SplitLines("a\nb"));
}

// ---- proofs of paths

audit::Event Drill(std::uint64_t size = 40, std::string source = "keyescrow.log/db1/abc") {
  audit::Event event;
  event.source = std::move(source);
  event.type = audit::EventType::kDrillPassed;
  event.time = kUpdated + 60;
  event.key = audit::EventKey{"prod/db", 3};
  event.envelope = audit::EventEnvelope{"AAECAwQFBgcICQoLDA0ODw", 2, Bytes32{9}};
  event.paths = {{"token-ops", {}}};
  event.drill = audit::EventDrill{size, Bytes32{1}, kUpdated + 30, std::nullopt, {}};
  return event;
}

audit::Event Signed(audit::Event event) {
  event.drill->signature = *envelope::SignDrill(*audit::DrillStatementOf(event), Seed());
  return event;
}

class PackDrillsTest : public ::testing::Test {
 protected:
  PackDrillsTest() : summary_(*ParseSummary(SummaryJson().dump())) {
    drills_.AddEnvelope(summary_);
  }
  PackDrills::Verdict Judge(const audit::Event& event) { return drills_.Add(kSeq, event).verdict; }

  EnvelopeSummary summary_;
  PackDrills drills_;
};

TEST_F(PackDrillsTest, KeepsTheNewestThatHolds) {
  EXPECT_EQ(drills_.Lines(), "");
  EXPECT_EQ(Judge(Signed(Drill())), PackDrills::Verdict::kHolds);
  audit::Event forged = Signed(Drill());
  forged.drill->signature[0] ^= 1;
  EXPECT_EQ(drills_.Add(kSeq + 1, forged).verdict, PackDrills::Verdict::kFails);
  const std::string lines = drills_.Lines();
  EXPECT_EQ(Json::parse(lines)["seq"], kSeq);
  EXPECT_EQ(lines.find('\n'), lines.size() - 1);
  EXPECT_EQ(drills_.Add(kSeq + 9, Signed(Drill())).verdict, PackDrills::Verdict::kHolds);
  EXPECT_EQ(Json::parse(drills_.Lines())["seq"], kSeq + 9);
}

TEST_F(PackDrillsTest, JudgesWhatAVerifierMust) {
  const auto fails = [&](auto change) {
    audit::Event event = Drill();
    change(event);
    return Judge(Signed(event)) == PackDrills::Verdict::kFails;
  };
  EXPECT_TRUE(fails([](auto& e) { e.outcome = audit::Outcome::kFailure; }));
  EXPECT_TRUE(fails([](auto& e) { e.key.reset(); }));
  EXPECT_TRUE(fails([](auto& e) { e.key->version = 2; }));
  EXPECT_TRUE(fails([](auto& e) { e.envelope->revision = 1; }));
  EXPECT_TRUE(fails([](auto& e) { e.paths[0].id = "tpm"; }));
  EXPECT_TRUE(fails([](auto& e) { e.drill->time = e.time + 1; }));
  EXPECT_TRUE(fails([](auto& e) { e.drill->size = kSeq + 1; }));
  EXPECT_TRUE(fails([](auto& e) { e.source = audit::kStatelessSource; }));
  audit::Event other = Signed(Drill());
  other.envelope->sha256 = Bytes32{8};
  EXPECT_EQ(Judge(other), PackDrills::Verdict::kUnknownEnvelope);
  other.envelope.reset();
  EXPECT_EQ(Judge(other), PackDrills::Verdict::kUnknownEnvelope);
}

TEST_F(PackDrillsTest, WithoutALogTheTreeIsEmpty) {
  audit::Event event = Drill(0, std::string(audit::kStatelessSource));
  EXPECT_EQ(Judge(Signed(event)), PackDrills::Verdict::kFails);
  event.drill->root = Sha256(ByteView());
  EXPECT_EQ(Judge(Signed(event)), PackDrills::Verdict::kHolds);
}

// ---- inventory and status

struct Stated {
  Json inventory = {{"declared", {{{"name", "prod/db"}}}},
                    {"escrowed",
                     {{{"name", "prod/db"},
                       {"version", 3},
                       {"revision", 2},
                       {"envelope_sha256", EncodeBase64Url(Bytes32{9})},
                       {"log_seq", 7}}}}};
  Json status = {{"checkpoint", {{"note", "the note"}}},
                 {"complies", true},
                 {"findings", Json::array()},
                 {"keys",
                  {{{"name", "prod/db"},
                    {"declared", true},
                    {"escrowed", true},
                    {"version", 3},
                    {"revision", 2},
                    {"envelope_sha256", EncodeBase64Url(Bytes32{9})},
                    {"paths", {{{"id", "token-ops"}}}}}}}};

  Result<PackStatus> Compare() const {
    Summaries summaries;
    summaries[7] = *ParseSummary(SummaryJson().dump());
    // An older revision of the same version.
    summaries[5] = summaries[7];
    summaries[5].revision = 1;
    return ComparePackStatus(inventory.dump(), status.dump(), "the note", summaries, {});
  }
};

TEST(PackStatus, AgreesWithTheSummaries) {
  const auto found = Stated().Compare();
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(found->num_escrowed, 1U);
  EXPECT_EQ(found->num_declared, 1U);
  EXPECT_EQ(found->num_critical, 0U);
  EXPECT_TRUE(found->not_escrowed.empty());
}

TEST(PackStatus, TellsWhatIsNotEscrowedAndCritical) {
  Stated stated;
  stated.inventory["declared"].push_back({{"name", "prod/missing"}});
  stated.status["keys"].push_back(
      {{"name", "prod/missing"}, {"declared", true}, {"escrowed", false}});
  stated.status["complies"] = false;
  stated.status["findings"] = {{{"severity", "critical"}}, {{"severity", "warning"}}};
  const auto found = stated.Compare();
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(found->not_escrowed, std::vector<std::string>{"prod/missing"});
  EXPECT_EQ(found->num_critical, 1U);
}

TEST(PackStatus, RefusesWhatDiffers) {
  const auto refused = [](auto change) {
    Stated stated;
    change(stated);
    const auto found = stated.Compare();
    return !found && found.error().code() == ErrorCode::kLogDamaged;
  };
  EXPECT_TRUE(refused([](Stated& s) { s.inventory["escrowed"][0]["revision"] = 1; }));
  EXPECT_TRUE(refused([](Stated& s) { s.inventory["escrowed"][0]["log_seq"] = 5; }));
  EXPECT_TRUE(refused([](Stated& s) { s.inventory["escrowed"].clear(); }));
  EXPECT_TRUE(refused([](Stated& s) { s.inventory["declared"].clear(); }));
  EXPECT_TRUE(refused([](Stated& s) { s.inventory = Json::array(); }));
  EXPECT_TRUE(refused([](Stated& s) { s.inventory["escrowed"][0]["version"] = "3"; }));
  EXPECT_TRUE(refused([](Stated& s) { s.status["keys"][0]["revision"] = 1; }));
  EXPECT_TRUE(refused([](Stated& s) { s.status["keys"][0]["escrowed"] = false; }));
  EXPECT_TRUE(refused([](Stated& s) { s.status["keys"][0]["declared"] = false; }));
  EXPECT_TRUE(refused([](Stated& s) { s.status["checkpoint"]["note"] = "another"; }));
  EXPECT_TRUE(refused([](Stated& s) { s.status["findings"][0] = 7; }));
  EXPECT_TRUE(refused([](Stated& s) { s.status["findings"] = nullptr; }));
  EXPECT_TRUE(refused([](Stated& s) { s.status["findings"] = {{{"severity", "critical"}}}; }));
  EXPECT_TRUE(refused([](Stated& s) { s.status["complies"] = false; }));
  EXPECT_TRUE(refused([](Stated& s) { s.status["keys"][0]["paths"].clear(); }));
  EXPECT_TRUE(refused([](Stated& s) { s.status["keys"][0]["paths"][0]["id"] = "tpm"; }));
  EXPECT_TRUE(refused([](Stated& s) { s.status.erase("keys"); }));
  EXPECT_TRUE(refused([](Stated& s) { s.status = nullptr; }));
}

}  // namespace
}  // namespace keyescrow::agent
