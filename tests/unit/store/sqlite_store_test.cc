#include "agent/store/sqlite_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>

#include "agent/store/schema.h"
#include "agent/store/sqlite_errors.h"
#include "agent/store/store_reader.h"
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

TEST(SqliteStore, EntriesOfAKeyAreFoundByTheirNameOrTheirEnvelope) {
  StoreFixture fixture;
  // Entries of the keys, and which of them escrows an envelope of `escrowed`.
  const auto add = [&](std::vector<std::string> names, std::size_t index, const char* escrowed,
                       std::uint32_t version) {
    Change change;
    change.envelopes = {MakeEnvelope(escrowed, version, 1)};
    change.envelopes.front().event_index = index;
    ASSERT_TRUE(fixture.store->Commit(
        change, [&](const LogHead& head, const ReadTile&) -> Result<LogAppend> {
          LogAppend append;
          for (const std::string& name : names) {
            append.entries.push_back({Bytes{'e'}, Bytes32{}, name, std::nullopt});
          }
          append.checkpoint = "note " + std::to_string(head.size + names.size());
          return append;
        }));
  };
  add({"a", "a", "b", ""}, 1, "a", 1);
  add({"b", "a"}, 0, "b", 1);
  add({"b"}, 0, "a", 2);  // an envelope of another key than its entry's: both names find it
  const auto of_key = [&](std::uint64_t first, const char* name) {
    std::vector<std::uint64_t> found;
    EXPECT_TRUE(fixture.store->Entries(first, name, [&](const LogEntry& entry) {
      found.push_back(entry.seq);
      return true;
    }));
    return found;
  };
  using Seqs = std::vector<std::uint64_t>;
  EXPECT_EQ(of_key(0, "a"), (Seqs{0, 1, 5, 6}));
  EXPECT_EQ(of_key(1, "a"), (Seqs{1, 5, 6}));
  EXPECT_EQ(of_key(0, "b"), (Seqs{2, 4, 6}));
  EXPECT_EQ(of_key(0, "c"), Seqs{});
  const auto reader = StoreReader::Open(fixture.folder.path, ReaderMode::kLive);
  ASSERT_TRUE(reader);
  Seqs backward;
  EXPECT_TRUE((*reader)->EntriesOfKey("a", [&](const EntryRow& row) {
    backward.push_back(row.seq);
    EXPECT_EQ(row.key_name, row.seq == 1 ? "" : row.seq == 6 ? "b" : "a");
    return true;
  }));
  EXPECT_EQ(backward, (Seqs{6, 5, 1, 0}));
  std::size_t num_indexed = 0;
  EXPECT_TRUE((*reader)->EntryKeys([&](std::string_view, std::uint64_t) { return ++num_indexed; }));
  EXPECT_EQ(num_indexed, 4U);  // 0, 2, 5 and 6
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

// A refused row of history ends SQLite's transaction there and then; ours bears that.
TEST(SqliteStore, ARefusedRowAmongManyLeavesNothing) {
  StoreFixture fixture;
  Change taken;
  taken.envelopes = {MakeEnvelope("taken", 1, 1)};
  ASSERT_TRUE(Append(*fixture.store, taken));
  Change many;
  many.settings = {{"s", "v"}};
  for (int i = 0; i < 50; ++i) {
    many.envelopes.push_back(MakeEnvelope(fmt::format("key/{}", i), 1, 1));
    many.envelopes.back().path_set = Bytes32{1};
  }
  const Change good = many;
  many.envelopes[25].key_name = "taken";
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto refused = Append(*fixture.store, many);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::kAlreadyExists);
    EXPECT_EQ(refused.error().native_code(), std::uint64_t{SQLITE_CONSTRAINT_TRIGGER});
    EXPECT_EQ(fixture.store->Head()->size, 1u);
    EXPECT_FALSE(*fixture.store->GetSetting("s"));
    EXPECT_EQ(fixture.store->FindEnvelope("key/0", 1).error().code(), ErrorCode::kKeyNotFound);
  }
  ASSERT_TRUE(Append(*fixture.store, good));
  EXPECT_TRUE(fixture.store->FindEnvelope("key/49", 1));
}

// A row of an envelope or policy that is not there yet is nobody's other command.
TEST(SqliteStore, ARowThatCannotBeThereYetIsDamage) {
  StoreFixture fixture;
  sqlite3* handle = nullptr;
  ASSERT_EQ(sqlite3_open((fixture.folder.path + "/store.db").c_str(), &handle), SQLITE_OK);
  EXPECT_EQ(sqlite3_exec(handle,
                         "INSERT INTO path_set VALUES (1, zeroblob(32));"
                         "INSERT INTO policy_file VALUES (9, 'bl.txt', x'00')",
                         nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(handle);
  Change backup;
  backup.envelopes = {MakeEnvelope("a", 1, 1)};
  backup.envelopes[0].path_set = Bytes32{1};
  Change policy;
  policy.policies = {{9, "p", Bytes32{}, "text", "note", "", "", 1, {{"bl.txt", Bytes{1}}}}};
  for (const Change& change : {backup, policy}) {
    const auto refused = Append(*fixture.store, change);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::kStoreDamaged) << refused.error().message();
    EXPECT_EQ(fixture.store->Head()->size, 0u);
  }
}

TEST(SqliteStore, ATileOfNoWholeHashesIsRefused) {
  StoreFixture fixture;
  for (const std::size_t size : {std::size_t{0}, std::size_t{33}, std::size_t{257 * 32}}) {
    const auto refused = fixture.store->Commit({}, [&](const LogHead&, const ReadTile&) {
      LogAppend append;
      append.entries.push_back({Bytes{'e'}, Bytes32{}, "", std::nullopt});
      append.tiles.push_back({0, 0, Bytes(size)});
      append.checkpoint = "note";
      return Result<LogAppend>(std::move(append));
    });
    ASSERT_FALSE(refused) << size;
    EXPECT_EQ(refused.error().code(), ErrorCode::kInternal);
    EXPECT_EQ(fixture.store->Head()->size, 0u);
  }
}

TEST(SqliteStore, HistoryRefusesToBeRewritten) {
  StateFixture fixture;
  {
    auto journal = fixture.Open();
    store::EnvelopeRecord row = MakeEnvelope("a", 1, 1);
    row.path_set = Bytes32{1};
    ASSERT_TRUE(Escrow(*journal, row));
  }
  for (const char* sql :
       {"UPDATE log_entry SET bytes = x'00'", "DELETE FROM log_entry",
        "INSERT OR REPLACE INTO log_entry (seq, leaf_hash, bytes) VALUES (0, zeroblob(32), x'00')",
        "INSERT INTO log_entry (seq, leaf_hash, bytes) VALUES (5, zeroblob(32), x'00')",
        "UPDATE envelope SET bytes = x'00'", "DELETE FROM envelope",
        "INSERT OR REPLACE INTO envelope (id, key_name, key_version, revision, envelope_id, sha256,"
        " created, log_seq, bytes) SELECT id, key_name, key_version, revision, envelope_id, sha256,"
        " created, log_seq, x'00' FROM envelope",
        "UPDATE path_set SET digest = zeroblob(32)", "DELETE FROM path_set",
        "INSERT OR REPLACE INTO path_set (envelope_row, digest) VALUES (1, zeroblob(32))",
        "INSERT INTO log_entry (seq, leaf_hash, bytes) VALUES (1, x'00', x'00')",
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

TEST(SqliteStore, PathSetsAreKeptWhereTheirTableIsMadeAnew) {
  StateFixture fixture;
  for (const char* ending : {"", "-wal", "-shm"}) {
    std::filesystem::remove(fixture.StoreFile() + ending);
  }
  close(open(fixture.StoreFile().c_str(), O_CREAT | O_WRONLY, 0600));
  std::string sql = "PRAGMA page_size = 16384; PRAGMA journal_mode = WAL;";
  for (int version = 0; version < 10; ++version) sql += kMigrations[version];
  sql +=
      "INSERT INTO log_entry (seq, leaf_hash, bytes) VALUES (0, zeroblob(32), x'00');"
      "INSERT INTO checkpoint (size, p256_signed, note) VALUES (1, 1, 'n');"
      "INSERT INTO envelope (key_name, key_version, revision, envelope_id, sha256, created, "
      "log_seq,"
      " bytes) VALUES ('a', 1, 1, 'i', zeroblob(32), 1, 0, x'00');"
      "INSERT INTO path_set (envelope_row, digest) VALUES (1, randomblob(32));"
      "CREATE TABLE kept AS SELECT digest FROM path_set; PRAGMA user_version = 10";
  ASSERT_EQ(fixture.Tamper(sql), SQLITE_OK);
  ASSERT_TRUE(SqliteStore::Open(fixture.state));
  EXPECT_EQ(fixture.Tamper("CREATE TABLE one (n INTEGER CHECK (n = 1));"
                           "INSERT INTO one SELECT count(*) FROM path_set JOIN kept USING (digest)"
                           " WHERE envelope_row = 1; DROP TABLE one; DROP TABLE kept"),
            SQLITE_OK);
  const auto reader = StoreReader::Open(fixture.state, ReaderMode::kLive);
  ASSERT_TRUE(reader);
  EXPECT_EQ((*reader)->SchemaDifferences()->size(), 0u);
}

TEST(SqliteStore, ANewerSchemaIsRefused) {
  StateFixture fixture;
  ASSERT_EQ(fixture.Tamper("PRAGMA user_version = 99"), SQLITE_OK);
  const auto journal = fixture.Open();
  ASSERT_FALSE(journal);
  EXPECT_EQ(journal.error().code(), ErrorCode::kStoreNewerSchema);
}

TEST(SqliteStore, AnUpgradeStandsWhereAnOlderVersionEndsAfterIt) {
  StateFixture fixture;
  SqliteOptions options;
  options.checkpoint_wal_bytes = 0;  // it folds its log as it ends
  {
    auto journal = fixture.OpenWith(&*fixture.signer, options);
    ASSERT_TRUE(journal);
    ASSERT_TRUE(journal->Append(MakeEvent(audit::EventType::kAgentStarted)));
    ASSERT_EQ(fixture.Tamper("PRAGMA user_version = 99"), SQLITE_OK);
  }
  EXPECT_EQ(fixture.Open().error().code(), ErrorCode::kStoreNewerSchema);
}

TEST(SqliteStore, NoStoreIsNotInitialized) {
  TemporaryFolder folder;
  EXPECT_EQ(SqliteStore::Open(folder.path).error().code(), ErrorCode::kNotInitialized);
  EXPECT_EQ(SqliteStore::Open(folder.path + "/none").error().code(), ErrorCode::kNotInitialized);
  std::ofstream(folder.path + "/store.db").close();  // of an init that was killed
  ASSERT_EQ(chmod((folder.path + "/store.db").c_str(), 0600), 0);
  EXPECT_EQ(SqliteStore::Open(folder.path).error().code(), ErrorCode::kNotInitialized);
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
      {SQLITE_CANTOPEN, EMFILE, ErrorCode::kStoreUnavailable},
      {SQLITE_IOERR_SHMMAP, ENODEV, ErrorCode::kStoreUnavailable},
      {SQLITE_IOERR_LOCK, EOPNOTSUPP, ErrorCode::kStoreUnavailable},
      {SQLITE_CANTOPEN_SYMLINK, 0, ErrorCode::kStatePermissions},
      {SQLITE_PERM, 0, ErrorCode::kStoreUnavailable},
      {SQLITE_AUTH, 0, ErrorCode::kStoreUnavailable},
      {SQLITE_NOLFS, 0, ErrorCode::kStoreFull},
      {SQLITE_TOOBIG, 0, ErrorCode::kStoreDamaged},
      {SQLITE_INTERRUPT, 0, ErrorCode::kStoreDamaged},
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
  EXPECT_NE(SqliteError(SQLITE_CANTOPEN, EMFILE, "text").hint().find("open files"),
            std::string::npos);
  EXPECT_NE(SqliteError(SQLITE_IOERR_WRITE, EFBIG, "text").hint().find("ulimit -f"),
            std::string::npos);
  for (const int lacking : {ENODEV, ENOSYS, EOPNOTSUPP}) {
    EXPECT_NE(SqliteError(SQLITE_IOERR_SHMMAP, lacking, "text").hint().find("local file system"),
              std::string::npos);
  }
  EXPECT_NE(SqliteError(SQLITE_MISUSE, 0, "text").message().find("0x15"), std::string::npos);
}

}  // namespace
}  // namespace keyescrow::agent::store
