// What the parts of SqliteStore share.
#pragma once

#include <algorithm>

#include "agent/store/sqlite_connection.h"
#include "agent/store/sqlite_store.h"

namespace keyescrow::agent::store {

struct SqliteStore::Impl {
  Impl(sqlite3* handle, std::string store_path, SqliteOptions store_options)
      : connection(handle), path(std::move(store_path)), options(store_options) {}
  ~Impl();

  Result<LogHead> ReadHead();
  Result<Bytes> ReadTileRow(unsigned level, std::uint64_t index);
  Status Write(const Change& change, const LogHead& head, const LogAppend& append);
  Status WriteRows(const Change& change, const LogHead& head);
  Status PutSetting(const Setting& setting);
  Result<std::optional<std::uint32_t>> VersionInUse(std::string_view key_name);
  Status CheckInUse(const InUseSeen& seen);

  Connection connection;
  std::string path;
  SqliteOptions options;
  int wal_pages = 0;  // after our last commit
};

// In use counts what no rotation has still to confirm, and nobody destroyed.
#define KEYESCROW_IS_DESTROYED(e)                       \
  "EXISTS (SELECT 1 FROM destroyed WHERE key_name = " e \
  ".key_name "                                          \
  "AND key_version = " e ".key_version)"
#define KEYESCROW_COUNTS_IN_USE(e)                                                               \
  "NOT " KEYESCROW_IS_DESTROYED(e) " AND NOT EXISTS (SELECT 1 FROM rotation WHERE key_name = " e \
                                   ".key_name "                                                  \
                                   "AND key_version = " e ".key_version AND step <> 'confirmed')"

// Whether an entry of the log is of a key, whose name is bound twice: its row says so, or that of
// the envelope that it escrows (schema 13).
#define KEYESCROW_IS_OF_KEY                               \
  "seq IN (SELECT seq FROM log_entry WHERE key_name = ? " \
  "UNION ALL SELECT log_seq FROM envelope WHERE key_name = ?)"

// Rows in the order of the columns that their queries name.
#define KEYESCROW_ENVELOPE_COLUMNS \
  "key_name, key_version, revision, envelope_id, sha256, created, log_seq"
EnvelopeRecord ReadEnvelope(const Statement& row, bool with_bytes);  // then bytes
TokenRecord ReadToken(const Statement& row);
TrustRecord ReadTrust(const Statement& row);
PathState ReadPathState(const Statement& row);
Result<std::vector<RecoveryKeyRecord>> ReadRecoveryKeyRows(Connection& connection);
// WriteRecoveryKeys does that part of a change.
Status WriteRecoveryKeys(Connection& connection, const Change& change, const LogHead& head);
// Of a key, "" for all.
Result<std::vector<RotationRecord>> ReadRotationRows(Connection& connection,
                                                     std::string_view key_name);
Result<std::vector<DestroyedRecord>> ReadDestroyedRows(Connection& connection,
                                                       std::string_view key_name);
Status PutRotation(Connection& connection, const RotationRecord& row);
// PutDestruction empties every revision of the version; entry `log_seq` says so.
Status PutDestruction(Connection& connection, const Destruction& row, std::int64_t log_seq);
Result<std::vector<TrustRecord>> ReadTrustRows(Connection& connection);
// The newest `limit` ones, all for 0.
Result<std::vector<PolicyRecord>> ReadPolicyRows(Connection& connection, std::size_t limit);

Result<std::vector<GateOverrideRecord>> ReadOverrideRows(Connection& connection);
Result<std::vector<ForeignEscrowRecord>> ReadForeignRows(Connection& connection);
Status PutForeignEscrow(Connection& connection, const ForeignEscrowRecord& row);
Status RemoveForeignEscrow(Connection& connection, const ForeignEscrowName& name);
Status PutLuksBinding(Connection& connection, const LuksBindingRecord& row);

inline std::int64_t TileId(unsigned level, std::uint64_t index) {
  return static_cast<std::int64_t>(std::uint64_t{level} << 56 | index);
}

// CopyHash returns zeroes where the blob is not 32 bytes: such a hash matches nothing.
inline Bytes32 CopyHash(ByteView blob) {
  Bytes32 hash{};
  if (blob.size() == hash.size()) std::copy(blob.begin(), blob.end(), hash.begin());
  return hash;
}

}  // namespace keyescrow::agent::store
