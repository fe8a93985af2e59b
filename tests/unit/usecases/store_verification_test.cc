// VerifyStore over several segments and threads, on stores that backups' own code filled.
#include "agent/usecases/store_verification.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "agent/audit/checkpoint.h"
#include "agent/usecases/keyed_sum.h"
#include "agent/usecases/path_proof.h"
#include "agent/usecases/path_set.h"
#include "envelope/base/clock.h"
#include "envelope/base/random.h"
#include "envelope/sealed_envelope.h"
#include "tests/bench/store_maker.h"

namespace keyescrow::agent {
namespace {

constexpr std::uint64_t kRecords = 4400;  // two segments, tiles of two levels
constexpr std::uint64_t kBatch = 50;

// MadeStore is made once: a thousand envelopes are sealed in a fifth of a second.
struct MadeStore {
  std::string folder;
  AgentIdentity identity;
  std::string middle;  // the checkpoint in the middle
  std::string newest;

  MadeStore() {
    char name[] = "/tmp/keyescrow-verify-XXXXXX";
    folder = mkdtemp(name);
    auto maker = *StoreMaker::Create(folder + "/state");
    EXPECT_TRUE(maker.Add(kRecords / 2, kBatch));
    middle = *maker.journal().LatestCheckpoint();
    EXPECT_TRUE(maker.Add(kRecords - kRecords / 2, kBatch));
    newest = *maker.journal().LatestCheckpoint();
    identity = maker.journal().identity();
  }
  ~MadeStore() { std::filesystem::remove_all(folder); }
  MadeStore(const MadeStore&) = delete;
  MadeStore& operator=(const MadeStore&) = delete;
};

const MadeStore& Made() {
  static const MadeStore made;
  return made;
}

class VerifyStoreTest : public ::testing::Test {
 protected:
  VerifyStoreTest() {
    std::filesystem::copy(Made().folder + "/state", state_,
                          std::filesystem::copy_options::recursive);
  }
  ~VerifyStoreTest() override { std::filesystem::remove_all(state_); }

  StoreVerifyOptions Options(unsigned num_threads) const {
    const AgentIdentity& identity = Made().identity;
    StoreVerifyOptions options;
    options.state_dir = state_;
    options.origin = identity.origin;
    options.log_keys = {audit::NoteKey::Ed25519(identity.origin, identity.ed25519),
                        audit::NoteKey::P256(identity.origin, identity.p256)};
    options.agents = {identity.Thumbprint()};
    options.num_threads = num_threads;
    return options;
  }
  void Tamper(const std::string& sql) const {
    sqlite3* handle = nullptr;
    ASSERT_EQ(sqlite3_open((state_ + "/store.db").c_str(), &handle), SQLITE_OK);
    const std::string all =
        "DROP TRIGGER IF EXISTS log_entry_update; DROP TRIGGER IF EXISTS log_entry_delete;"
        "DROP TRIGGER IF EXISTS envelope_update; DROP TRIGGER IF EXISTS envelope_delete;"
        "DROP TRIGGER IF EXISTS tile_update; DROP TRIGGER IF EXISTS checkpoint_delete;" +
        sql;
    char* message = nullptr;
    EXPECT_EQ(sqlite3_exec(handle, all.c_str(), nullptr, nullptr, &message), SQLITE_OK) << message;
    sqlite3_free(message);
    sqlite3_close(handle);
  }

  std::string state_ = Made().folder + "/copy";
};

bool Has(const StoreVerification& found, audit::LogFault fault, std::uint64_t position) {
  return std::ranges::any_of(found.log.findings, [&](const audit::LogFinding& finding) {
    return finding.fault == fault && finding.position == position;
  });
}

TEST_F(VerifyStoreTest, AnyNumberOfThreadsFindsTheSame) {
  for (const unsigned num_threads : {1U, 2U, 5U}) {
    const auto found = VerifyStore(Options(num_threads));
    ASSERT_TRUE(found) << found.error().message();
    EXPECT_EQ(found->log.num_findings, 0U)
        << (found->log.findings.empty() ? "" : found->log.findings.front().text);
    EXPECT_EQ(found->log.num_entries, kRecords);
    EXPECT_EQ(found->log.num_checkpoints, kRecords / kBatch);
    EXPECT_EQ(found->log.num_signatures, 2 * kRecords / kBatch);
    EXPECT_EQ(found->num_envelopes, kRecords);
    EXPECT_EQ(found->num_envelope_signatures, kRecords);
    EXPECT_EQ(found->num_keys, kRecords);
    EXPECT_EQ(found->log.root, audit::ParseCheckpoint(audit::NoteText(Made().newest))->root);
  }
}

TEST_F(VerifyStoreTest, QuickHashesEverythingAndVerifiesTheNewestCheckpointAlone) {
  StoreVerifyOptions options = Options(2);
  options.quick = true;
  const auto found = VerifyStore(options);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->log.num_findings, 0U);
  EXPECT_EQ(found->log.num_signatures, 2U);
  EXPECT_EQ(found->num_envelopes, kRecords);
  EXPECT_EQ(found->num_envelope_signatures, 0U);
}

TEST_F(VerifyStoreTest, AnOlderCheckpointIsFoundWhereverItLies) {
  StoreVerifyOptions options = Options(2);
  options.since = *audit::ParseCheckpoint(audit::NoteText(Made().middle));
  EXPECT_EQ(VerifyStore(options)->log.num_findings, 0U);
  options.since->root[0] ^= 1;
  EXPECT_TRUE(Has(*VerifyStore(options), audit::LogFault::kSinceMismatch, options.since->size));
  options.since = *audit::ParseCheckpoint(audit::NoteText(Made().newest));
  EXPECT_EQ(VerifyStore(options)->log.num_findings, 0U);
  ++options.since->size;
  EXPECT_TRUE(Has(*VerifyStore(options), audit::LogFault::kLogCut, kRecords + 1));
}

TEST_F(VerifyStoreTest, FindsOneChangedRowAmongMany) {
  Tamper(
      "UPDATE log_entry SET leaf_hash = zeroblob(32) WHERE seq = 4321;"
      "UPDATE envelope SET bytes = zeroblob(10) WHERE id = 17;"
      "UPDATE tile SET bytes = zeroblob(8192) WHERE id = 3;"
      "DROP TRIGGER path_set_update;"
      "UPDATE path_set SET digest = zeroblob(32) WHERE envelope_row = 23;"
      "DELETE FROM envelope WHERE id = 4000");
  for (const bool quick : {true, false}) {
    StoreVerifyOptions options = Options(3);
    options.quick = quick;
    const auto found = VerifyStore(options);
    ASSERT_TRUE(found);
    EXPECT_TRUE(Has(*found, audit::LogFault::kLeafHash, 4321));
    EXPECT_TRUE(Has(*found, audit::LogFault::kTile, 768));
    EXPECT_TRUE(Has(*found, audit::LogFault::kEnvelopeMissing, 3999));
    EXPECT_TRUE(Has(*found, audit::LogFault::kEnvelopeSignature, 16));
    EXPECT_EQ(Has(*found, audit::LogFault::kEnvelopeColumn, 22), !quick);
    EXPECT_FALSE(Has(*found, audit::LogFault::kRoot, 4350));  // the bodies are as they were
  }
}

// Whoever holds the log's keys can log that a path opened, and not sign it with the path's own key:
// neither as a path's last proof nor as an older one.
TEST_F(VerifyStoreTest, WhatARowSaysBesideItsEntryIsTheLogsToo) {
  Tamper(
      "DROP TRIGGER checkpoint_update;"
      "UPDATE checkpoint SET counts = 'restore.completed=1' WHERE size = (SELECT max(size) FROM "
      "checkpoint);"
      "UPDATE checkpoint SET p256_signed = 0 WHERE size = (SELECT min(size) FROM checkpoint);"
      "INSERT INTO gate_override VALUES ('app/key', 1, 1795600000, 'it was urgent')");
  const auto found = VerifyStore(Options(2));
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_TRUE(Has(*found, audit::LogFault::kCheckpointFormat, kRecords));
  EXPECT_TRUE(Has(*found, audit::LogFault::kCheckpointFormat, kBatch));
  EXPECT_TRUE(Has(*found, audit::LogFault::kOverrideUnlogged, 0));
}

// An entry has no name of its own where its envelope has it. Entries of older schemas have both.
TEST_F(VerifyStoreTest, AnEntryOfAnEnvelopeMayHaveItsKeysNameOrNone) {
  Tamper(
      "UPDATE log_entry SET key_name = (SELECT key_name FROM envelope WHERE log_seq = seq) "
      "WHERE seq % 100 = 0");
  const std::size_t of_triggers = VerifyStore(Options(2))->log.num_findings;
  EXPECT_EQ(of_triggers, 6U);
  Tamper("UPDATE log_entry SET key_name = 'app/other' WHERE seq = 77");
  const auto found = VerifyStore(Options(2));
  EXPECT_EQ(found->log.num_findings, of_triggers + 1);
  EXPECT_TRUE(Has(*found, audit::LogFault::kEntryColumn, 77));
}

// Who reads a state in use without its locks meets pages of two commits: that is no damage.
TEST_F(VerifyStoreTest, EvidenceThatIsWrittenToIsBusyAndNotDamaged) {
  constexpr std::size_t kPage = 16384;
  const std::string file = state_ + "/store.db";
  {
    std::fstream store(file, std::ios::in | std::ios::out | std::ios::binary);
    store.seekp(static_cast<std::streamoff>(std::filesystem::file_size(file) / 2 / kPage * kPage));
    store << std::string(kPage, 'x');
  }
  const auto still = VerifyStore(Options(1));
  EXPECT_TRUE(still ? still->log.num_damages > 0 : still.error().code() != ErrorCode::kStoreBusy);
  std::atomic<bool> done = false;
  std::thread writer([&] {
    while (!done) {
      std::filesystem::last_write_time(file, std::filesystem::file_time_type::clock::now());
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  const auto moving = VerifyStore(Options(1));
  done = true;
  writer.join();
  ASSERT_FALSE(moving);
  EXPECT_EQ(moving.error().code(), ErrorCode::kStoreBusy) << moving.error().message();
}

// By the time of its row a rule's grace is counted; a row of what comes next stops it.
TEST_F(VerifyStoreTest, RowsOfOtherTimesAndOfNoEnvelopeOrPolicyAreFound) {
  Tamper(
      "UPDATE envelope SET created = created + 61 WHERE id = 17;"
      "UPDATE envelope SET created = created - 61 WHERE id = 18;"
      "UPDATE envelope SET created = created + 60 WHERE id = 19;"
      "INSERT INTO path_set SELECT max(id) + 1, randomblob(32) FROM envelope;"
      "INSERT INTO policy_file VALUES (9, 'bl.txt', x'00')");
  for (const bool quick : {true, false}) {
    StoreVerifyOptions options = Options(3);
    options.quick = quick;
    const auto found = VerifyStore(options);
    ASSERT_TRUE(found) << found.error().message();
    EXPECT_EQ(Has(*found, audit::LogFault::kEnvelopeColumn, 16), !quick);
    EXPECT_EQ(Has(*found, audit::LogFault::kEnvelopeColumn, 17), !quick);
    EXPECT_FALSE(Has(*found, audit::LogFault::kEnvelopeColumn, 18));
    std::vector<std::string> told;
    for (const audit::LogFinding& finding : found->log.findings) {
      if (finding.text.ends_with("be written") || finding.text.ends_with("be set")) {
        told.push_back(finding.text);
      }
    }
    EXPECT_EQ(told, (std::vector<std::string>{
                        "policy_file has a row for a policy 9, which is not there: that policy "
                        "cannot be set",
                        "path_set has a row for an envelope 4401, which is not there: the next "
                        "backup cannot be written"}));
  }
}

TEST_F(VerifyStoreTest, AnIndexThatWasDroppedIsNamed) {
  Tamper("DROP INDEX envelope_by_key; DROP INDEX log_entry_by_key;");
  const auto found = VerifyStore(Options(2));
  ASSERT_TRUE(found) << found.error().message();
  std::vector<std::string> told;
  for (const audit::LogFinding& finding : found->log.findings) {
    const bool of_index = finding.text.starts_with("the index ");  // Tamper drops triggers as well
    if (finding.fault == audit::LogFault::kSchema && of_index) told.push_back(finding.text);
  }
  EXPECT_EQ(told, (std::vector<std::string>{"the index envelope_by_key is missing",
                                            "the index log_entry_by_key is missing"}));
}

TEST_F(VerifyStoreTest, AProofThatThePathsKeyDidNotSignIsNone) {
  {
    auto maker = *StoreMaker::Open(state_);
    const auto record = *maker.journal().store().FindEnvelope("load/000/000007", std::nullopt);
    const auto newest = *audit::ParseCheckpoint(audit::NoteText(Made().newest));
    const std::int64_t now = SystemClock().NowUnixSeconds();
    std::vector<audit::Event> events(3);
    for (audit::Event& event : events) {
      event.type = audit::EventType::kDrillPassed;
      event.key = audit::EventKey{record.key_name, record.key_version};
      event.envelope = audit::EventEnvelope{record.envelope_id, record.revision, record.sha256};
      event.paths.emplace_back().id = "token-ops";
      event.drill = audit::EventDrill{newest.size, newest.root, now, std::nullopt, {}};
    }
    events[1].envelope->sha256[0] ^= 1;  // of a file that is not in the store
    store::Change change;
    change.path_outcomes.push_back(
        {record.key_name, record.key_version, record.revision, "token-ops", now, true, ""});
    ASSERT_TRUE(maker.journal().Append(std::move(events), change));
  }
  for (const bool quick : {false, true}) {
    StoreVerifyOptions options = Options(2);
    options.quick = quick;
    const auto found = VerifyStore(options);
    ASSERT_TRUE(found);
    EXPECT_EQ(Has(*found, audit::LogFault::kDrillProof, kRecords), !quick);
    EXPECT_EQ(Has(*found, audit::LogFault::kDrillProof, kRecords + 2), !quick);
    EXPECT_EQ(found->log.num_damages, quick ? 0U : 2U);
    EXPECT_EQ(found->num_proofs, quick ? 0U : 1U);
    EXPECT_EQ(found->num_signed_proofs, 0U);
    EXPECT_EQ(found->drills.num_held, 0U);
    EXPECT_EQ(found->drills.num_no_envelope, quick ? 0U : 1U);
  }
}

// EscrowOf seals a key whose one path opens by `secret`, and commits it; returns its envelope.
Result<envelope::SealedEnvelope> EscrowOf(StoreMaker& maker, const std::string& state,
                                          const SecretBytes& secret) {
  ASSIGN_OR_RETURN(FileSigner signer, FileSigner::Load(state, Made().identity));
  MadeRecord made;
  ASSIGN_OR_RETURN(made, maker.Make());
  envelope::PasswordRecord password;
  password.kdf = envelope::Argon2idParameters{};
  password.salt = std::string(32, '5');
  std::vector<envelope::EnrolledPath> paths(1);
  paths[0].id = "password";
  paths[0].factors = {std::move(password)};
  ASSIGN_OR_RETURN(SecretBytes copy, SecretBytes::CopyOf(secret.Expose()));
  paths[0].secrets.push_back(std::move(copy));
  envelope::EnvelopeDraft draft;
  draft.envelope_id = made.envelope.envelope_id;
  draft.policy = made.event.policy->id;
  draft.key_name = made.envelope.key_name;
  draft.host = Made().identity.host;
  draft.created = draft.updated = FormatUtc(made.envelope.created);
  ASSIGN_OR_RETURN(const auto sealed, envelope::Seal(draft, paths, secret, signer, SystemRandom()));
  envelope::ReadOptions any;
  any.accept_unknown_agent = true;
  ASSIGN_OR_RETURN(auto read, envelope::SealedEnvelope::Read(AsBytes(sealed.file), any));
  made.envelope.bytes = ToBytes(AsBytes(sealed.file));
  made.envelope.sha256 = made.event.envelope->sha256 = sealed.hash;
  made.envelope.path_set = PathSetDigest(read.header());
  made.event.paths = DescribePaths({&read.header().paths.front()});
  std::vector<MadeRecord> records;
  records.push_back(std::move(made));
  RETURN_IF_ERROR(maker.Commit(std::move(records)));
  return read;
}

TEST_F(VerifyStoreTest, AProofThatIsSignedIsHeldAgainstTheLogToo) {
  {
    auto maker = *StoreMaker::Open(state_);
    const SecretBytes secret = *RandomSecret(SystemRandom(), 32);
    const auto sealed = EscrowOf(maker, state_, secret);
    ASSERT_TRUE(sealed) << sealed.error().message();
    const SecretBytes* const secrets[] = {&secret};
    const auto opened = sealed->Open(0, secrets);
    ASSERT_TRUE(opened) << opened.error().message();
    const auto newest =
        *audit::ParseCheckpoint(audit::NoteText(*maker.journal().LatestCheckpoint()));
    const envelope::DrillCheckpoint good{Made().identity.origin, newest.size, newest.root};
    const std::int64_t now = SystemClock().NowUnixSeconds();
    std::vector<ProofRequest> requests(4, {good, std::nullopt, now});
    requests[1].time = now + 86400;       // a day after its entry
    requests[2].checkpoint.size += 1000;  // of a log that was longer
    requests[3].checkpoint.root[0] ^= 1;  // of another log
    std::vector<audit::Event> events;
    for (const ProofRequest& request : requests) {
      audit::Event& event = events.emplace_back();
      event.type = audit::EventType::kDrillPassed;
      event.key = audit::EventKey{sealed->header().key_name, 1};
      event.envelope = audit::EventEnvelope{sealed->header().envelope_id, 1, sealed->hash()};
      event.paths.emplace_back().id = "password";
      event.drill = *ProveOpened(*sealed, *opened, request);
    }
    ASSERT_TRUE(maker.journal().Append(std::move(events)));
  }
  const auto found = VerifyStore(Options(2));
  ASSERT_TRUE(found) << found.error().message();
  EXPECT_EQ(found->drills.num_held, 1U);
  EXPECT_EQ(found->drills.not_held,
            (std::vector<std::uint64_t>{kRecords + 2, kRecords + 3, kRecords + 4}));
  EXPECT_EQ(found->log.num_damages, 3U);
}

TEST_F(VerifyStoreTest, AMissingEntryIsSaidOnceAndTheRestIsStillCompared) {
  Tamper("DELETE FROM log_entry WHERE seq BETWEEN 100 AND 4200");
  const auto found = VerifyStore(Options(2));
  ASSERT_TRUE(found);
  EXPECT_TRUE(Has(*found, audit::LogFault::kSequence, 100));
  EXPECT_TRUE(Has(*found, audit::LogFault::kSequence, 4096));
  const auto sequences = std::ranges::count(found->log.findings, audit::LogFault::kSequence,
                                            &audit::LogFinding::fault);
  EXPECT_EQ(sequences, 2);
  EXPECT_EQ(found->log.num_entries, kRecords - 4101);
}

TEST(KeyedSum, OfTheSameRowsInAnyOrderIsTheSame) {
  const SipKey key{1, 2};
  KeyedSum one(key);
  KeyedSum other(key);
  one.Add("a", 1, 2, 3);
  one.Add("b", 4);
  other.Add("b", 4);
  EXPECT_FALSE(one == other);
  other.Add("a", 1, 2, 3);
  EXPECT_TRUE(one == other);
  KeyedSum changed(key);
  changed.Add("a", 1, 2, 3);
  changed.Add("b", 5);
  EXPECT_FALSE(one == changed);
}

// The reference's own vector: key 00 … 0f, message 00 … 0e.
TEST(SipHash, AgreesWithItsPaper) {
  Bytes message(15);
  for (std::size_t i = 0; i < message.size(); ++i) message[i] = static_cast<std::uint8_t>(i);
  EXPECT_EQ(SipHash({0x0706050403020100, 0x0f0e0d0c0b0a0908}, message), 0xa129ca6149be45e5U);
}

// A row is hashed as its numbers, little-endian, and then its text, without a copy of either.
TEST(KeyedSum, HashesARowAsSipHashOfItsBytes) {
  const SipKey key{0x0123456789abcdef, 0xfedcba9876543210};
  const std::uint64_t large = 0xf0e1d2c3b4a59687;
  for (std::size_t size = 0; size <= 128; ++size) {
    std::string text;
    for (std::size_t i = 0; i < size; ++i) text.push_back(static_cast<char>('!' + i % 90));
    Bytes row;
    for (const std::uint64_t number :
         {std::uint64_t{size}, std::uint64_t{1}, large, std::uint64_t{size} << 40U}) {
      for (unsigned shift = 0; shift < 64; shift += 8) {
        row.push_back(static_cast<std::uint8_t>(number >> shift & 0xff));
      }
    }
    row.insert(row.end(), text.begin(), text.end());
    EXPECT_EQ(KeyedSum::RowHash(key, text, 1, large, std::uint64_t{size} << 40U), SipHash(key, row))
        << size;
  }
}

}  // namespace
}  // namespace keyescrow::agent
