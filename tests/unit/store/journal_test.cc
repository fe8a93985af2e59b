#include "agent/usecases/journal.h"

#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <thread>

#include "tests/unit/store/state_fixture.h"

namespace keyescrow::agent {
namespace {

using audit::EventType;
using audit::LogFault;

bool Has(const audit::LogReport& report, LogFault fault) {
  return std::any_of(report.findings.begin(), report.findings.end(),
                     [&](const auto& finding) { return finding.fault == fault; });
}

Result<Bytes32> HashOf(ByteView bytes) { return Sha256(bytes); }

TEST(Journal, AppendsAreThereAfterReopeningAndVerify) {
  StateFixture fixture;
  for (std::uint64_t run = 0; run < 3; ++run) {
    auto journal = fixture.Open();
    ASSERT_TRUE(journal) << journal.error().message();
    for (std::uint64_t i = 0; i < 100; ++i) {
      const auto receipt = journal->Append(MakeEvent(EventType::kRestoreRequested));
      ASSERT_TRUE(receipt) << receipt.error().message();
      EXPECT_EQ(receipt->seq, run * 100 + i);
      EXPECT_EQ(receipt->size, run * 100 + i + 1);
      EXPECT_TRUE(receipt->p256_signed);
    }
  }
  auto journal = fixture.Open();
  const auto report = journal->VerifyAll(HashOf);
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_TRUE(report->Intact()) << report->findings[0].text;
  EXPECT_EQ(report->num_findings, 0u);
  EXPECT_EQ(report->num_entries, 300u);
  EXPECT_EQ(report->num_checkpoints, 300u);
  EXPECT_FALSE(journal->Health()->p256_missing);
}

TEST(Journal, FillsTheFactsOfTheProcess) {
  StateFixture fixture;
  auto journal = fixture.Open();
  ASSERT_TRUE(journal->Append(MakeEvent(EventType::kAgentStarted)));
  ASSERT_TRUE(journal->Append(MakeEvent(EventType::kAgentStopped)));
  std::vector<audit::Event> events;
  ASSERT_TRUE(journal->Events({}, [&](const LoggedEvent& logged) {
    events.push_back(*logged.event);
    return true;
  }));
  ASSERT_EQ(events.size(), 2u);
  EXPECT_NE(events[0].id, events[1].id);
  EXPECT_EQ(events[1].source, journal->identity().origin);
  EXPECT_EQ(events[1].source_seq, 1u);
  EXPECT_EQ(events[1].host, "db1");
  EXPECT_EQ(events[1].actor->pid, getpid());
  EXPECT_EQ(events[1].actor->uid, getuid());
  EXPECT_FALSE(events[1].boot_id.empty());
  EXPECT_FALSE(events[0].prev_checkpoint);
  EXPECT_TRUE(events[1].prev_checkpoint);
}

TEST(Journal, FiltersByKeyTypeAndTime) {
  StateFixture fixture;
  auto journal = fixture.Open();
  ASSERT_TRUE(journal->Append({MakeEvent(EventType::kDrillPassed, "a"),
                               MakeEvent(EventType::kDrillFailed, "b"),
                               MakeEvent(EventType::kDrillPassed, "b")}));
  const auto count = [&](const EventFilter& filter) {
    int found = 0;
    EXPECT_TRUE(journal->Events(filter, [&](const LoggedEvent&) { return ++found > 0; }));
    return found;
  };
  EXPECT_EQ(count({}), 3);
  EventFilter filter;
  filter.key_name = "b";
  EXPECT_EQ(count(filter), 2);
  filter.types = {EventType::kDrillPassed};
  EXPECT_EQ(count(filter), 1);
  filter.until = 1;
  EXPECT_EQ(count(filter), 0);
  filter = {};
  filter.first = 2;
  EXPECT_EQ(count(filter), 1);
}

TEST(Journal, ADeadAgentKeyStopsNothingAndIsAskedOnce) {
  StateFixture fixture;
  FailingSigner dead(fixture.signer->PublicKey());
  {
    auto journal = fixture.OpenWith(&dead);
    for (int i = 0; i < 3; ++i) {
      const auto receipt = journal->Append(MakeEvent(EventType::kRestoreRequested));
      ASSERT_TRUE(receipt);
      EXPECT_FALSE(receipt->p256_signed);
    }
    EXPECT_EQ(dead.num_calls, 1);
    const auto health = journal->Health();
    EXPECT_TRUE(health->p256_missing);
    EXPECT_EQ(health->missing_since_size, 1u);
    EXPECT_EQ(health->missing_cause, "tpm_timeout");
    EXPECT_TRUE(ParseUtc(health->missing_since_time));
  }
  auto without = fixture.OpenWith(nullptr);
  ASSERT_TRUE(without->Append(MakeEvent(EventType::kRestoreCompleted)));
  EXPECT_EQ(without->Health()->missing_since_size, 1u);  // still since the first
  EXPECT_TRUE(Has(*without->VerifyAll(), LogFault::kMissingP256));
  auto journal = fixture.Open();
  ASSERT_TRUE(journal->Append(MakeEvent(EventType::kRestoreRequested)));
  EXPECT_FALSE(journal->Health()->p256_missing);
  const auto report = journal->VerifyAll();
  EXPECT_TRUE(report->Intact());
  EXPECT_EQ(report->num_missing_p256, 4u);
  EXPECT_FALSE(Has(*report, LogFault::kMissingP256));
}

TEST(Journal, AnotherKeysSignatureIsNotPutIntoTheLog) {
  StateFixture fixture;
  FileSigner stranger(*P256KeyPair::Generate());
  auto journal = fixture.OpenWith(&stranger);
  EXPECT_FALSE(journal->Append(MakeEvent(EventType::kRestoreRequested))->p256_signed);
  EXPECT_TRUE(journal->VerifyAll()->Intact());
}

TEST(Journal, ReceiptsProveTheEntryThatEscrowedTheEnvelope) {
  StateFixture fixture;
  auto journal = fixture.Open();
  ASSERT_TRUE(journal->Append(MakeEvent(EventType::kAgentStarted)));
  ASSERT_TRUE(Escrow(*journal, MakeEnvelope("prod/db", 1, 1)));
  ASSERT_TRUE(journal->Append(MakeEvent(EventType::kDrillPassed)));
  const auto envelope = journal->store().FindEnvelope("prod/db", std::nullopt);
  ASSERT_TRUE(envelope);
  EXPECT_EQ(envelope->log_seq, 1u);
  const auto text = journal->ProveEnvelope(*envelope);
  ASSERT_TRUE(text);
  const auto proof = audit::ParseTlogProof(*text);
  ASSERT_TRUE(proof);
  const auto verified =
      audit::VerifyTlogProof(*proof, proof->extra, journal->identity().origin, journal->Keys());
  ASSERT_TRUE(verified);
  EXPECT_EQ(verified->verified, (std::vector<bool>{true, true}));
  const auto event = audit::ParseEvent(AsText(proof->extra));
  EXPECT_EQ(event->envelope->sha256, envelope->sha256);
  EXPECT_EQ(journal->Prove(3).error().code(), ErrorCode::kNotFound);
}

TEST(Journal, VerificationFindsEveryTampering) {
  const struct {
    const char* sql;
    LogFault fault;
  } cases[] = {
      {"DROP TRIGGER log_entry_update; UPDATE log_entry SET bytes = "
       "CAST(replace(CAST(bytes AS TEXT), 'success', 'failure') AS BLOB) WHERE seq = 3",
       LogFault::kLeafHash},
      {"DROP TRIGGER log_entry_update; UPDATE log_entry SET leaf_hash = zeroblob(32) WHERE seq = 3",
       LogFault::kLeafHash},
      {"DROP TRIGGER log_entry_delete; DELETE FROM log_entry WHERE seq = 3", LogFault::kSequence},
      {"DROP TRIGGER checkpoint_update; UPDATE checkpoint SET note = replace(note, char(10) || '4'"
       " || char(10), char(10) || '5' || char(10)) WHERE size = 4",
       LogFault::kCheckpointFormat},
      {"DROP TRIGGER checkpoint_delete; DELETE FROM checkpoint WHERE size = 4",
       LogFault::kEntryChain},
      {"DROP TRIGGER tile_update; UPDATE tile SET bytes = zeroblob(length(bytes))",
       LogFault::kTile},
      {"DROP TRIGGER envelope_update; UPDATE envelope SET bytes = x'00'", LogFault::kEntryChain},
  };
  for (const auto& c : cases) {
    StateFixture fixture;
    {
      auto journal = fixture.Open();
      for (int i = 0; i < 6; ++i) {
        ASSERT_TRUE(journal->Append(MakeEvent(EventType::kVerifyPassed)));
      }
      ASSERT_TRUE(Escrow(*journal, MakeEnvelope("prod/db", 1, 1)));
      EXPECT_TRUE(journal->VerifyAll(HashOf)->Intact());
    }
    ASSERT_EQ(fixture.Tamper(std::string("PRAGMA foreign_keys = OFF; ") + c.sql), SQLITE_OK)
        << c.sql;
    auto journal = fixture.Open();
    ASSERT_TRUE(journal) << journal.error().message();
    const auto report = journal->VerifyAll(HashOf);
    ASSERT_TRUE(report) << report.error().message();
    EXPECT_FALSE(report->Intact()) << c.sql;
    EXPECT_TRUE(Has(*report, c.fault)) << c.sql;
  }
}

TEST(Journal, NothingIsAppendedToTilesThatWereChanged) {
  StateFixture fixture;
  ASSERT_TRUE(fixture.Open()->Append(MakeEvent(EventType::kAgentStarted)));
  ASSERT_EQ(fixture.Tamper("DROP TRIGGER tile_update; UPDATE tile SET bytes = zeroblob(32)"),
            SQLITE_OK);
  const auto receipt = fixture.Open()->Append(MakeEvent(EventType::kRestoreRequested));
  ASSERT_FALSE(receipt);
  EXPECT_EQ(receipt.error().code(), ErrorCode::kLogDamaged);
}

TEST(Journal, NothingIsAppendedToAnotherAgentsLog) {
  StateFixture here;
  StateFixture there;  // its store is put in the place of this one's
  ASSERT_TRUE(here.Open()->Append(MakeEvent(audit::EventType::kAgentStarted)));
  ASSERT_TRUE(there.Open()->Append(MakeEvent(audit::EventType::kAgentStarted)));
  for (const std::string name : {"/store.db", "/store.db-wal", "/store.db-shm"}) {
    std::filesystem::remove(here.state + name);
    if (!std::filesystem::exists(there.state + name)) continue;
    std::filesystem::copy_file(there.state + name, here.state + name);
  }
  auto journal = here.Open();
  const auto refused = journal->Append(MakeEvent(audit::EventType::kAgentStarted));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kAgentKeyUnavailable);
  EXPECT_EQ(journal->store().Head()->size, 1u);
}

TEST(Journal, AnAuditorsOlderCheckpointShowsACutTail) {
  StateFixture fixture;
  std::string kept;
  {
    auto journal = fixture.Open();
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(journal->Append(MakeEvent(EventType::kAgentStarted)));
    kept = *journal->LatestCheckpoint();
    EXPECT_TRUE(journal->VerifyAll(nullptr, kept)->Intact());
  }
  ASSERT_EQ(fixture.Tamper("DROP TRIGGER checkpoint_delete; DROP TRIGGER log_entry_delete;"
                           "DROP TRIGGER tile_update; DELETE FROM checkpoint WHERE size > 3;"
                           "DELETE FROM log_entry WHERE seq > 2;"
                           "UPDATE tile SET bytes = substr(bytes, 1, 96)"),
            SQLITE_OK);
  auto journal = fixture.Open();
  EXPECT_TRUE(journal->VerifyAll()->Intact());  // not seen from inside, as FORMAT.md says
  EXPECT_TRUE(Has(*journal->VerifyAll(nullptr, kept), LogFault::kLogCut));
}

TEST(Journal, ImportIsIdempotentAndStrict) {
  StateFixture fixture;
  auto journal = fixture.Open();
  std::string file;
  for (std::uint64_t i = 0; i < 2; ++i) {
    audit::Event event =
        MakeEvent(i == 0 ? EventType::kRestoreRequested : EventType::kRestoreCompleted);
    ASSERT_TRUE(CompleteEvent(event, SystemClock(), SystemRandom()));
    event.source = std::string(audit::kStatelessSource);
    event.source_seq = i;
    event.outcome = i == 0 ? audit::Outcome::kPending : audit::Outcome::kSuccess;
    event.host = "rescue";
    file += *audit::SerializeEvent(event) + "\n";
  }
  auto first = journal->ImportEvents(file);
  ASSERT_TRUE(first) << first.error().message();
  EXPECT_EQ(first->num_added, 2u);
  auto second = journal->ImportEvents(file);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->num_added, 0u);
  EXPECT_EQ(second->num_known, 2u);
  EXPECT_EQ(journal->store().Head()->size, 2u);
  EXPECT_TRUE(journal->VerifyAll()->Intact());
  // A power cut left the last line without its line feed: the lines before it count.
  EXPECT_EQ(journal->ImportEvents(file.substr(0, file.size() - 1))->num_known, 1u);
  EXPECT_FALSE(journal->ImportEvents(file.substr(0, 20)));
  EXPECT_FALSE(journal->ImportEvents(""));
  EXPECT_FALSE(journal->ImportEvents("{}\n"));
  EXPECT_FALSE(journal->ImportEvents(file.substr(file.find('\n') + 1)));  // line 2 alone
}

TEST(Journal, ImportTakesWhatARunWithoutStateWritesAlone) {
  StateFixture fixture;
  auto journal = fixture.Open();
  using Lines = std::vector<std::pair<EventType, audit::Outcome>>;
  const auto import = [&](const Lines& lines, const std::string& key_of_the_last = "prod/db") {
    std::string file;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      audit::Event event =
          MakeEvent(lines[i].first, i + 1 == lines.size() ? key_of_the_last : "prod/db");
      event.outcome = lines[i].second;
      EXPECT_TRUE(CompleteEvent(event, SystemClock(), SystemRandom()));
      event.source = std::string(audit::kStatelessSource);
      event.source_seq = i;
      file += *audit::SerializeEvent(event) + "\n";
    }
    return journal->ImportEvents(file);
  };
  using enum audit::Outcome;
  const std::pair asked{EventType::kRestoreRequested, kPending};
  const std::pair done{EventType::kRestoreCompleted, kSuccess};
  for (const EventType type :
       {EventType::kFactorRemoved, EventType::kFactorEnrolled, EventType::kPolicyChanged,
        EventType::kVerifyPassed, EventType::kKeyDestroyed, EventType::kRestoreDenied}) {
    const auto refused = import({{type, kSuccess}});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::kLogDamaged);
    EXPECT_NE(refused.error().message().find(audit::EventTypeName(type)), std::string::npos);
  }
  EXPECT_FALSE(import({done}));
  EXPECT_FALSE(import({asked, done, done}));
  EXPECT_FALSE(import({asked, done}, "prod/other"));
  EXPECT_FALSE(import({{EventType::kRestoreRequested, kSuccess}}));
  EXPECT_FALSE(import({{EventType::kDrillPassed, kFailure}}));
  EXPECT_EQ(journal->store().Head()->size, 0u);
  EXPECT_TRUE(import({asked, done}));
  EXPECT_TRUE(import({asked, {EventType::kRestoreFailed, kFailure}}));
  EXPECT_TRUE(import({asked}));  // it died before its end
  EXPECT_TRUE(import({{EventType::kDrillPassed, kSuccess}, {EventType::kDrillSkipped, kFailure}}));
  EXPECT_EQ(journal->Counts()->Of(EventType::kDrillPassed), 0u);
}

TEST(Journal, ProcessesAppendTogetherWithoutLosingAnUpdate) {
  StateFixture fixture;
  constexpr int kProcesses = 3;
  constexpr int kEach = 60;
  std::vector<pid_t> children;
  for (int p = 0; p < kProcesses; ++p) {
    const pid_t child = fork();
    if (child == 0) {
      // SecretBytes do not survive a fork: the child opens everything itself.
      FileSigner signer = *FileSigner::Load(fixture.state, *LoadAgentIdentity(fixture.state));
      auto journal = fixture.OpenWith(&signer);
      bool ok = journal.has_value();
      for (int i = 0; ok && i < kEach; ++i) {
        ok = journal->Append(MakeEvent(EventType::kDrillPassed)).has_value();
      }
      _exit(ok ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  auto journal = fixture.Open();
  const auto report = journal->VerifyAll();
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->Intact());
  EXPECT_EQ(report->num_entries, std::uint64_t{kProcesses * kEach});
}

TEST(Journal, WhatWasAcknowledgedOutlivesSigkill) {
  StateFixture fixture;
  std::uint64_t acknowledged = 0;
  for (int round = 0; round < 8; ++round) {
    int pipe_ends[2];
    ASSERT_EQ(pipe(pipe_ends), 0);
    const pid_t child = fork();
    if (child == 0) {
      FileSigner signer = *FileSigner::Load(fixture.state, *LoadAgentIdentity(fixture.state));
      auto journal = fixture.OpenWith(&signer);
      for (;;) {
        const auto receipt = journal->Append(MakeEvent(EventType::kRestoreRequested));
        if (!receipt) _exit(1);
        if (write(pipe_ends[1], &receipt->size, sizeof receipt->size) < 0) _exit(2);
      }
    }
    close(pipe_ends[1]);
    std::uint64_t size = 0;
    // Half of them are killed wherever they are, the others after an entry, on any machine.
    if (round % 2 == 1 && read(pipe_ends[0], &size, sizeof size) == sizeof size) {
      acknowledged = size;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10 + 7 * round));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status));
    while (read(pipe_ends[0], &size, sizeof size) == sizeof size) acknowledged = size;
    close(pipe_ends[0]);
    auto journal = fixture.Open();
    ASSERT_TRUE(journal) << journal.error().message();
    EXPECT_GE(journal->store().Head()->size, acknowledged);
    EXPECT_TRUE(journal->VerifyAll()->Intact());
  }
  EXPECT_GT(acknowledged, 0u);
}

}  // namespace
}  // namespace keyescrow::agent
