// What the journal tells monitors: counts beside the checkpoints, and entries to systemd's journal.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "agent/usecases/event_counts.h"
#include "agent/usecases/imported_counts.h"
#include "agent/usecases/journald.h"
#include "tests/unit/store/state_fixture.h"

namespace keyescrow::agent {
namespace {

using audit::EventType;

constexpr EventType kAllTypes[] = {
#define KEYESCROW_EVENT(enumerator, name) EventType::enumerator,
#include "agent/audit/event_types.def"
#undef KEYESCROW_EVENT
};

TEST(EventCounts, RoundTrip) {
  EventCounts counts;
  EXPECT_EQ(counts.Text(), "");
  EXPECT_FALSE(counts.LastVerify());
  counts.Add("{\"v\":1,\"type\":\"restore.completed\"}");
  counts.Add(
      "{\"v\":1,\"type\":\"restore.completed\",\"reason\":\"\\\"type\\\":\\\"drill.failed\\\"\"}");
  counts.Add("{\"v\":1,\"type\":\"escrow.created\"}");
  counts.Add("{\"v\":1,\"type\":\"restore.unheard\"}");
  counts.Add("no entry");
  EXPECT_EQ(counts.Text(), "own restore.completed=2");
  counts.Add("{\"type\":\"verify.passed\"}");
  counts.Add("{\"type\":\"verify.failed\"}");
  EXPECT_EQ(counts.LastVerify(), false);
  counts.Add("{\"type\":\"verify.passed\"}");
  const EventCounts read = EventCounts::Parse(counts.Text());
  EXPECT_EQ(read.Text(), counts.Text());
  EXPECT_EQ(read.Of(EventType::kVerifyPassed), 2u);
  EXPECT_EQ(read.LastVerify(), true);
  EXPECT_EQ(EventCounts::Parse("x drill.passed=1x drill.failed= agent.started=2 =3").Text(), "");
}

TEST(EventCounts, LeaveImportedEventsOut) {
  const std::string imported = "\"source\":\"stateless\",";
  EventCounts counts;
  counts.Add("{\"type\":\"verify.failed\"}");
  counts.Add("{" + imported + "\"type\":\"drill.passed\"}");
  EventCounts later;
  later.Add("{" + imported + "\"type\":\"verify.passed\"}");
  later.Add("{" + imported + "\"type\":\"drill.passed\"}");
  counts.Append(later);
  EXPECT_EQ(counts.Text(),
            "own imported.drill.passed=2 imported.verify.last=1 imported.verify.passed=1 "
            "verify.failed=1 verify.last=0");
  EXPECT_EQ(EventCounts::Parse(counts.Text()).Text(), counts.Text());
  EXPECT_EQ(counts.Of(EventType::kDrillPassed), 0u);
  // As older versions counted.
  EXPECT_EQ(CountsWithImported(counts.Text()),
            "drill.passed=2 verify.failed=1 verify.last=1 verify.passed=1");
  counts.Add("{\"type\":\"verify.failed\"}");
  EXPECT_EQ(CountsWithImported(counts.Text()),
            "drill.passed=2 verify.failed=2 verify.last=0 verify.passed=1");
  EXPECT_TRUE(CountsAreOfOwn(counts.Text()));
  EXPECT_FALSE(CountsAreOfOwn(CountsWithImported(counts.Text())));
}

TEST(EventCounts, AreThoseOfTheLogAtEachCommit) {
  StateFixture fixture;
  auto journal = fixture.Open();
  EXPECT_EQ(journal->Counts()->Text(), "");
  for (const EventType type : {EventType::kDrillPassed, EventType::kAgentStarted,
                               EventType::kDrillPassed, EventType::kRestoreRequested}) {
    ASSERT_TRUE(journal->Append(MakeEvent(type)));
  }
  EXPECT_EQ(journal->Counts()->Text(), "own drill.passed=2 restore.requested=1");
  EXPECT_EQ(fixture.Open()->Counts()->Text(), "own drill.passed=2 restore.requested=1");
}

TEST(EventCounts, AreCountedOnceWhereAnOlderVersionKeptNone) {
  StateFixture fixture;
  {
    auto journal = fixture.Open();
    ASSERT_TRUE(journal->Append(MakeEvent(EventType::kDrillPassed)));
    ASSERT_TRUE(journal->Append(MakeEvent(EventType::kDrillFailed)));
  }
  ASSERT_EQ(fixture.Tamper("DROP TRIGGER checkpoint_update"), SQLITE_OK);
  // The second counted imported events as well: its text does not begin with "own".
  for (const char* kept : {"NULL", "'drill.failed=1 drill.passed=7'"}) {
    ASSERT_EQ(fixture.Tamper(std::string("UPDATE checkpoint SET counts = ") + kept), SQLITE_OK);
    EXPECT_EQ(fixture.Open()->Counts()->Text(), "own drill.failed=1 drill.passed=1");
  }
  auto journal = fixture.Open();
  ASSERT_TRUE(journal->Append(MakeEvent(EventType::kDrillPassed)));
  EXPECT_EQ(journal->store().Head()->counts, "own drill.failed=1 drill.passed=2");
}

TEST(Journald, TheIdOfEachTypeIsFixedAndDocumented) {
  std::ifstream file(KEYESCROW_SOURCE_DIR "/agent/docs/MONITORING.md");
  std::stringstream text;
  text << file.rdbuf();
  std::set<std::string> ids;
  for (const EventType type : kAllTypes) {
    const std::string id = JournaldMessageId(type);
    EXPECT_EQ(id.size(), 32u);
    EXPECT_TRUE(ids.insert(id).second);
    const std::string row =
        "| `" + std::string(audit::EventTypeName(type)) + "` | `" + id + "` |\n";
    EXPECT_NE(text.str().find(row), std::string::npos) << row;
  }
}

// Listener is a journal of the test's own.
struct Listener {
  explicit Listener(const std::string& path) : fd(socket(AF_UNIX, SOCK_DGRAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    EXPECT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  ~Listener() { close(fd); }
  std::string Next() const {
    std::string datagram(65536, '\0');
    const ssize_t size = recv(fd, datagram.data(), datagram.size(), MSG_DONTWAIT);
    datagram.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
    return datagram;
  }
  int fd;
};

TEST(Journald, GetsWhatWasCommittedAndNothingElse) {
  StateFixture fixture;
  const std::string path = fixture.folder.path + "/journal";
  const Listener listener(path);
  JournalOptions options;
  options.state_dir = fixture.state;
  options.identity = *LoadAgentIdentity(fixture.state);
  options.ed25519_seed = *LoadEd25519Seed(fixture.state);
  options.journald_socket = path;
  auto journal = Journal::Open(std::move(options));
  ASSERT_TRUE(journal);
  std::vector<audit::Event> events(2, MakeEvent(EventType::kEscrowCreated));
  events[1].reason = "first\nsecond";
  ASSERT_TRUE(journal->Append(events));
  EXPECT_NE(listener.Next().find("\nKEYESCROW_SEQ=0\n"), std::string::npos);
  const std::string second = listener.Next();
  EXPECT_NE(second.find("\nKEYESCROW_SEQ=1\n"), std::string::npos);
  const std::string sized("KEYESCROW_REASON\n\x0C\0\0\0\0\0\0\0first\nsecond\n", 38);
  EXPECT_NE(second.find(sized), std::string::npos);
  EXPECT_EQ(listener.Next(), "");
  // The same envelope twice: the commit fails, and tells nothing.
  store::Change change;
  change.envelopes = {MakeEnvelope("prod/db", 1, 1), MakeEnvelope("prod/db", 1, 1)};
  EXPECT_FALSE(journal->Append(MakeEvent(EventType::kEscrowCreated), change));
  EXPECT_EQ(listener.Next(), "");
  ASSERT_TRUE(journal->Append(MakeEvent(EventType::kAgentStopped)));
  EXPECT_NE(listener.Next().find("\nKEYESCROW_SEQ=2\n"), std::string::npos);
}

TEST(Journald, WhatIsNotThereIsNoError) {
  JournaldSender none("");
  EXPECT_FALSE(none.wanted());
  none.Send({{0, {}, "x"}});
  JournaldSender gone("/nowhere/journal");
  gone.Send({{0, {}, "x"}, {1, {}, "y"}});
  EXPECT_FALSE(gone.wanted());
  JournaldSender too_long(std::string(200, 'x'));
  too_long.Send({{0, {}, "x"}});
}

}  // namespace
}  // namespace keyescrow::agent
