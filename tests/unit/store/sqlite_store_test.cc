#include "agent/store/sqlite_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "agent/store/schema.h"
#include "agent/store/sqlite_errors.h"
#include "tests/unit/store/state_fixture.h"

namespace keyescrow::agent::store {
namespace {

// Append commits `change` with one entry that stands for its event.
Result<LogHead> Append(SqliteStore& store, const Change& change) {
  return store.Commit(change, [](const LogHead& head, const ReadTile&) -> Result<LogAppend> {
    LogAppend append;
    append.entries.push_back({Bytes{'e'}, Bytes32{}, "", std::nullopt});
    append.checkpoint = "note " + std::to_string(head.size + 1);
    append.p256_signed = true;
    return append;
  });
}

struct StoreFixture {
  TemporaryFolder folder;
  std::unique_ptr<SqliteStore> store;
  StoreFixture() { store = std::move(*SqliteStore::Create(folder.path)); }
};

TEST(SqliteStore, KeepsEveryKindOfRow) {
  StoreFixture fixture;
  Change change;
  change.envelopes = {MakeEnvelope("a", 1, 1)};
  change.tokens = {{"ops", "pkcs11:token=ops", "/usr/lib/m.so", {1, 2}, "{}", 5}};
  change.trust = {{"thumb", {3}, "db2", {"db*", "web1"}, {}, 6, std::nullopt}};
  change.path_outcomes = {{"a", 1, 1, "token", 10, true, ""}, {"a", 1, 1, "tpm", 11, false, "x"}};
  change.destinations = {{"/k", "a", 1, "/k.keyescrow-previous", 12}};
  change.settings = {{"s", "v"}};
  ASSERT_TRUE(Append(*fixture.store, change));
  fixture.store.reset();
  fixture.store = std::move(*SqliteStore::Open(fixture.folder.path));
  SqliteStore& store = *fixture.store;
  const auto envelope = store.FindEnvelope("a", 1);
  ASSERT_TRUE(envelope);
  EXPECT_EQ(envelope->bytes, change.envelopes[0].bytes);
  EXPECT_EQ(envelope->sha256, change.envelopes[0].sha256);
  const auto token = store.FindToken("ops");
  ASSERT_TRUE(token);
  EXPECT_EQ(token->spki, (Bytes{1, 2}));
  EXPECT_EQ(store.FindToken("x").error().code(), ErrorCode::kTokenNotRegistered);
  const auto trust = store.FindTrust("thumb");
  ASSERT_TRUE(trust);
  EXPECT_EQ(trust->hosts, (std::vector<std::string>{"db*", "web1"}));
  EXPECT_TRUE(trust->keys.empty());
  const auto states = store.PathStates("a");
  ASSERT_EQ(states->size(), 2u);
  EXPECT_EQ((*states)[0].proven, 10);
  EXPECT_EQ((*states)[1].failure, "x");
  EXPECT_FALSE((*states)[1].proven);
  EXPECT_EQ(store.Destinations()->at(0).previous_path, "/k.keyescrow-previous");
  EXPECT_EQ(*store.GetSetting("s"), "v");

  Change removal;
  removal.removed_tokens = {"ops"};
  removal.removed_trust = {"thumb"};
  removal.removal_time = 99;
  removal.removed_destinations = {"/k"};
  removal.path_outcomes = {{"a", 1, 2, "tpm", 20, true, "", "drill", 0}};
  removal.settings = {{"s", std::nullopt}};
  ASSERT_TRUE(Append(store, removal));
  EXPECT_TRUE(store.Tokens()->empty());
  EXPECT_EQ(store.FindTrust("thumb").error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(store.Trust()->at(0).removed, 99);
  EXPECT_TRUE(store.Destinations()->empty());
  EXPECT_EQ(store.PathStates("")->at(1).proven, 20);
  EXPECT_EQ(store.PathStates("")->at(1).failed, 11);
  EXPECT_EQ(store.PathStates("")->at(1).proven_by, "drill");
  EXPECT_EQ(store.PathStates("")->at(1).proof_seq, store.Head()->size - 1);
  EXPECT_FALSE(store.PathStates("")->at(0).proof_seq);

  // In one second: what was committed last holds.
  const auto last = [&](bool proven) {
    Change outcome;
    outcome.path_outcomes = {{"a", 1, 2, "tpm", 30, proven, proven ? "" : "tag", "drill"}};
    EXPECT_TRUE(Append(store, outcome));
    const PathState state = store.PathStates("")->at(1);
    return std::pair(state.proven, state.failed);
  };
  using Times = std::pair<std::optional<std::int64_t>, std::optional<std::int64_t>>;
  EXPECT_EQ(last(true), Times(30, 11));
  EXPECT_EQ(last(false), Times(30, 30));
  EXPECT_EQ(last(true), Times(30, std::nullopt));
  EXPECT_FALSE(*store.GetSetting("s"));
}

TEST(SqliteStore, CurrentIsTheHighestVersionAndRevision) {
  StoreFixture fixture;
  for (const auto& [version, revision] :
       {std::pair(1, 1), std::pair(1, 2), std::pair(2, 1), std::pair(1, 3)}) {
    Change change;
    change.envelopes = {MakeEnvelope("a", static_cast<std::uint32_t>(version),
                                     static_cast<std::uint32_t>(revision))};
    ASSERT_TRUE(Append(*fixture.store, change));
  }
  EXPECT_EQ(fixture.store->FindEnvelope("a", std::nullopt)->key_version, 2u);
  EXPECT_EQ(fixture.store->FindEnvelope("a", 1)->revision, 3u);
  EXPECT_EQ(fixture.store->FindEnvelope("a", 9).error().code(), ErrorCode::kVersionNotFound);
  EXPECT_EQ(fixture.store->FindEnvelope("b", std::nullopt).error().code(), ErrorCode::kKeyNotFound);
  const auto count = [&](EscrowStore::EnvelopeQuery query) {
    int rows = 0;
    EXPECT_TRUE(fixture.store->Envelopes(query, [&](const EnvelopeRecord& row) {
      EXPECT_EQ(row.bytes.empty(), !query.with_bytes);
      return ++rows > 0;
    }));
    return rows;
  };
  EXPECT_EQ(count({}), 2);
  EXPECT_EQ(count({"", true, true}), 4);
  EXPECT_EQ(count({"a", false, true}), 2);
  EXPECT_EQ(count({"b", true, false}), 0);
}

TEST(SqliteStore, PathSetsAreOfTheHighestRevision) {
  StoreFixture fixture;
  const auto digest = [](std::uint8_t byte) {
    Bytes32 bytes{};
    bytes.fill(byte);
    return bytes;
  };
  struct Row {
    const char* name;
    std::uint32_t version;
    std::uint32_t revision;
    std::optional<Bytes32> path_set;
  };
  for (const Row& row : {Row{"b", 1, 1, digest(1)}, Row{"a", 1, 1, digest(2)},
                         Row{"a", 1, 2, digest(3)}, Row{"a", 2, 1, std::nullopt}}) {
    Change change;
    change.envelopes = {MakeEnvelope(row.name, row.version, row.revision)};
    change.envelopes[0].path_set = row.path_set;
    ASSERT_TRUE(Append(*fixture.store, change));
  }
  const auto sets = [&](std::string_view key_name) {
    std::string text;
    EXPECT_TRUE(fixture.store->PathSets(key_name, [&](const PathSetRow& row) {
      text += fmt::format("{}{}.{}:{} ", row.key_name, row.key_version, row.revision,
                          row.path_set ? (*row.path_set)[31] : 0);
      return true;
    }));
    return text;
  };
  EXPECT_EQ(sets(""), "a1.2:3 a2.1:0 b1.1:1 ");
  EXPECT_EQ(sets("b"), "b1.1:1 ");
  EXPECT_EQ(sets("c"), "");
}

TEST(SqliteStore, AChangeIsAllOrNothing) {
  StoreFixture fixture;
  Change change;
  change.envelopes = {MakeEnvelope("a", 1, 1)};
  ASSERT_TRUE(Append(*fixture.store, change));
  change.settings = {{"s", "v"}};
  const auto again = Append(*fixture.store, change);  // the envelope is there already
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), ErrorCode::kAlreadyExists);
  EXPECT_EQ(again.error().native_domain(), "SQLITE");
  EXPECT_EQ(fixture.store->Head()->size, 1u);
  EXPECT_FALSE(*fixture.store->GetSetting("s"));
  const auto refused = fixture.store->Commit({}, [](const LogHead&, const ReadTile&) {
    return Result<LogAppend>(Error(ErrorCode::kInternal, Action::kReportBug, "no", "no"));
  });
  EXPECT_EQ(refused.error().code(), ErrorCode::kInternal);
  EXPECT_TRUE(fixture.store->CheckWritable());
}

TEST(SqliteStore, HistoryRefusesToBeRewritten) {
  StateFixture fixture;
  {
    auto journal = fixture.Open();
    ASSERT_TRUE(Escrow(*journal, MakeEnvelope("a", 1, 1)));
  }
  for (const char* sql :
       {"UPDATE log_entry SET bytes = x'00'", "DELETE FROM log_entry",
        "INSERT OR REPLACE INTO log_entry (seq, leaf_hash, bytes) VALUES (0, zeroblob(32), x'00')",
        "INSERT INTO log_entry (seq, leaf_hash, bytes) VALUES (5, zeroblob(32), x'00')",
        "UPDATE envelope SET bytes = x'00'", "DELETE FROM envelope",
        "INSERT OR REPLACE INTO envelope (id, key_name, key_version, revision, envelope_id, sha256,"
        " created, log_seq, bytes) SELECT id, key_name, key_version, revision, envelope_id, sha256,"
        " created, log_seq, x'00' FROM envelope",
        "UPDATE checkpoint SET note = ''", "DELETE FROM checkpoint",
        "INSERT OR REPLACE INTO checkpoint (size, p256_signed, note) VALUES (1, 1, '')",
        "DELETE FROM tile", "UPDATE tile SET bytes = zeroblob(32)",
        "DELETE FROM trust; SELECT "
        "raise(ABORT, '')"}) {
    EXPECT_NE(fixture.Tamper(sql), SQLITE_OK) << sql;
  }
  EXPECT_TRUE(fixture.Open()->VerifyAll()->Intact());
}

TEST(SqliteStore, AnOlderSchemaIsUpgradedAndTheLogSaysSo) {
  StateFixture fixture;
  std::filesystem::remove(fixture.StoreFile());
  std::filesystem::remove(fixture.StoreFile() + "-wal");
  std::filesystem::remove(fixture.StoreFile() + "-shm");
  close(open(fixture.StoreFile().c_str(), O_CREAT | O_WRONLY, 0600));
  ASSERT_EQ(fixture.Tamper(std::string("PRAGMA page_size = 16384; PRAGMA journal_mode = WAL;") +
                           kMigrations[0] + "; PRAGMA user_version = 1"),
            SQLITE_OK);
  {
    auto journal = fixture.Open();
    ASSERT_TRUE(journal) << journal.error().message();
    const auto receipt = journal->Append(MakeEvent(audit::EventType::kAgentStarted));
    ASSERT_TRUE(receipt) << receipt.error().message();
    EXPECT_EQ(receipt->seq, 0u);
    EXPECT_EQ(receipt->size, 2u);
    EXPECT_EQ(audit::ParseEvent(AsText(journal->store().Entry(1)->bytes))->type,
              audit::EventType::kStoreMigrated);
  }
  auto journal = fixture.Open();
  EXPECT_EQ(journal->Append(MakeEvent(audit::EventType::kAgentStopped))->size, 3u);
  EXPECT_TRUE(journal->VerifyAll()->Intact());
  EXPECT_EQ(fixture.Tamper("DROP INDEX log_entry_by_key"), SQLITE_OK);       // 0002 made it
  EXPECT_EQ(fixture.Tamper("UPDATE token SET pin_source = ''"), SQLITE_OK);  // 0003 made it
  EXPECT_EQ(fixture.Tamper("DROP TABLE fingerprint; DROP TABLE gate_override"), SQLITE_OK);  // 0005
  EXPECT_EQ(fixture.Tamper("INSERT INTO checkpoint (size, p256_signed, note, counts) "
                           "VALUES (1000, 1, '', '')"),
            SQLITE_OK);  // 0006
  EXPECT_EQ(fixture.Tamper("UPDATE path_state SET proven_by = '', proof_seq = NULL"),
            SQLITE_OK);  // 0007
}

TEST(SqliteStore, ANewerSchemaIsRefused) {
  StateFixture fixture;
  ASSERT_EQ(fixture.Tamper("PRAGMA user_version = 99"), SQLITE_OK);
  const auto journal = fixture.Open();
  ASSERT_FALSE(journal);
  EXPECT_EQ(journal.error().code(), ErrorCode::kStoreNewerSchema);
}

TEST(SqliteStore, NoStoreIsNotInitialized) {
  TemporaryFolder folder;
  EXPECT_EQ(SqliteStore::Open(folder.path).error().code(), ErrorCode::kNotInitialized);
  EXPECT_EQ(SqliteStore::Open(folder.path + "/none").error().code(), ErrorCode::kNotInitialized);
}

TEST(SqliteStore, AStoreWithEntriesIsNotCreatedAgain) {
  StoreFixture fixture;
  EXPECT_TRUE(SqliteStore::Create(fixture.folder.path));  // empty: kept
  ASSERT_TRUE(Append(*fixture.store, {}));
  EXPECT_EQ(SqliteStore::Create(fixture.folder.path).error().code(),
            ErrorCode::kAlreadyInitialized);
}

TEST(SqliteError, EveryRowNamesCodeAndKeepsTheNativeOne) {
  const struct {
    int code;
    int error_number;
    ErrorCode expected;
  } rows[] = {
      {SQLITE_READONLY, 0, ErrorCode::kStoreReadOnly},
      {SQLITE_READONLY_DIRECTORY, 0, ErrorCode::kStoreReadOnly},
      {SQLITE_READONLY_DBMOVED, 0, ErrorCode::kStoreUnavailable},
      {SQLITE_FULL, 0, ErrorCode::kStoreFull},
      {SQLITE_BUSY, 0, ErrorCode::kStoreBusy},
      {SQLITE_BUSY_SNAPSHOT, 0, ErrorCode::kStoreBusy},
      {SQLITE_LOCKED, 0, ErrorCode::kStoreBusy},
      {SQLITE_PROTOCOL, 0, ErrorCode::kStoreBusy},
      {SQLITE_CORRUPT, 0, ErrorCode::kStoreDamaged},
      {SQLITE_NOTADB, 0, ErrorCode::kStoreDamaged},
      {SQLITE_FORMAT, 0, ErrorCode::kStoreDamaged},
      {SQLITE_IOERR_WRITE, 0, ErrorCode::kStoreUnavailable},
      {SQLITE_IOERR_WRITE, EFBIG, ErrorCode::kStoreFull},
      {SQLITE_IOERR_SHMSIZE, ENOSPC, ErrorCode::kStoreFull},
      {SQLITE_IOERR_FSYNC, EDQUOT, ErrorCode::kStoreFull},
      {SQLITE_IOERR_WRITE, EROFS, ErrorCode::kStoreReadOnly},
      {SQLITE_IOERR_NOMEM, 0, ErrorCode::kOutOfMemory},
      {SQLITE_NOMEM, 0, ErrorCode::kOutOfMemory},
      {SQLITE_CANTOPEN, 0, ErrorCode::kStoreUnavailable},
      {SQLITE_CANTOPEN, EACCES, ErrorCode::kStoreReadOnly},
      {SQLITE_CANTOPEN_SYMLINK, 0, ErrorCode::kStatePermissions},
      {SQLITE_PERM, 0, ErrorCode::kStoreUnavailable},
      {SQLITE_AUTH, 0, ErrorCode::kStoreUnavailable},
      {SQLITE_NOLFS, 0, ErrorCode::kStoreFull},
      {SQLITE_TOOBIG, 0, ErrorCode::kInternal},
      {SQLITE_CONSTRAINT_UNIQUE, 0, ErrorCode::kAlreadyExists},
      {SQLITE_CONSTRAINT_PRIMARYKEY, 0, ErrorCode::kAlreadyExists},
      {SQLITE_CONSTRAINT_TRIGGER, 0, ErrorCode::kAlreadyExists},
      {SQLITE_CONSTRAINT_FOREIGNKEY, 0, ErrorCode::kInternal},
      {SQLITE_CONSTRAINT_NOTNULL, 0, ErrorCode::kInternal},
      {SQLITE_MISUSE, 0, ErrorCode::kStoreUnavailable},
  };
  for (const auto& row : rows) {
    const Error error = SqliteError(row.code, row.error_number, "text");
    EXPECT_EQ(error.code(), row.expected) << row.code;
    EXPECT_EQ(error.native_code(), static_cast<std::uint64_t>(row.code));
    EXPECT_FALSE(error.hint().empty());
  }
  EXPECT_NE(SqliteError(SQLITE_MISUSE, 0, "text").message().find("0x15"), std::string::npos);
}

}  // namespace
}  // namespace keyescrow::agent::store
