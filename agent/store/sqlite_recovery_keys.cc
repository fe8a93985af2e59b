#include <fmt/core.h>

#include "agent/store/sqlite_impl.h"

namespace keyescrow::agent::store {
namespace {

constexpr char kAll[] =
    "SELECT name, thumbprint, sha256, record, added, retired, drilled, drill_seq FROM recovery_key "
    "ORDER BY name";
constexpr char kOne[] =
    "SELECT name, thumbprint, sha256, record, added, retired, drilled, drill_seq FROM recovery_key "
    "WHERE name = ?";

RecoveryKeyRecord ReadRecoveryKey(const Statement& row) {
  RecoveryKeyRecord key;
  key.name = std::string(row.Text(0));
  key.thumbprint = std::string(row.Text(1));
  key.sha256 = CopyHash(row.Blob(2));
  key.record = std::string(row.Text(3));
  key.added = row.Integer(4);
  if (!row.IsNull(5)) key.retired = row.Integer(5);
  if (!row.IsNull(6)) key.drilled = row.Integer(6);
  if (!row.IsNull(7)) key.drill_seq = static_cast<std::uint64_t>(row.Integer(7));
  return key;
}

// CheckPlace: what the row replaces is what stands there, now that nobody else can write.
Status CheckPlace(Connection& connection, const RecoveryKeyRecord& row) {
  Statement stands = connection.Prepare(kOne);
  ASSIGN_OR_RETURN(const bool found, stands.Bind(std::string_view(row.name)).Step());
  if (!found && !row.replaces) return Ok();
  if (!row.replaces) {
    return Error(ErrorCode::kAlreadyExists, Action::kFixInput,
                 fmt::format("a recovery key is registered as {} already", row.name),
                 "choose another name");
  }
  if (found && ReadRecoveryKey(stands).sha256 == *row.replaces) return Ok();
  return Error(ErrorCode::kStoreBusy, Action::kRetry,
               fmt::format("another command changed the recovery key {} in this moment", row.name),
               "look at it with 'keyescrow recovery-key show', then run the command again");
}

Status PutRecoveryKey(Connection& connection, const RecoveryKeyRecord& row) {
  RETURN_IF_ERROR(CheckPlace(connection, row));
  Statement put = connection.Prepare(
      "INSERT INTO recovery_key (name, thumbprint, sha256, record, added, retired, drilled, "
      "drill_seq) VALUES (?, ?, ?, ?, ?, NULL, NULL, NULL) ON CONFLICT (name) DO UPDATE SET "
      "thumbprint = excluded.thumbprint, sha256 = excluded.sha256, record = excluded.record, "
      "added = excluded.added, retired = NULL, drilled = NULL, drill_seq = NULL");
  put.Bind(std::string_view(row.name)).Bind(std::string_view(row.thumbprint));
  put.Bind(ByteView(row.sha256)).Bind(std::string_view(row.record));
  return put.Bind(row.added).Run();
}

}  // namespace

Result<std::vector<RecoveryKeyRecord>> ReadRecoveryKeyRows(Connection& connection) {
  Statement row = connection.Prepare(kAll);
  std::vector<RecoveryKeyRecord> keys;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return keys;
    keys.push_back(ReadRecoveryKey(row));
  }
}

Status WriteRecoveryKeys(Connection& connection, const Change& change, const LogHead& head) {
  for (const RecoveryKeyRecord& row : change.recovery_keys) {
    RETURN_IF_ERROR(PutRecoveryKey(connection, row));
  }
  for (const std::string& name : change.retired_recovery_keys) {
    Statement stands = connection.Prepare(kOne);
    ASSIGN_OR_RETURN(const bool found, stands.Bind(std::string_view(name)).Step());
    if (!found || ReadRecoveryKey(stands).retired) {
      return Error(ErrorCode::kNotFound, Action::kFixInput,
                   fmt::format("the recovery key {} is retired already", name),
                   "'keyescrow recovery-key list' shows them");
    }
    Statement retire = connection.Prepare(
        "UPDATE recovery_key SET retired = ? WHERE name = ? AND retired IS NULL");
    RETURN_IF_ERROR(retire.Bind(change.removal_time).Bind(std::string_view(name)).Run());
  }
  for (const RecoveryKeyDrill& drill : change.recovery_key_drills) {
    // A record that was replaced meanwhile was not opened.
    Statement put = connection.Prepare(
        "UPDATE recovery_key SET drilled = ?, drill_seq = ? WHERE name = ? AND sha256 = ?");
    put.Bind(drill.time).Bind(static_cast<std::int64_t>(head.size + drill.event_index));
    RETURN_IF_ERROR(put.Bind(std::string_view(drill.name)).Bind(ByteView(drill.sha256)).Run());
  }
  return Ok();
}

Result<std::vector<RecoveryKeyRecord>> SqliteStore::RecoveryKeys() {
  return ReadRecoveryKeyRows(impl_->connection);
}

Result<RecoveryKeyRecord> SqliteStore::FindRecoveryKey(std::string_view name) {
  Statement row = impl_->connection.Prepare(kOne);
  row.Bind(name);
  ASSIGN_OR_RETURN(const bool found, row.Step());
  if (found) return ReadRecoveryKey(row);
  return Error(ErrorCode::kNotFound, Action::kFixInput,
               fmt::format("no recovery key is registered as {}", name),
               "list them with keyescrow recovery-key list; make one with recovery-key create, or "
               "take its file with recovery-key import");
}

}  // namespace keyescrow::agent::store
