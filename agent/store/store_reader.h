// StoreReader: a store as evidence. It reads and never writes: not the file, not its log, not its
// folder, whoever they belong to. Rows are handed out as they lie there, without a copy; whoever
// reads with several threads opens one reader for each.
//
// The schema of evidence is not trusted either: only plain tables of known names are read, and
// Schema tells what is there.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/store/escrow_store.h"
#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent::store {

enum class ReaderMode : std::uint8_t {
  kLive,      // an agent may be at work: its locks are taken, its state's permissions hold
  kEvidence,  // a copy: nothing is locked, no file is made
};

// The views of a row last until its visitor returns.
struct EntryRow {
  std::uint64_t seq = 0;
  ByteView bytes;
  ByteView leaf_hash;
  std::string_view key_name;  // "" for none
};
struct EnvelopeRow {
  std::int64_t id = 0;
  std::string_view key_name;
  std::int64_t key_version = 0;
  std::int64_t revision = 0;
  std::string_view envelope_id;
  ByteView sha256;
  std::int64_t created = 0;
  std::int64_t log_seq = 0;
  ByteView bytes;
  ByteView path_set;  // its digest; empty where the store has none
};
struct CheckpointRow {
  std::uint64_t size = 0;
  bool p256_signed = false;
  std::string_view note;
};
struct EnvelopeKeyRow {  // of the index by key
  std::string_view key_name;
  std::int64_t key_version = 0;
  std::int64_t revision = 0;
  std::int64_t id = 0;
};
struct ImportedRow {
  Bytes event_id;
  std::int64_t seq = 0;
};

// StoreExtent: how much there is to read. Two readers with equal extents see the same history.
struct StoreExtent {
  std::uint64_t num_entries = 0;  // the highest number + 1
  std::uint64_t checkpoint_size = 0;
  std::int64_t min_seq = 0;
  std::int64_t min_envelope_id = 0;
  std::int64_t max_envelope_id = 0;
  bool operator==(const StoreExtent&) const = default;
};

class StoreReader {
 public:
  // Open opens `state_dir`/store.db and begins to read: all later calls see one state.
  // Errors: kNotInitialized where there is no store; kStoreNewerSchema; kStoreDamaged, kStore*;
  // kLive: kStatePermissions.
  static Result<std::unique_ptr<StoreReader>> Open(const std::string& state_dir, ReaderMode mode);
  StoreReader(const StoreReader&) = delete;
  StoreReader& operator=(const StoreReader&) = delete;
  ~StoreReader();

  int schema_version() const;
  const StoreExtent& extent() const;
  std::uint64_t file_bytes() const;

  // SchemaDifferences names the tables, indexes and triggers that are not as this version makes
  // them for that schema: "the trigger log_entry_update is missing"; and WithStrayRows.
  Result<std::vector<std::string>> SchemaDifferences();

  // Visitors return false to stop. `last` is not visited.
  Status Entries(std::uint64_t first, std::uint64_t last,
                 const std::function<bool(const EntryRow&)>& visit);
  // Checkpoints of sizes above `above` and up to `last`.
  Status Checkpoints(std::int64_t above, std::int64_t last,
                     const std::function<bool(const CheckpointRow&)>& visit);
  // NewestCheckpoint returns the note of the newest checkpoint of at most `size` entries.
  Result<std::optional<std::string>> NewestCheckpoint(std::uint64_t size);
  // Envelopes of ids from `first_id` to `last_id`, both visited.
  Status Envelopes(std::int64_t first_id, std::int64_t last_id,
                   const std::function<bool(const EnvelopeRow&)>& visit);
  // EnvelopeKeys reads the index alone, in the order of name, version and revision; nothing where
  // somebody dropped it, which SchemaDifferences tells.
  Status EnvelopeKeys(const std::function<bool(const EnvelopeKeyRow&)>& visit);
  // EntryKeys reads the index of entries by key: name and number; the same.
  Status EntryKeys(const std::function<bool(std::string_view, std::uint64_t)>& visit);
  // EntriesOfKey reads the entries of one key, newest first.
  Status EntriesOfKey(std::string_view key_name, const std::function<bool(const EntryRow&)>& visit);
  Status PathStates(const std::function<bool(const PathState&)>& visit);
  Status ImportedEvents(const std::function<bool(const ImportedRow&)>& visit);

  Result<Bytes> Tile(unsigned level, std::uint64_t index);
  Result<std::optional<Bytes>> EntryBytes(std::uint64_t seq);
  // EnvelopeSha256 returns the hash column of one revision.
  Result<std::optional<Bytes32>> EnvelopeSha256(std::string_view key_name, std::int64_t version,
                                                std::int64_t revision);
  // EnvelopeBytes returns the file of one revision.
  Result<std::optional<Bytes>> EnvelopeBytes(std::string_view key_name, std::int64_t version,
                                             std::int64_t revision);
  // FindEnvelope returns the newest revision of the version in use. Errors: kKeyNotFound.
  Result<EnvelopeRecord> FindEnvelope(std::string_view key_name);
  // FirstCreated returns when the key's first version was made: the oldest one that was not
  // destroyed.
  Result<std::optional<std::int64_t>> FirstCreated(std::string_view key_name);
  Result<std::vector<RotationRecord>> Rotations();   // of stores that have them
  Result<std::vector<DestroyedRecord>> Destroyed();  // the same
  Result<std::vector<PolicyRecord>> Policies();      // the newest first, with their files
  Result<std::vector<TokenRecord>> Tokens();         // without pin_source
  Result<std::vector<TrustRecord>> Trust();
  Result<std::vector<RecoveryKeyRecord>> RecoveryKeys();  // none in an older schema
  Result<std::vector<GateOverrideRecord>> GateOverrides();
  Result<std::vector<ForeignEscrowRecord>> ForeignEscrows();
  Result<std::vector<Setting>> Settings();  // by name
  // NewestCounts returns what the newest checkpoint's row counts; none where an older version wrote
  // it.
  Result<std::optional<std::string>> NewestCounts();
  Result<std::uint64_t> CountTiles();

  // Unchanged says whether the files are as they were at Open: in kEvidence nothing was locked.
  bool Unchanged() const;
  // WrittenTo is the error of a read that met such a change: kStoreBusy.
  static Error WrittenTo() {
    return Error(ErrorCode::kStoreBusy, Action::kRetry,
                 "the store was written to while it was read",
                 "copy the state folder and verify the copy, or run 'keyescrow verify' as its "
                 "agent");
  }

 private:
  struct Impl;
  explicit StoreReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace keyescrow::agent::store
