#include <fmt/format.h>

#include "agent/store/sqlite_impl.h"

namespace keyescrow::agent::store {
namespace {

constexpr std::size_t kTileHashBytes = 32;
constexpr std::size_t kMaxTileBytes = 256 * kTileHashBytes;

std::string JoinLines(const std::vector<std::string>& lines) {
  return fmt::format("{}", fmt::join(lines, "\n"));
}

// NeverThere: of a row that only what is written just now can have. One that is there already is no
// other command's work, and no other try helps.
Status NeverThere(Status put, std::string_view what) {
  if (put || put.error().code() != ErrorCode::kAlreadyExists) return put;
  return Error(
      ErrorCode::kStoreDamaged, Action::kCallOperator,
      fmt::format("{} was in the store before it could be ({})", what, put.error().message()),
      "run 'keyescrow verify': it names what somebody wrote there, then put the store back "
      "from a copy");
}

// Rows of history are added by INSERT OR ROLLBACK, and without a function of SQL: what may fail a
// statement alone makes SQLite copy each page before the statement changes it (schema 0011).
Status PutEnvelope(Connection& connection, const EnvelopeRecord& row, std::int64_t log_seq) {
  Statement put = connection.Prepare(
      "INSERT OR ROLLBACK INTO envelope (key_name, key_version, revision, envelope_id, sha256, "
      "created, "
      "log_seq, bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  put.Bind(std::string_view(row.key_name)).Bind(row.key_version).Bind(row.revision);
  put.Bind(std::string_view(row.envelope_id)).Bind(ByteView(row.sha256)).Bind(row.created);
  RETURN_IF_ERROR(put.Bind(log_seq).Bind(ByteView(row.bytes)).Run());
  if (!row.path_set) return Ok();
  Statement set =
      connection.Prepare("INSERT OR ROLLBACK INTO path_set (envelope_row, digest) VALUES (?, ?)");
  set.Bind(sqlite3_last_insert_rowid(connection.handle()));
  return NeverThere(set.Bind(ByteView(*row.path_set)).Run(), "the path_set of a new envelope");
}

Status PutToken(Connection& connection, const TokenRecord& row) {
  Statement put = connection.Prepare(
      "INSERT INTO token (name, uri, module, spki, evidence, added, pin_source) "
      "VALUES (?, ?, ?, ?, ?, ?, ?) "
      "ON CONFLICT (name) DO UPDATE SET uri = excluded.uri, module = excluded.module, "
      "spki = excluded.spki, evidence = excluded.evidence, added = excluded.added, "
      "pin_source = excluded.pin_source");
  put.Bind(std::string_view(row.name)).Bind(std::string_view(row.uri));
  put.Bind(std::string_view(row.module)).Bind(ByteView(row.spki));
  put.Bind(std::string_view(row.evidence)).Bind(row.added);
  return put.Bind(std::string_view(row.pin_source)).Run();
}

Status PutTrust(Connection& connection, const TrustRecord& row) {
  Statement put = connection.Prepare(
      "INSERT INTO trust (thumbprint, spki, name, hosts, keys, added, removed) "
      "VALUES (?, ?, ?, ?, ?, ?, NULL) ON CONFLICT (thumbprint) DO UPDATE SET "
      "spki = excluded.spki, name = excluded.name, hosts = excluded.hosts, keys = excluded.keys, "
      "added = excluded.added, removed = NULL");
  const std::string hosts = JoinLines(row.hosts);
  const std::string keys = JoinLines(row.keys);
  put.Bind(std::string_view(row.thumbprint)).Bind(ByteView(row.spki));
  put.Bind(std::string_view(row.name)).Bind(std::string_view(hosts));
  return put.Bind(std::string_view(keys)).Bind(row.added).Run();
}

// A proof that is committed after a failure of the same second, or of a clock that was ahead,
// removes it, and a failure after a proof of such a clock is put at the proof's time; so whichever
// came last, a path is broken where `failed` is not before `proven`.
// Neither a proof nor a failure: the path is gone, or its factors are others now.
Status PutPathOutcome(Connection& connection, const PathOutcome& row, const LogHead& head) {
  if (!row.proven && row.failure.empty()) {
    Statement forget = connection.Prepare(
        "DELETE FROM path_state WHERE key_name = ? AND key_version = ? AND path_id = ?");
    forget.Bind(std::string_view(row.key_name)).Bind(row.key_version);
    return forget.Bind(std::string_view(row.path_id)).Run();
  }
  Statement put = connection.Prepare(
      row.proven
          ? "INSERT INTO path_state (key_name, key_version, path_id, proven, proven_revision, "
            "proven_by, proof_seq, failed, failure) VALUES (?, ?, ?, ?, ?, ?, ?, NULL, '') "
            "ON CONFLICT (key_name, key_version, path_id) DO UPDATE SET "
            "proven = excluded.proven, proven_revision = excluded.proven_revision, "
            "proven_by = excluded.proven_by, proof_seq = excluded.proof_seq, "
            "failure = iif(failed >= excluded.proven, '', failure), "
            "failed = iif(failed >= excluded.proven, NULL, failed)"
          : "INSERT INTO path_state (key_name, key_version, path_id, proven, proven_revision, "
            "failed, failure) VALUES (?, ?, ?, NULL, 0, ?, ?) "
            "ON CONFLICT (key_name, key_version, path_id) DO UPDATE SET "
            "failed = max(excluded.failed, coalesce(proven, excluded.failed)), "
            "failure = excluded.failure");
  put.Bind(std::string_view(row.key_name))
      .Bind(row.key_version)
      .Bind(std::string_view(row.path_id));
  put.Bind(row.time);
  if (row.proven) {
    put.Bind(row.revision).Bind(std::string_view(row.proven_by));
    if (!row.event_index) return put.BindNull().Run();
    return put.Bind(static_cast<std::int64_t>(head.size + *row.event_index)).Run();
  }
  return put.Bind(std::string_view(row.failure)).Run();
}

Status PutDestination(Connection& connection, const DestinationRecord& row) {
  Statement put = connection.Prepare(
      "INSERT INTO destination (path, key_name, key_version, previous_path, time) "
      "VALUES (?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET key_name = excluded.key_name, "
      "key_version = excluded.key_version, previous_path = excluded.previous_path, "
      "time = excluded.time");
  put.Bind(std::string_view(row.path)).Bind(std::string_view(row.key_name)).Bind(row.key_version);
  return put.Bind(std::string_view(row.previous_path)).Bind(row.time).Run();
}

Status PutPolicy(Connection& connection, const PolicyRecord& row) {
  Statement put = connection.Prepare(
      "INSERT INTO policy (serial, name, sha256, text, note, signers, next_signers, set_time) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
  const auto serial = static_cast<std::int64_t>(row.serial);
  put.Bind(serial).Bind(std::string_view(row.name)).Bind(ByteView(row.sha256));
  put.Bind(AsBytes(row.text)).Bind(std::string_view(row.note));
  put.Bind(std::string_view(row.signers)).Bind(std::string_view(row.next_signers));
  RETURN_IF_ERROR(put.Bind(row.set_time).Run());
  for (const PolicyFile& file : row.files) {
    Statement put_file =
        connection.Prepare("INSERT INTO policy_file (serial, name, bytes) VALUES (?, ?, ?)");
    put_file.Bind(serial).Bind(std::string_view(file.name)).Bind(ByteView(file.bytes));
    RETURN_IF_ERROR(NeverThere(put_file.Run(), "a file of a new policy"));
  }
  return Ok();
}

Status PutFingerprint(Connection& connection, const FingerprintRecord& row) {
  Statement put = connection.Prepare(
      "INSERT OR REPLACE INTO fingerprint (key_name, key_version, mac_key_id, mac, machine, "
      "source, "
      "uid, gid, mode, time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
  put.Bind(std::string_view(row.key_name)).Bind(row.key_version);
  put.Bind(ByteView(row.mac_key_id)).Bind(ByteView(row.mac));
  put.Bind(std::string_view(row.machine)).Bind(std::string_view(row.source));
  if (row.access) {
    put.Bind(row.access->uid).Bind(row.access->gid).Bind(row.access->mode);
  } else {
    put.BindNull().BindNull().BindNull();
  }
  return put.Bind(row.time).Run();
}

Status PutGateOverride(Connection& connection, const GateOverrideRecord& row) {
  Statement put = connection.Prepare(
      "INSERT OR REPLACE INTO gate_override (key_name, key_version, time, reason) "
      "VALUES (?, ?, ?, ?)");
  put.Bind(std::string_view(row.key_name)).Bind(row.key_version).Bind(row.time);
  return put.Bind(std::string_view(row.reason)).Run();
}

// EntriesOfEnvelopes tells for each entry whether an envelope of the commit is of it and of its
// key: Entries finds such a one by its envelope.
std::vector<bool> EntriesOfEnvelopes(const Change& change, const LogAppend& append) {
  std::vector<bool> found(append.entries.size());
  for (const EnvelopeRecord& row : change.envelopes) {
    found[row.event_index] = append.entries[row.event_index].key_name == row.key_name;
  }
  return found;
}

Status PutEntry(Connection& connection, const NewEntry& row, bool has_envelope, std::int64_t seq) {
  Statement put = connection.Prepare(
      "INSERT OR ROLLBACK INTO log_entry (seq, leaf_hash, key_name, bytes) VALUES (?, ?, ?, ?)");
  put.Bind(seq).Bind(ByteView(row.leaf_hash));
  if (row.key_name.empty() || has_envelope) {
    put.BindNull();
  } else {
    put.Bind(std::string_view(row.key_name));
  }
  RETURN_IF_ERROR(NeverThere(put.Bind(ByteView(row.bytes)).Run(), "a new entry of the log"));
  if (!row.imported_id) return Ok();
  Statement imported =
      connection.Prepare("INSERT INTO imported_event (event_id, seq) VALUES (?, ?)");
  return imported.Bind(ByteView(*row.imported_id)).Bind(seq).Run();
}

}  // namespace

Status SqliteStore::Impl::PutSetting(const Setting& setting) {
  if (!setting.value) {
    Statement remove = connection.Prepare("DELETE FROM meta WHERE name = ?");
    return remove.Bind(std::string_view(setting.name)).Run();
  }
  Statement put = connection.Prepare(
      "INSERT INTO meta (name, value) VALUES (?, ?) "
      "ON CONFLICT (name) DO UPDATE SET value = excluded.value");
  return put.Bind(std::string_view(setting.name)).Bind(std::string_view(*setting.value)).Run();
}

Status SqliteStore::Impl::WriteRows(const Change& change, const LogHead& head) {
  for (const EnvelopeRecord& row : change.envelopes) {
    const auto log_seq = static_cast<std::int64_t>(head.size + row.event_index);
    RETURN_IF_ERROR(PutEnvelope(connection, row, log_seq));
  }
  for (const TokenRecord& row : change.tokens) RETURN_IF_ERROR(PutToken(connection, row));
  for (const std::string& name : change.removed_tokens) {
    Statement remove = connection.Prepare("DELETE FROM token WHERE name = ?");
    RETURN_IF_ERROR(remove.Bind(std::string_view(name)).Run());
  }
  RETURN_IF_ERROR(WriteRecoveryKeys(connection, change, head));
  for (const TrustRecord& row : change.trust) RETURN_IF_ERROR(PutTrust(connection, row));
  for (const std::string& thumbprint : change.removed_trust) {
    Statement remove =
        connection.Prepare("UPDATE trust SET removed = ? WHERE thumbprint = ? AND removed IS NULL");
    RETURN_IF_ERROR(remove.Bind(change.removal_time).Bind(std::string_view(thumbprint)).Run());
  }
  for (const PathOutcome& row : change.path_outcomes) {
    RETURN_IF_ERROR(PutPathOutcome(connection, row, head));
  }
  for (const DestinationRecord& row : change.destinations) {
    RETURN_IF_ERROR(PutDestination(connection, row));
  }
  for (const std::string& path_removed : change.removed_destinations) {
    Statement remove = connection.Prepare("DELETE FROM destination WHERE path = ?");
    RETURN_IF_ERROR(remove.Bind(std::string_view(path_removed)).Run());
  }
  for (const PolicyRecord& row : change.policies) RETURN_IF_ERROR(PutPolicy(connection, row));
  for (const FingerprintRecord& row : change.fingerprints) {
    RETURN_IF_ERROR(PutFingerprint(connection, row));
  }
  for (const GateOverrideRecord& row : change.gate_overrides) {
    RETURN_IF_ERROR(PutGateOverride(connection, row));
  }
  for (const LuksBindingRecord& row : change.luks_bindings) {
    RETURN_IF_ERROR(PutLuksBinding(connection, row));
  }
  for (const ForeignEscrowName& name : change.removed_foreign_escrows) {
    RETURN_IF_ERROR(RemoveForeignEscrow(connection, name));
  }
  for (const ForeignEscrowRecord& row : change.foreign_escrows) {
    RETURN_IF_ERROR(PutForeignEscrow(connection, row));
  }
  for (const RotationRecord& row : change.rotations) {
    RETURN_IF_ERROR(PutRotation(connection, row));
  }
  for (const Destruction& row : change.destructions) {
    RETURN_IF_ERROR(
        PutDestruction(connection, row, static_cast<std::int64_t>(head.size + row.event_index)));
  }
  for (const Setting& setting : change.settings) RETURN_IF_ERROR(PutSetting(setting));
  return Ok();
}

Status SqliteStore::Impl::Write(const Change& change, const LogHead& head,
                                const LogAppend& append) {
  auto seq = static_cast<std::int64_t>(head.size);
  const std::vector<bool> has_envelope = EntriesOfEnvelopes(change, append);
  for (std::size_t index = 0; index < append.entries.size(); ++index) {
    RETURN_IF_ERROR(PutEntry(connection, append.entries[index], has_envelope[index], seq++));
  }
  for (const TileRow& row : append.tiles) {
    if (row.bytes.empty() || row.bytes.size() > kMaxTileBytes ||
        row.bytes.size() % kTileHashBytes != 0) {
      return Error(ErrorCode::kInternal, Action::kReportBug, "a tile is not of 1 to 256 hashes",
                   "report this");
    }
    Statement put = connection.Prepare(
        "INSERT INTO tile (id, bytes) VALUES (?, ?) "
        "ON CONFLICT (id) DO UPDATE SET bytes = excluded.bytes");
    RETURN_IF_ERROR(put.Bind(TileId(row.level, row.index)).Bind(ByteView(row.bytes)).Run());
  }
  Statement put = connection.Prepare(
      "INSERT OR ROLLBACK INTO checkpoint (size, p256_signed, note, counts) VALUES (?, ?, ?, ?)");
  put.Bind(seq).Bind(append.p256_signed ? 1 : 0).Bind(std::string_view(append.checkpoint));
  put.Bind(std::string_view(append.counts));
  RETURN_IF_ERROR(NeverThere(put.Run(), "a new checkpoint"));
  RETURN_IF_ERROR(WriteRows(change, head));
  for (const Setting& setting : append.settings) RETURN_IF_ERROR(PutSetting(setting));
  if (append.clears_migration) RETURN_IF_ERROR(PutSetting({"migrated_from", std::nullopt}));
  return Ok();
}

Result<LogHead> SqliteStore::Commit(const Change& change, const BuildAppend& build) {
  Impl& impl = *impl_;
  // What is freed is overwritten at once; Scrub does the rest.
  if (!change.destructions.empty()) {
    RETURN_IF_ERROR(impl.connection.Execute("PRAGMA secure_delete = ON"));
  }
  Transaction transaction(impl.connection);
  RETURN_IF_ERROR(transaction.BeginImmediate());
  for (const InUseSeen& seen : change.in_use_seen) RETURN_IF_ERROR(impl.CheckInUse(seen));
  ASSIGN_OR_RETURN(const LogHead head, impl.ReadHead());
  ASSIGN_OR_RETURN(const LogAppend append, build(head, [&](unsigned level, std::uint64_t index) {
                     return impl.ReadTileRow(level, index);
                   }));
  if (append.entries.empty()) return head;
  for (const EnvelopeRecord& row : change.envelopes) {
    if (row.event_index >= append.entries.size()) {
      return Error(ErrorCode::kInternal, Action::kReportBug,
                   "an envelope names an event that its commit does not have", "report this");
    }
  }
  RETURN_IF_ERROR(impl.Write(change, head, append));
  RETURN_IF_ERROR(transaction.Commit());
  LogHead next;
  next.size = head.size + append.entries.size();
  next.checkpoint = append.checkpoint;
  next.p256_signed = append.p256_signed;
  next.counts = append.counts;
  if (!append.clears_migration) next.migrated_from = head.migrated_from;
  return next;
}

}  // namespace keyescrow::agent::store
