// The life of versions in the SQLite store: rotations, and what was destroyed.
#include <fmt/format.h>
#include <sqlite3.h>

#include <cerrno>

#include "agent/store/sqlite_errors.h"
#include "agent/store/sqlite_impl.h"

namespace keyescrow::agent::store {
namespace {

constexpr std::string_view kStepNames[] = {"escrowed",    "proven",    "handing_over",
                                           "handed_over", "confirmed", "abandoned"};

RotationStep StepFromName(std::string_view name) {
  for (std::size_t step = 0; step < std::size(kStepNames); ++step) {
    if (kStepNames[step] == name) return static_cast<RotationStep>(step);
  }
  return RotationStep::kHandingOver;  // of a store that somebody edited: nothing is known
}

RotationRecord ReadRotation(const Statement& row) {
  RotationRecord record;
  record.key_name = std::string(row.Text(0));
  record.key_version = static_cast<std::uint32_t>(row.Integer(1));
  record.old_version = static_cast<std::uint32_t>(row.Integer(2));
  record.step = StepFromName(row.Text(3));
  record.sink = std::string(row.Text(4));
  record.command = std::string(row.Text(5));
  record.process = std::string(row.Text(6));
  record.started = row.Integer(7);
  record.changed = row.Integer(8);
  return record;
}

DestroyedRecord ReadDestroyed(const Statement& row) {
  return {std::string(row.Text(0)), static_cast<std::uint32_t>(row.Integer(1)),
          static_cast<std::uint64_t>(row.Integer(2))};
}

}  // namespace

std::string_view RotationStepName(RotationStep step) {
  return kStepNames[static_cast<std::size_t>(step)];
}

Status PutRotation(Connection& connection, const RotationRecord& row) {
  Statement update = connection.Prepare(
      "UPDATE rotation SET step = ?, sink = ?, command = ?, process = ?, changed = ? "
      "WHERE key_name = ? AND key_version = ?");
  const std::string_view step = RotationStepName(row.step);
  update.Bind(step).Bind(std::string_view(row.sink)).Bind(std::string_view(row.command));
  update.Bind(std::string_view(row.process)).Bind(row.changed);
  RETURN_IF_ERROR(update.Bind(std::string_view(row.key_name)).Bind(row.key_version).Run());
  if (sqlite3_changes(connection.handle()) > 0) return Ok();
  Statement put = connection.Prepare(
      "INSERT INTO rotation (key_name, key_version, old_version, step, sink, command, process, "
      "started, changed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)");
  put.Bind(std::string_view(row.key_name)).Bind(row.key_version).Bind(row.old_version);
  put.Bind(step).Bind(std::string_view(row.sink)).Bind(std::string_view(row.command));
  return put.Bind(std::string_view(row.process)).Bind(row.started).Bind(row.changed).Run();
}

Status PutDestruction(Connection& connection, const Destruction& row, std::int64_t log_seq) {
  const std::string_view name = row.key_name;
  Statement put =
      connection.Prepare("INSERT INTO destroyed (key_name, key_version, log_seq) VALUES (?, ?, ?)");
  RETURN_IF_ERROR(put.Bind(name).Bind(row.key_version).Bind(log_seq).Run());
  Statement empty =
      connection.Prepare("UPDATE envelope SET bytes = x'' WHERE key_name = ? AND key_version = ?");
  RETURN_IF_ERROR(empty.Bind(name).Bind(row.key_version).Run());
  // By it guesses of the key could be tested.
  Statement forget =
      connection.Prepare("DELETE FROM fingerprint WHERE key_name = ? AND key_version = ?");
  RETURN_IF_ERROR(forget.Bind(name).Bind(row.key_version).Run());
  Statement unbind =
      connection.Prepare("DELETE FROM luks_binding WHERE key_name = ? AND key_version = ?");
  RETURN_IF_ERROR(unbind.Bind(name).Bind(row.key_version).Run());
  Statement no_override = connection.Prepare("DELETE FROM gate_override WHERE key_name = ?");
  return no_override.Bind(name).Run();
}

#define KEYESCROW_ROTATION_COLUMNS \
  "key_name, key_version, old_version, step, sink, command, process, started, changed"

Result<std::vector<RotationRecord>> ReadRotationRows(Connection& connection,
                                                     std::string_view key_name) {
  Statement row = connection.Prepare(
      key_name.empty() ? "SELECT " KEYESCROW_ROTATION_COLUMNS
                         " FROM rotation WHERE ?1 = '' ORDER BY key_name, key_version"
                       : "SELECT " KEYESCROW_ROTATION_COLUMNS
                         " FROM rotation WHERE key_name = ?1 ORDER BY key_version");
  row.Bind(key_name);
  std::vector<RotationRecord> rotations;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return rotations;
    rotations.push_back(ReadRotation(row));
  }
}

Result<std::vector<DestroyedRecord>> ReadDestroyedRows(Connection& connection,
                                                       std::string_view key_name) {
  Statement row = connection.Prepare(
      key_name.empty() ? "SELECT key_name, key_version, log_seq FROM destroyed WHERE ?1 = '' "
                         "ORDER BY key_name, key_version"
                       : "SELECT key_name, key_version, log_seq FROM destroyed WHERE key_name = ?1 "
                         "ORDER BY key_version");
  row.Bind(key_name);
  std::vector<DestroyedRecord> destroyed;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return destroyed;
    destroyed.push_back(ReadDestroyed(row));
  }
}

Result<std::uint32_t> SqliteStore::HighestVersion(std::string_view key_name) {
  Statement row = impl_->connection.Prepare(
      "SELECT coalesce(max(key_version), 0) FROM envelope WHERE key_name = ?");
  ASSIGN_OR_RETURN(const bool found, row.Bind(key_name).Step());
  return found ? static_cast<std::uint32_t>(row.Integer(0)) : 0;
}

Result<std::optional<std::uint32_t>> SqliteStore::VersionInUse(std::string_view key_name) {
  return impl_->VersionInUse(key_name);
}

Status SqliteStore::Impl::CheckInUse(const InUseSeen& seen) {
  ASSIGN_OR_RETURN(const auto in_use, VersionInUse(seen.key_name));
  if (in_use == seen.version) return Ok();
  return Error(ErrorCode::kAlreadyExists, Action::kRetry,
               fmt::format("another version of {} came into use meanwhile{}", seen.key_name,
                           in_use ? fmt::format(": {}", *in_use) : ""),
               "run the command again");
}

Result<std::optional<std::uint32_t>> SqliteStore::Impl::VersionInUse(std::string_view key_name) {
  Statement row = connection.Prepare(
      "SELECT key_version FROM envelope AS e WHERE key_name = ? AND " KEYESCROW_COUNTS_IN_USE(
          "e") " ORDER BY key_version DESC LIMIT 1");
  ASSIGN_OR_RETURN(const bool found, row.Bind(key_name).Step());
  if (!found) return std::optional<std::uint32_t>();
  return std::optional(static_cast<std::uint32_t>(row.Integer(0)));
}

Result<std::optional<RotationRecord>> SqliteStore::OpenRotation(std::string_view key_name) {
  Statement row = impl_->connection.Prepare(
      "SELECT " KEYESCROW_ROTATION_COLUMNS
      " FROM rotation WHERE key_name = ? AND step NOT IN ('confirmed', 'abandoned')");
  ASSIGN_OR_RETURN(const bool found, row.Bind(key_name).Step());
  if (!found) return std::optional<RotationRecord>();
  return std::optional(ReadRotation(row));
}

Result<std::vector<RotationRecord>> SqliteStore::Rotations(std::string_view key_name) {
  return ReadRotationRows(impl_->connection, key_name);
}

Result<std::vector<DestroyedRecord>> SqliteStore::Destroyed(std::string_view key_name) {
  return ReadDestroyedRows(impl_->connection, key_name);
}

Status SqliteStore::Scrub() {
  // Pages that were balanced, and the write-ahead log, still hold copies of what a row held.
  RETURN_IF_ERROR(impl_->connection.Execute("PRAGMA secure_delete = ON"));
  RETURN_IF_ERROR(impl_->connection.Execute("VACUUM"));
  int in_log = 0;
  int folded = 0;
  sqlite3* const handle = impl_->connection.handle();
  const int code =
      sqlite3_wal_checkpoint_v2(handle, nullptr, SQLITE_CHECKPOINT_TRUNCATE, &in_log, &folded);
  if (code != SQLITE_OK) return impl_->connection.MakeError();
  impl_->wal_pages = 0;
  // SQLite does not sync a log that it cut off: after a power cut it might be there again.
  sqlite3_file* wal = nullptr;
  if (sqlite3_file_control(handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal) == SQLITE_OK &&
      wal != nullptr && wal->pMethods != nullptr) {
    const int synced = wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL);
    if (synced != SQLITE_OK) return SqliteError(synced, errno, "the log that was cut off");
  }
  return Ok();
}

}  // namespace keyescrow::agent::store
