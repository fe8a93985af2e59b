// Rotations and destroyed versions in the store: what counts as in use, and what history refuses.
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <fstream>
#include <iterator>

#include "agent/store/sqlite_store.h"
#include "tests/unit/store/state_fixture.h"

namespace keyescrow::agent::store {
namespace {

constexpr const char* kDestroysA1 =
    R"({"type":"key.destroyed","outcome":"success","key":{"name":"a","version":1},)"
    R"("envelope":{"id":"x"}})";

Result<LogHead> Append(SqliteStore& store, const Change& change, std::string_view entry = "e") {
  return store.Commit(change, [&](const LogHead& head, const ReadTile&) -> Result<LogAppend> {
    LogAppend append;
    append.entries.push_back({ToBytes(AsBytes(entry)), Bytes32{}, "", std::nullopt});
    append.checkpoint = "note " + std::to_string(head.size + 1);
    append.p256_signed = true;
    return append;
  });
}

class SqliteLife : public testing::Test {
 protected:
  void SetUp() override {
    store_ = std::move(*SqliteStore::Create(folder_.path));
    Change change;
    change.envelopes = {MakeEnvelope("a", 1, 1)};
    ASSERT_TRUE(Append(*store_, change));
  }
  RotationRecord Rotation(std::uint32_t version, RotationStep step) {
    RotationRecord record;
    record.key_name = "a";
    record.key_version = version;
    record.old_version = 1;
    record.step = step;
    return record;
  }
  Result<LogHead> Put(RotationRecord record) {
    Change change;
    change.rotations = {std::move(record)};
    return Append(*store_, change);
  }
  std::uint32_t InUse() { return store_->FindEnvelope("a", std::nullopt)->key_version; }

  // Raw runs SQL as somebody who edits the file would, triggers and all.
  int Raw(const char* sql) {
    sqlite3* handle = nullptr;
    sqlite3_open((folder_.path + "/store.db").c_str(), &handle);
    const int code = sqlite3_exec(handle, sql, nullptr, nullptr, nullptr);
    sqlite3_close(handle);
    return code;
  }

  TemporaryFolder folder_;
  std::unique_ptr<SqliteStore> store_;
};

TEST_F(SqliteLife, AChangeHoldsOnlyWhereTheVersionThatItSawIsInUse) {
  const auto put = [&](const char* name, std::uint32_t version, InUseSeen seen) {
    Change change;
    change.envelopes = {MakeEnvelope(name, version, 1)};
    change.in_use_seen = {std::move(seen)};
    const auto done = Append(*store_, change);
    return done ? ErrorCode::kInternal : done.error().code();
  };
  constexpr ErrorCode kDone = ErrorCode::kInternal;
  EXPECT_EQ(put("a", 2, {"a", std::nullopt}), ErrorCode::kAlreadyExists);
  EXPECT_EQ(put("a", 2, {"a", 2}), ErrorCode::kAlreadyExists);
  EXPECT_EQ(put("b", 1, {"b", 1}), ErrorCode::kAlreadyExists);
  EXPECT_EQ(store_->Head()->size, 1u);
  EXPECT_EQ(InUse(), 1u);
  EXPECT_EQ(put("b", 1, {"b", std::nullopt}), kDone);
  EXPECT_EQ(put("a", 3, {"a", 1}), kDone);
  EXPECT_EQ(put("a", 2, {"a", 1}), ErrorCode::kAlreadyExists);  // 3 came meanwhile
  EXPECT_EQ(InUse(), 3u);
}

TEST_F(SqliteLife, ARotatingVersionIsNotInUseUntilItIsConfirmed) {
  Change change;
  change.envelopes = {MakeEnvelope("a", 2, 1)};
  change.rotations = {Rotation(2, RotationStep::kEscrowed)};
  ASSERT_TRUE(Append(*store_, change));
  EXPECT_EQ(InUse(), 1u);
  EXPECT_EQ(store_->VersionInUse("a").value(), 1u);
  EXPECT_EQ(store_->HighestVersion("a").value(), 2u);
  EXPECT_EQ(store_->OpenRotation("a").value()->key_version, 2u);
  std::vector<VersionStanding> standings;
  ASSERT_TRUE(store_->Envelopes({}, [&](const EnvelopeRecord& row) {
    standings.push_back(row.standing);
    return true;
  }));
  EXPECT_EQ(standings, (std::vector{VersionStanding::kEscrowed, VersionStanding::kRotating}));
  ASSERT_TRUE(Put(Rotation(2, RotationStep::kHandingOver)));
  ASSERT_TRUE(Put(Rotation(2, RotationStep::kConfirmed)));
  EXPECT_EQ(InUse(), 2u);
  EXPECT_FALSE(store_->OpenRotation("a").value());
}

TEST_F(SqliteLife, AnAbandonedVersionIsNeverInUse) {
  Change change;
  change.envelopes = {MakeEnvelope("a", 2, 1)};
  change.rotations = {Rotation(2, RotationStep::kAbandoned)};
  ASSERT_TRUE(Append(*store_, change));
  EXPECT_EQ(InUse(), 1u);
  EXPECT_EQ(store_->FindEnvelope("a", 2)->key_version, 2u);
  EXPECT_FALSE(Put(Rotation(2, RotationStep::kConfirmed)));  // one that ended stays as it ended
}

TEST_F(SqliteLife, OneRotationOfAKeyAtATime) {
  ASSERT_TRUE(Put(Rotation(2, RotationStep::kEscrowed)));
  EXPECT_EQ(Put(Rotation(3, RotationStep::kEscrowed)).error().code(), ErrorCode::kAlreadyExists);
  EXPECT_NE(Raw("DELETE FROM rotation"), SQLITE_OK);
}

TEST_F(SqliteLife, NothingIsDestroyedWithoutItsEntry) {
  Change change;
  change.destructions = {{"a", 1, 0}};
  for (const char* entry :
       {R"({"type":"key.destroyed","outcome":"success","key":{"name":"a","version":1}})",
        R"({"type":"key.destroyed","outcome":"success","key":{"name":"a","version":2},)"
        R"("envelope":{"id":"x"}})",
        R"({"type":"key.destroyed","outcome":"failure","key":{"name":"a","version":1},)"
        R"("envelope":{"id":"x"}})",
        R"({"type":"key.rotated","outcome":"success","key":{"name":"a","version":1},)"
        R"("envelope":{"id":"x"}})"}) {
    EXPECT_FALSE(Append(*store_, change, entry)) << entry;
  }
  EXPECT_TRUE(store_->FindEnvelope("a", 1));
  EXPECT_NE(Raw("UPDATE envelope SET bytes = x''"), SQLITE_OK);
  EXPECT_NE(Raw("INSERT INTO destroyed VALUES ('a', 1, 0)"), SQLITE_OK);
}

TEST_F(SqliteLife, ADestroyedVersionKeepsItsRowAndNothingElse) {
  Change other;
  other.envelopes = {MakeEnvelope("b", 1, 1)};
  ASSERT_TRUE(Append(*store_, other));
  FingerprintRecord fingerprint;
  fingerprint.key_name = "a";
  fingerprint.key_version = 1;
  Change change;
  change.fingerprints = {fingerprint};
  ASSERT_TRUE(Append(*store_, change));
  EXPECT_TRUE(store_->FindFingerprint("a", 1).value());
  EXPECT_FALSE(store_->FindFingerprint("a", 2).value());
  change = {};
  change.destructions = {{"a", 1, 0}};
  ASSERT_TRUE(Append(*store_, change, kDestroysA1));
  EXPECT_EQ(store_->FindEnvelope("a", 1).error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(store_->FindEnvelope("a", std::nullopt).error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(store_->HighestVersion("a").value(), 1u);
  EXPECT_FALSE(store_->VersionInUse("a").value());
  EXPECT_EQ(store_->Destroyed("a")->at(0).log_seq, store_->Head()->size - 1);
  EXPECT_TRUE(store_->Fingerprints("a")->empty());
  std::vector<std::string> names;
  const auto list = [&](bool with_destroyed) {
    names.clear();
    EscrowStore::EnvelopeQuery query;
    query.with_destroyed = with_destroyed;
    ASSERT_TRUE(store_->Envelopes(query, [&](const EnvelopeRecord& row) {
      names.push_back(row.key_name);
      EXPECT_EQ(row.standing == VersionStanding::kDestroyed, row.key_name == "a");
      return true;
    }));
  };
  list(false);
  EXPECT_EQ(names, std::vector<std::string>{"b"});
  list(true);
  EXPECT_EQ(names, (std::vector<std::string>{"a", "b"}));
  EXPECT_FALSE(Append(*store_, change, kDestroysA1));  // once
  change = {};
  change.envelopes = {MakeEnvelope("a", 1, 2)};
  EXPECT_FALSE(Append(*store_, change));  // no revision of it comes after
  EXPECT_NE(Raw("DELETE FROM destroyed"), SQLITE_OK);
}

// The page that held it is written anew, before any Scrub.
TEST_F(SqliteLife, WhatIsDestroyedIsOverwrittenAtOnce) {
  const auto found = [&] {
    EXPECT_EQ(Raw("PRAGMA wal_checkpoint(TRUNCATE)"), SQLITE_OK);
    std::ifstream file(folder_.path + "/store.db", std::ios::binary);
    const std::string data{std::istreambuf_iterator<char>(file), {}};
    return data.find(std::string(64, static_cast<char>(0xA7))) != std::string::npos;
  };
  Change change;
  change.envelopes = {MakeEnvelope("a", 2, 1)};
  change.envelopes[0].bytes = Bytes(4000, 0xA7);
  ASSERT_TRUE(Append(*store_, change));
  EXPECT_TRUE(found());
  change = {};
  change.destructions = {{"a", 2, 0}};
  ASSERT_TRUE(Append(*store_, change,
                     R"({"type":"key.destroyed","outcome":"success",)"
                     R"("key":{"name":"a","version":2},"envelope":{"id":"x"}})"));
  EXPECT_FALSE(found());
}

TEST_F(SqliteLife, ScrubLeavesNoTrace) {
  const Bytes bytes(4000, 0xA7);
  const std::string needle(64, static_cast<char>(0xA7));
  Change change;
  change.envelopes = {MakeEnvelope("c", 1, 1)};
  change.envelopes[0].bytes = bytes;
  ASSERT_TRUE(Append(*store_, change));
  for (std::uint32_t number = 0; number < 30; ++number) {  // pages split, and keep copies
    Change filler;
    filler.envelopes = {MakeEnvelope("b", number + 1, 1)};
    filler.envelopes[0].bytes = Bytes(3000, static_cast<std::uint8_t>(number));
    ASSERT_TRUE(Append(*store_, filler));
  }
  const auto found = [&] {
    for (const char* suffix : {"/store.db", "/store.db-wal"}) {
      std::ifstream file(folder_.path + suffix, std::ios::binary);
      const std::string data{std::istreambuf_iterator<char>(file), {}};
      if (data.find(needle) != std::string::npos) return true;
    }
    return false;
  };
  EXPECT_TRUE(found());
  change = {};
  change.destructions = {{"c", 1, 0}};
  ASSERT_TRUE(Append(*store_, change,
                     R"({"type":"key.destroyed","outcome":"success",)"
                     R"("key":{"name":"c","version":1},"envelope":{"id":"x"}})"));
  ASSERT_TRUE(store_->Scrub());
  EXPECT_FALSE(found());
  EXPECT_EQ(store_->FindEnvelope("b", 30)->bytes.size(), 3000u);
}

}  // namespace
}  // namespace keyescrow::agent::store
