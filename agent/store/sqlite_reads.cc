#include <fmt/core.h>

#include <algorithm>
#include <charconv>

#include "agent/store/sqlite_impl.h"

namespace keyescrow::agent::store {

EnvelopeRecord ReadEnvelope(const Statement& row, bool with_bytes) {
  EnvelopeRecord envelope;
  envelope.key_name = std::string(row.Text(0));
  envelope.key_version = static_cast<std::uint32_t>(row.Integer(1));
  envelope.revision = static_cast<std::uint32_t>(row.Integer(2));
  envelope.envelope_id = std::string(row.Text(3));
  envelope.sha256 = CopyHash(row.Blob(4));
  envelope.created = row.Integer(5);
  envelope.log_seq = static_cast<std::uint64_t>(row.Integer(6));
  if (with_bytes) envelope.bytes = ToBytes(row.Blob(7));
  return envelope;
}

namespace {

std::vector<std::string> SplitLines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace

TokenRecord ReadToken(const Statement& row) {
  return {std::string(row.Text(0)), std::string(row.Text(1)), std::string(row.Text(2)),
          ToBytes(row.Blob(3)),     std::string(row.Text(4)), row.Integer(5),
          std::string(row.Text(6))};
}

TrustRecord ReadTrust(const Statement& row) {
  TrustRecord trust;
  trust.thumbprint = std::string(row.Text(0));
  trust.spki = ToBytes(row.Blob(1));
  trust.name = std::string(row.Text(2));
  trust.hosts = SplitLines(row.Text(3));
  trust.keys = SplitLines(row.Text(4));
  trust.added = row.Integer(5);
  if (!row.IsNull(6)) trust.removed = row.Integer(6);
  return trust;
}

PathState ReadPathState(const Statement& row) {
  PathState state;
  state.key_name = std::string(row.Text(0));
  state.key_version = static_cast<std::uint32_t>(row.Integer(1));
  state.path_id = std::string(row.Text(2));
  if (!row.IsNull(3)) state.proven = row.Integer(3);
  state.proven_revision = static_cast<std::uint32_t>(row.Integer(4));
  if (!row.IsNull(5)) state.failed = row.Integer(5);
  state.failure = std::string(row.Text(6));
  state.proven_by = std::string(row.Text(7));
  if (!row.IsNull(8)) state.proof_seq = static_cast<std::uint64_t>(row.Integer(8));
  return state;
}

Result<std::vector<TrustRecord>> ReadTrustRows(Connection& connection) {
  Statement row = connection.Prepare(
      "SELECT thumbprint, spki, name, hosts, keys, added, removed FROM trust "
      "ORDER BY name, thumbprint");
  std::vector<TrustRecord> trust;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return trust;
    trust.push_back(ReadTrust(row));
  }
}

Result<std::vector<PolicyRecord>> ReadPolicyRows(Connection& connection, std::size_t limit) {
  Statement row = connection.Prepare(
      "SELECT serial, name, sha256, text, note, signers, next_signers, set_time FROM policy "
      "ORDER BY serial DESC LIMIT ?");
  row.Bind(limit == 0 ? std::int64_t{-1} : static_cast<std::int64_t>(limit));
  std::vector<PolicyRecord> policies;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return policies;
    PolicyRecord& policy = policies.emplace_back();
    policy.serial = static_cast<std::uint64_t>(row.Integer(0));
    policy.name = std::string(row.Text(1));
    policy.sha256 = CopyHash(row.Blob(2));
    policy.text = std::string(AsText(row.Blob(3)));
    policy.note = std::string(row.Text(4));
    policy.signers = std::string(row.Text(5));
    policy.next_signers = std::string(row.Text(6));
    policy.set_time = row.Integer(7);
  }
}

Result<LogHead> SqliteStore::Impl::ReadHead() {
  LogHead head;
  {
    Statement row = connection.Prepare(
        "SELECT size, note, p256_signed, counts FROM checkpoint ORDER BY size DESC LIMIT 1");
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (found) {
      head.size = static_cast<std::uint64_t>(row.Integer(0));
      head.checkpoint = std::string(row.Text(1));
      head.p256_signed = row.Integer(2) != 0;
      if (!row.IsNull(3)) head.counts = std::string(row.Text(3));
    }
  }
  Statement row = connection.Prepare("SELECT value FROM meta WHERE name = 'migrated_from'");
  ASSIGN_OR_RETURN(const bool found, row.Step());
  if (found) {
    const std::string_view text = row.Text(0);
    std::from_chars(text.data(), text.data() + text.size(), head.migrated_from.emplace());
  }
  return head;
}

Result<Bytes> SqliteStore::Impl::ReadTileRow(unsigned level, std::uint64_t index) {
  Statement row = connection.Prepare("SELECT bytes FROM tile WHERE id = ?");
  row.Bind(TileId(level, index));
  ASSIGN_OR_RETURN(const bool found, row.Step());
  return found ? ToBytes(row.Blob(0)) : Bytes();
}

Result<LogHead> SqliteStore::Head() { return impl_->ReadHead(); }

Result<Bytes> SqliteStore::Tile(unsigned level, std::uint64_t index) {
  return impl_->ReadTileRow(level, index);
}

Result<LogEntry> SqliteStore::Entry(std::uint64_t seq) {
  Statement row = impl_->connection.Prepare("SELECT bytes, leaf_hash FROM log_entry WHERE seq = ?");
  row.Bind(static_cast<std::int64_t>(seq));
  ASSIGN_OR_RETURN(const bool found, row.Step());
  if (!found) {
    return Error(ErrorCode::kNotFound, Action::kFixInput,
                 fmt::format("the log has no entry {}", seq), "list the entries with audit log");
  }
  return LogEntry{seq, ToBytes(row.Blob(0)), CopyHash(row.Blob(1))};
}

Status SqliteStore::Entries(std::uint64_t first, std::string_view key_name,
                            const std::function<bool(const LogEntry&)>& visit) {
  Statement row = impl_->connection.Prepare(
      key_name.empty() ? "SELECT seq, bytes, leaf_hash FROM log_entry WHERE seq >= ? ORDER BY seq"
                       : "SELECT seq, bytes, leaf_hash FROM log_entry WHERE seq >= ? "
                         "AND " KEYESCROW_IS_OF_KEY " ORDER BY seq");
  row.Bind(static_cast<std::int64_t>(first));
  if (!key_name.empty()) row.Bind(key_name).Bind(key_name);
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return Ok();
    const LogEntry entry{static_cast<std::uint64_t>(row.Integer(0)), ToBytes(row.Blob(1)),
                         CopyHash(row.Blob(2))};
    if (!visit(entry)) return Ok();
  }
}

Status SqliteStore::Checkpoints(std::uint64_t first_size,
                                const std::function<bool(std::uint64_t, std::string_view)>& visit) {
  Statement row =
      impl_->connection.Prepare("SELECT size, note FROM checkpoint WHERE size >= ? ORDER BY size");
  row.Bind(static_cast<std::int64_t>(first_size));
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found || !visit(static_cast<std::uint64_t>(row.Integer(0)), row.Text(1))) return Ok();
  }
}

Status SqliteStore::ReadTogether(const std::function<Status()>& body) {
  Transaction transaction(impl_->connection);
  RETURN_IF_ERROR(transaction.BeginRead());
  return body();
}

Result<std::optional<std::uint64_t>> SqliteStore::ImportedSeq(const Bytes16& event_id) {
  Statement row = impl_->connection.Prepare("SELECT seq FROM imported_event WHERE event_id = ?");
  row.Bind(ByteView(event_id));
  ASSIGN_OR_RETURN(const bool found, row.Step());
  if (!found) return std::optional<std::uint64_t>();
  return std::optional(static_cast<std::uint64_t>(row.Integer(0)));
}

// DestroyedError tells of the version's entry: when, and by whom.
Error SqliteStore::DestroyedError(std::string_view key_name, std::uint32_t version) {
  return Error(ErrorCode::kNotFound, Action::kFixInput,
               fmt::format("{} version {} was destroyed", key_name, version),
               "an exported file opens it still, where there is one; nothing here does");
}

Result<EnvelopeRecord> SqliteStore::FindEnvelope(std::string_view key_name,
                                                 std::optional<std::uint32_t> version) {
  Statement row = impl_->connection.Prepare(
      version ? "SELECT " KEYESCROW_ENVELOPE_COLUMNS
                ", bytes FROM envelope WHERE key_name = ? AND key_version = ? "
                "ORDER BY revision DESC LIMIT 1"
              : "SELECT " KEYESCROW_ENVELOPE_COLUMNS
                ", bytes FROM envelope AS e WHERE key_name = ? AND " KEYESCROW_COUNTS_IN_USE(
                    "e") " ORDER BY key_version DESC, revision DESC LIMIT 1");
  row.Bind(key_name);
  if (version) row.Bind(*version);
  ASSIGN_OR_RETURN(const bool found, row.Step());
  if (found) {
    EnvelopeRecord record = ReadEnvelope(row, true);
    if (!record.bytes.empty()) return record;
    return DestroyedError(key_name, record.key_version);
  }
  if (!version) {
    ASSIGN_OR_RETURN(const auto destroyed, Destroyed(key_name));
    if (!destroyed.empty()) return DestroyedError(key_name, destroyed.back().key_version);
  }
  if (version) {
    ASSIGN_OR_RETURN(const EnvelopeRecord newest, FindEnvelope(key_name, std::nullopt));
    return Error(ErrorCode::kVersionNotFound, Action::kFixInput,
                 fmt::format("{} has no version {}", key_name, *version),
                 fmt::format("the newest is {}; list them with keyescrow show {}",
                             newest.key_version, key_name));
  }
  return Error(ErrorCode::kKeyNotFound, Action::kFixInput,
               fmt::format("no key named {} is escrowed here", key_name),
               "list the keys with keyescrow list");
}

Status SqliteStore::Envelopes(const EnvelopeQuery& query,
                              const std::function<bool(const EnvelopeRecord&)>& visit) {
  // Eight fixed texts, so that each is prepared once.
#define KEYESCROW_STANDING \
  ", CASE WHEN " KEYESCROW_IS_DESTROYED("e") " THEN 3 ELSE coalesce((SELECT CASE step "  \
  "WHEN 'confirmed' THEN 0 WHEN 'abandoned' THEN 2 ELSE 1 END FROM rotation "            \
  "WHERE key_name = e.key_name AND key_version = e.key_version), 0) END"
#define KEYESCROW_ENVELOPE_QUERY(bytes, filter, current)        \
  "SELECT " KEYESCROW_ENVELOPE_COLUMNS bytes KEYESCROW_STANDING \
  " FROM envelope AS e WHERE " filter " AND " current           \
  " AND (?2 OR NOT " KEYESCROW_IS_DESTROYED("e") ") ORDER BY key_name, key_version, revision"
#define KEYESCROW_CURRENT                                                           \
  "revision = (SELECT max(revision) FROM envelope WHERE key_name = e.key_name AND " \
  "key_version = e.key_version)"
  static constexpr const char* kQueries[] = {
      KEYESCROW_ENVELOPE_QUERY("", "?1 = ''", KEYESCROW_CURRENT),
      KEYESCROW_ENVELOPE_QUERY(", bytes", "?1 = ''", KEYESCROW_CURRENT),
      KEYESCROW_ENVELOPE_QUERY("", "?1 = ''", "1"),
      KEYESCROW_ENVELOPE_QUERY(", bytes", "?1 = ''", "1"),
      KEYESCROW_ENVELOPE_QUERY("", "key_name = ?1", KEYESCROW_CURRENT),
      KEYESCROW_ENVELOPE_QUERY(", bytes", "key_name = ?1", KEYESCROW_CURRENT),
      KEYESCROW_ENVELOPE_QUERY("", "key_name = ?1", "1"),
      KEYESCROW_ENVELOPE_QUERY(", bytes", "key_name = ?1", "1"),
  };
#undef KEYESCROW_CURRENT
#undef KEYESCROW_ENVELOPE_QUERY
#undef KEYESCROW_STANDING
  const std::size_t choice = (query.key_name.empty() ? 0U : 4U) + (query.all_revisions ? 2U : 0U) +
                             (query.with_bytes ? 1U : 0U);
  Statement row = impl_->connection.Prepare(kQueries[choice]);
  row.Bind(std::string_view(query.key_name)).Bind(query.with_destroyed ? 1 : 0);
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return Ok();
    EnvelopeRecord record = ReadEnvelope(row, query.with_bytes);
    record.standing = static_cast<VersionStanding>(row.Integer(query.with_bytes ? 8 : 7));
    if (!visit(record)) return Ok();
  }
}

Status SqliteStore::PathSets(std::string_view key_name,
                             const std::function<bool(const PathSetRow&)>& visit) {
  // Both are read from the index of envelopes and from path_set; envelopes lie elsewhere.
  Statement row = impl_->connection.Prepare(
      key_name.empty() ? "SELECT key_name, key_version, max(revision), digest FROM envelope AS e "
                         "INDEXED BY envelope_by_key LEFT JOIN path_set ON envelope_row = e.id "
                         "WHERE ?1 = '' AND NOT " KEYESCROW_IS_DESTROYED(
                             "e") " GROUP BY key_name, key_version ORDER BY key_name, key_version"
                       : "SELECT key_name, key_version, max(revision), digest FROM envelope AS e "
                         "INDEXED BY envelope_by_key LEFT JOIN path_set ON envelope_row = e.id "
                         "WHERE key_name = ?1 AND NOT " KEYESCROW_IS_DESTROYED(
                             "e") " GROUP BY key_name, key_version ORDER BY key_name, key_version");
  row.Bind(key_name);
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return Ok();
    PathSetRow set;
    set.key_name = row.Text(0);
    set.key_version = static_cast<std::uint32_t>(row.Integer(1));
    set.revision = static_cast<std::uint32_t>(row.Integer(2));
    if (const ByteView digest = row.Blob(3); digest.size() == Bytes32{}.size()) {
      std::copy(digest.begin(), digest.end(), set.path_set.emplace().begin());
    }
    if (!visit(set)) return Ok();
  }
}

Result<std::vector<TokenRecord>> SqliteStore::Tokens() {
  Statement row = impl_->connection.Prepare(
      "SELECT name, uri, module, spki, evidence, added, pin_source FROM token ORDER BY name");
  std::vector<TokenRecord> tokens;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return tokens;
    tokens.push_back(ReadToken(row));
  }
}

Result<TokenRecord> SqliteStore::FindToken(std::string_view name) {
  Statement row = impl_->connection.Prepare(
      "SELECT name, uri, module, spki, evidence, added, pin_source FROM token WHERE name = ?");
  row.Bind(name);
  ASSIGN_OR_RETURN(const bool found, row.Step());
  if (found) return ReadToken(row);
  return Error(ErrorCode::kTokenNotRegistered, Action::kFixInput,
               fmt::format("no token is registered as {}", name),
               "list the tokens with keyescrow token list, or register it with token add");
}

Result<std::vector<TrustRecord>> SqliteStore::Trust() { return ReadTrustRows(impl_->connection); }

Result<TrustRecord> SqliteStore::FindTrust(std::string_view thumbprint) {
  Statement row = impl_->connection.Prepare(
      "SELECT thumbprint, spki, name, hosts, keys, added, removed FROM trust "
      "WHERE thumbprint = ? AND removed IS NULL");
  row.Bind(thumbprint);
  ASSIGN_OR_RETURN(const bool found, row.Step());
  if (found) return ReadTrust(row);
  return Error(ErrorCode::kNotFound, Action::kFixInput,
               fmt::format("no agent with the thumbprint {} is trusted", thumbprint),
               "compare the thumbprint with the one that init printed, then use trust add");
}

Result<std::vector<PathState>> SqliteStore::PathStates(std::string_view key_name) {
  Statement row = impl_->connection.Prepare(
      key_name.empty()
          ? "SELECT key_name, key_version, path_id, proven, proven_revision, failed, failure, "
            "proven_by, proof_seq FROM path_state ORDER BY key_name, key_version, path_id"
          : "SELECT key_name, key_version, path_id, proven, proven_revision, failed, failure, "
            "proven_by, proof_seq FROM path_state WHERE key_name = ? ORDER BY key_version, "
            "path_id");
  if (!key_name.empty()) row.Bind(key_name);
  std::vector<PathState> states;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return states;
    states.push_back(ReadPathState(row));
  }
}

Result<std::vector<DestinationRecord>> SqliteStore::Destinations() {
  Statement row = impl_->connection.Prepare(
      "SELECT path, key_name, key_version, previous_path, time FROM destination ORDER BY path");
  std::vector<DestinationRecord> destinations;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return destinations;
    destinations.push_back({std::string(row.Text(0)), std::string(row.Text(1)),
                            static_cast<std::uint32_t>(row.Integer(2)), std::string(row.Text(3)),
                            row.Integer(4)});
  }
}

Result<std::vector<PolicyRecord>> SqliteStore::Policies(std::size_t limit) {
  return ReadPolicyRows(impl_->connection, limit);
}

Result<std::vector<PolicyFile>> SqliteStore::PolicyFiles(std::uint64_t serial) {
  Statement row = impl_->connection.Prepare(
      "SELECT name, bytes FROM policy_file WHERE serial = ? ORDER BY name");
  row.Bind(static_cast<std::int64_t>(serial));
  std::vector<PolicyFile> files;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return files;
    files.push_back({std::string(row.Text(0)), ToBytes(row.Blob(1))});
  }
}

#define KEYESCROW_FINGERPRINT_COLUMNS \
  "key_name, key_version, mac_key_id, mac, machine, source, uid, gid, mode, time"

static FingerprintRecord ReadFingerprint(const Statement& row) {
  FingerprintRecord record;
  record.key_name = std::string(row.Text(0));
  record.key_version = static_cast<std::uint32_t>(row.Integer(1));
  const ByteView id = row.Blob(2);
  std::copy_n(id.begin(), std::min(id.size(), record.mac_key_id.size()), record.mac_key_id.begin());
  record.mac = CopyHash(row.Blob(3));
  record.machine = std::string(row.Text(4));
  record.source = std::string(row.Text(5));
  if (!row.IsNull(6) && !row.IsNull(7) && !row.IsNull(8)) {
    record.access = FingerprintRecord::SourceAccess{static_cast<std::uint32_t>(row.Integer(6)),
                                                    static_cast<std::uint32_t>(row.Integer(7)),
                                                    static_cast<std::uint32_t>(row.Integer(8))};
  }
  record.time = row.Integer(9);
  return record;
}

Result<std::vector<FingerprintRecord>> SqliteStore::Fingerprints(std::string_view key_name) {
  Statement row = impl_->connection.Prepare(
      key_name.empty() ? "SELECT " KEYESCROW_FINGERPRINT_COLUMNS
                         " FROM fingerprint ORDER BY key_name, key_version"
                       : "SELECT " KEYESCROW_FINGERPRINT_COLUMNS
                         " FROM fingerprint WHERE key_name = ? ORDER BY key_version");
  if (!key_name.empty()) row.Bind(key_name);
  std::vector<FingerprintRecord> fingerprints;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return fingerprints;
    fingerprints.push_back(ReadFingerprint(row));
  }
}

Result<std::optional<FingerprintRecord>> SqliteStore::FindFingerprint(std::string_view key_name,
                                                                      std::uint32_t version) {
  Statement row = impl_->connection.Prepare("SELECT " KEYESCROW_FINGERPRINT_COLUMNS
                                            " FROM fingerprint WHERE key_name = ? "
                                            "AND key_version = ?");
  ASSIGN_OR_RETURN(const bool found, row.Bind(key_name).Bind(version).Step());
  if (!found) return std::optional<FingerprintRecord>();
  return std::optional(ReadFingerprint(row));
}

Result<std::vector<GateOverrideRecord>> ReadOverrideRows(Connection& connection) {
  Statement row = connection.Prepare(
      "SELECT key_name, key_version, time, reason FROM gate_override ORDER BY key_name");
  std::vector<GateOverrideRecord> overrides;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return overrides;
    overrides.push_back({std::string(row.Text(0)), static_cast<std::uint32_t>(row.Integer(1)),
                         row.Integer(2), std::string(row.Text(3))});
  }
}

Result<std::vector<GateOverrideRecord>> SqliteStore::GateOverrides() {
  return ReadOverrideRows(impl_->connection);
}

Result<std::optional<std::string>> SqliteStore::GetSetting(std::string_view name) {
  Statement row = impl_->connection.Prepare("SELECT value FROM meta WHERE name = ?");
  row.Bind(name);
  ASSIGN_OR_RETURN(const bool found, row.Step());
  if (!found) return std::optional<std::string>();
  return std::optional(std::string(row.Text(0)));
}

}  // namespace keyescrow::agent::store
