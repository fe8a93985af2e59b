#include "agent/audit/event.h"

#include <gtest/gtest.h>

#include "envelope/base/utf8.h"

namespace keyescrow::agent::audit {
namespace {

Event FullEvent() {
  Event event;
  event.id = {1, 2, 3};
  event.source = "keyescrow.log/db1/abc";
  event.source_seq = 41;
  event.time = 1'700'000'000;
  event.boot_id = "5b1c3c5e-0000-4000-8000-000000000000";
  event.clock_synced = true;
  event.type = EventType::kRestoreFailed;
  event.outcome = Outcome::kFailure;
  event.error = "wrong_password";
  event.actor = Actor{1000, 1001, "alice", 4242, "/usr/bin/keyescrow"};
  event.approvers = {"bob", "carol"};
  event.host = "db1";
  event.key = EventKey{"prod/db", 3};
  event.envelope = EventEnvelope{"AAAAAAAAAAAAAAAAAAAAAA", 2, Bytes32{9}};
  event.policy = EventPolicy{"base", 7, Bytes32{8}};
  event.paths = {{"token",
                  {{"pkcs11-rsa", "ops", Bytes32{7}, ""},
                   {"password", "", std::nullopt, "argon2id t=4 m=262144 p=4"}}}};
  event.reason = "disk died";
  event.ticket = "OPS-1";
  event.prev_checkpoint = Bytes32{6};
  return event;
}

TEST(Event, RoundTripsWithAllMembers) {
  const auto line = SerializeEvent(FullEvent());
  ASSERT_TRUE(line);
  const auto read = ParseEvent(*line);
  ASSERT_TRUE(read) << *line;
  EXPECT_EQ(*read, FullEvent());
}

TEST(Event, TheLineIsTheDocumentedOne) {
  Event event;
  event.source = "stateless";
  event.host = "h";
  event.type = EventType::kRestoreRequested;
  event.outcome = Outcome::kPending;
  EXPECT_EQ(*SerializeEvent(event),
            R"({"v":1,"id":"AAAAAAAAAAAAAAAAAAAAAA","source":"stateless","source_seq":0,)"
            R"("time":"1970-01-01T00:00:00Z","boot_id":"","clock_synced":false,)"
            R"("type":"restore.requested","outcome":"pending","host":"h"})");
}

TEST(Event, HostileTextIsEscapedAndCutAtACharacter) {
  Event event = FullEvent();
  event.reason = "a\"b\\c\n\x1b[31m\x7f\xC2\x9B\xE2\x80\xAE\xFF" + std::string(600, 'x');
  const auto line = SerializeEvent(event);
  ASSERT_TRUE(line);
  EXPECT_NE(line->find(R"(a\"b\\c\u000a\u001b[31m\u007f\u009b\u202e)"), std::string::npos) << *line;
  for (const char c : *line) EXPECT_TRUE(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f);
  EXPECT_TRUE(IsUtf8(*line));
  const auto read = ParseEvent(*line);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->reason.size(), kMaxReasonBytes);
  event.reason = std::string(511, 'x') + "\xC3\xA9";  // é would end at byte 513
  EXPECT_EQ(ParseEvent(*SerializeEvent(event))->reason, std::string(511, 'x'));
}

TEST(Event, DetailsGiveWayBeforeTheLineGrowsTooLong) {
  Event event = FullEvent();
  const EventPath path = event.paths[0];
  for (int i = 0; i < 15; ++i) event.paths.push_back(path);
  const auto line = SerializeEvent(event);
  ASSERT_TRUE(line);
  EXPECT_LE(line->size(), kMaxEventBytes);
  const auto read = ParseEvent(*line);
  ASSERT_TRUE(read);
  EXPECT_TRUE(read->truncated);
  EXPECT_EQ(read->paths.size(), 16u);
  EXPECT_EQ(read->envelope, event.envelope);
  event.reason = std::string(512, '\x01');  // six bytes each, once escaped
  event.approvers = std::vector<std::string>(8, std::string(64, '\x01'));
  const auto bare = SerializeEvent(event);
  ASSERT_TRUE(bare);
  EXPECT_LE(bare->size(), kMaxEventBytes);
  EXPECT_TRUE(ParseEvent(*bare));
}

TEST(Event, OnlyTheCanonicalLineIsRead) {
  const std::string line = *SerializeEvent(FullEvent());
  const auto with = [&](std::string_view from, std::string_view to) {
    std::string changed = line;
    const std::size_t at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return changed.replace(at, from.size(), to);
  };
  for (const std::string& bad : {std::string(),
                                 std::string("null"),
                                 std::string("{}"),
                                 line + " ",
                                 line + "\n",
                                 " " + line,
                                 with("\"v\":1", "\"v\":0"),
                                 with("\"v\":1", "\"v\":1.0"),
                                 with("\"v\":1,", "\"v\":1,\"x\":1,"),
                                 with("\"v\":1,", "\"v\":1,\"v\":1,"),
                                 with("disk died", "disk\\u0020died"),
                                 with("restore.failed", "restore.forgotten"),
                                 with("failure", "maybe"),
                                 with("\"uid\":1000", "\"uid\":-1"),
                                 with("\"uid\":1000", "\"uid\":4294967296"),
                                 with("\"source_seq\":41", "\"source_seq\":\"41\""),
                                 with("2023-11-14", "2023-13-14"),
                                 with("\"clock_synced\":true", "\"clock_synced\":1"),
                                 with("[\"bob\",", "[1,"),
                                 with("\"reason\":\"disk died\",", "\"reason\":\"\","),
                                 line.substr(0, line.size() / 2),
                                 std::string(3000, '[')}) {
    const auto read = ParseEvent(bad);
    ASSERT_FALSE(read) << bad;
    EXPECT_EQ(read.error().code(), ErrorCode::kLogDamaged) << bad;
  }
  EXPECT_EQ(ParseEvent(with("\"v\":1", "\"v\":2")).error().code(), ErrorCode::kUnsupportedHere);
}

TEST(EventType, NamesAreAClosedSet) {
  EXPECT_EQ(EventTypeName(EventType::kAgentStarted), "agent.started");
  EXPECT_EQ(EventTypeName(EventType::kKeyDestroyed), "key.destroyed");
  EXPECT_EQ(EventTypeFromName("drill.passed"), EventType::kDrillPassed);
  EXPECT_FALSE(EventTypeFromName("drill"));
}

}  // namespace
}  // namespace keyescrow::agent::audit
