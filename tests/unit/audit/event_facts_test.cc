// The fast reading of entries never says more than ParseEvent, and the same where it speaks.
#include "agent/audit/event_facts.h"

#include <gtest/gtest.h>

namespace keyescrow::agent::audit {
namespace {

Event FullEvent() {
  Event event;
  event.id.fill(7);
  event.source = "keyescrow.log/db1/thumbprint";
  event.source_seq = 41;
  event.time = 1'700'000'000;
  event.boot_id = "0f8fad5b-d9cb-469f-a165-70867728950e";
  event.clock_synced = true;
  event.type = EventType::kEscrowCreated;
  event.actor = Actor{0, 1000, "root", 4242, "/usr/bin/keyescrow"};
  event.host = "db1";
  event.key = EventKey{"prod/db", 3};
  event.envelope = EventEnvelope{"AAAAAAAAAAAAAAAAAAAAAA", 2, {}};
  event.envelope->sha256.fill(9);
  event.policy = EventPolicy{"corp", 18'446'744'073'709'551'615U, {}};
  Bytes32 key{};
  key.fill(0xFE);
  event.paths = {{"token-ops", {{"pkcs11-rsa", "ops", key, ""}, {"password", "", {}, "argon2id"}}},
                 {"tpm", {}}};
  event.reason = "nightly";
  event.ticket = "CHG-1";
  event.prev_checkpoint = key;
  event.truncated = true;
  return event;
}

std::vector<Event> Samples() {
  std::vector<Event> events = {FullEvent(), Event{}, FullEvent(), FullEvent(), FullEvent()};
  events[1].source = std::string(kStatelessSource);
  events[2].key->version = 0;
  events[2].actor.reset();
  events[2].paths.clear();
  events[3].key->name = "m\u00fcller";  // the slow way
  events[3].approvers = {"alice", "bob"};
  events[4].error = "wrong_pin";
  events[4].outcome = Outcome::kFailure;
  events[4].reason = "a \"quoted\" \\ reason";
  return events;
}

void ExpectAgreement(const EventFacts& facts, const Event& event) {
  EXPECT_EQ(facts.id, event.id);
  EXPECT_EQ(facts.source, event.source);
  EXPECT_EQ(facts.source_seq, event.source_seq);
  EXPECT_EQ(facts.time, event.time);
  EXPECT_EQ(facts.type, event.type);
  EXPECT_EQ(facts.outcome, event.outcome);
  EXPECT_EQ(facts.has_key, event.key.has_value());
  EXPECT_EQ(facts.key_name, event.key ? event.key->name : "");
  EXPECT_EQ(facts.key_version, event.key ? event.key->version : 0U);
  EXPECT_EQ(facts.has_envelope, event.envelope.has_value());
  EXPECT_EQ(facts.envelope_id, event.envelope ? event.envelope->id : "");
  EXPECT_EQ(facts.revision, event.envelope ? event.envelope->revision : 0U);
  EXPECT_EQ(facts.envelope_sha256, event.envelope ? event.envelope->sha256 : Bytes32{});
  EXPECT_EQ(facts.has_policy, event.policy.has_value());
  EXPECT_EQ(facts.policy_serial, event.policy ? event.policy->serial : 0);
  EXPECT_EQ(facts.policy_sha256, event.policy ? event.policy->sha256 : Bytes32{});
  EXPECT_EQ(facts.path_id, event.paths.empty() ? "" : event.paths.front().id);
  EXPECT_EQ(facts.reason, event.reason);
  EXPECT_EQ(facts.prev_checkpoint, event.prev_checkpoint);
  EXPECT_EQ(facts.truncated, event.truncated);
  EXPECT_EQ(facts.uid, event.actor ? event.actor->uid : 0U);
  EXPECT_EQ(facts.pid, event.actor ? event.actor->pid : 0);
}

TEST(EventFacts, ReadTellsWhatParseEventTells) {
  for (const Event& event : Samples()) {
    const std::string line = *SerializeEvent(event);
    EventReader reader;
    const auto facts = reader.Read(line);
    ASSERT_TRUE(facts) << line;
    ExpectAgreement(*facts, event);
  }
}

TEST(EventFacts, PlainLinesAreScanned) {
  const auto samples = Samples();
  for (const std::size_t plain : {0U, 1U, 2U}) {
    EXPECT_TRUE(ScanPlainEvent(*SerializeEvent(samples[plain]))) << plain;
  }
  for (const std::size_t other : {3U, 4U}) {
    EXPECT_FALSE(ScanPlainEvent(*SerializeEvent(samples[other]))) << other;
  }
}

// Every line that is one byte away: whatever the scan takes, ParseEvent takes alike.
TEST(EventFacts, TheScanTakesNoLineThatParseEventRefuses) {
  std::size_t num_taken = 0;
  const auto check = [&](const std::string& line) {
    const auto facts = ScanPlainEvent(line);
    if (!facts) return;
    ++num_taken;
    const auto event = ParseEvent(line);
    ASSERT_TRUE(event) << line;
    ExpectAgreement(*facts, *event);
  };
  for (const Event& event : Samples()) {
    const std::string line = *SerializeEvent(event);
    for (std::size_t at = 0; at < line.size(); ++at) {
      for (const char other : {'0', '9', 'A', 'z', '-', '"', ',', '}', ' ', '\\', '\x7F', '\xC3'}) {
        std::string changed = line;
        changed[at] = other;
        check(changed);
        check(line.substr(0, at) + other + line.substr(at));
      }
      check(line.substr(0, at) + line.substr(at + 1));
      check(line.substr(0, at));
    }
  }
  EXPECT_GT(num_taken, 1000U);
}

TEST(EventFacts, TheScanHoldsTheLimitsOfTexts) {
  Event event = FullEvent();
  std::string line = *SerializeEvent(event);
  const std::size_t host = line.find(R"("host":"db1)");
  ASSERT_NE(host, std::string::npos);
  for (const std::size_t extra : {61U, 62U}) {  // 64 bytes are the limit
    const std::string longer =
        line.substr(0, host + 11) + std::string(extra, 'x') + line.substr(host + 11);
    EXPECT_EQ(ScanPlainEvent(longer).has_value(), extra == 61) << extra;
    EXPECT_EQ(ParseEvent(longer).has_value(), extra == 61) << extra;
  }
}

}  // namespace
}  // namespace keyescrow::agent::audit
