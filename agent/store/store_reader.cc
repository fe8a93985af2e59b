#include "agent/store/store_reader.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <map>

#include "agent/store/evidence.h"
#include "agent/store/schema.h"
#include "agent/store/sqlite_impl.h"
#include "agent/store/stray_rows.h"

namespace keyescrow::agent::store {
namespace {

#define KEYESCROW_OF_ONE_REVISION \
  "FROM envelope WHERE key_name = ? AND key_version = ? AND revision = ?"

constexpr int kBusyTimeoutMs = 30'000;
constexpr int kSchemaWithRotations = 12;
constexpr int kSchemaWithForeign = 9;

// OptionalBlob returns the first column of the only row; nothing where there is none.
Result<std::optional<Bytes>> OptionalBlob(Statement& row) {
  ASSIGN_OR_RETURN(const bool found, row.Step());
  if (!found) return std::optional<Bytes>();
  return std::optional(ToBytes(row.Blob(0)));
}

// FileState: what changes when somebody writes to a file.
struct FileState {
  bool exists = false;
  std::int64_t size_bytes = 0;
  std::int64_t changed_s = 0;
  std::int64_t changed_ns = 0;
  bool operator==(const FileState&) const = default;
};

FileState StateOf(const std::string& path) {
  struct stat info {};
  if (stat(path.c_str(), &info) != 0) return {};
  return {true, info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
}

// UriPath escapes what a SQLite URI would read as something else.
std::string UriPath(const std::string& path) {
  std::string escaped;
  for (const char c : path) {
    if (c == '%' || c == '?' || c == '#') {
      escaped += fmt::format("%{:02x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    } else {
      escaped += c;
    }
  }
  return escaped;
}

// Evidence is opened without a file beside it: `immutable` reads no write-ahead log at all; where
// there is one, a VFS without locks and the exclusive mode that follows keep the log's index in
// memory. (The URI's own nolock=1 would rule the log out: SQLite 3.40.)
constexpr const char* kVfsWithoutLocks = "unix-none";
std::string EvidenceUri(const std::string& path, bool has_wal) {
  return "file:" + UriPath(path) + (has_wal ? "?mode=ro" : "?mode=ro&immutable=1");
}

Result<std::string> ResolveStore(const std::string& state_dir) {
  const std::string path = state_dir + "/" + std::string(kStoreFileName);
  char resolved[PATH_MAX];
  if (realpath(path.c_str(), resolved) == nullptr) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return Error(ErrorCode::kNotInitialized, Action::kFixInput,
                   fmt::format("there is no store in {}", state_dir),
                   "name a state folder: the one with store.db and agent.json in it");
    }
    return ErrnoError(ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
                      fmt::format("{} cannot be opened", path),
                      "check the path and its permissions", errno);
  }
  return std::string(resolved);
}

// SchemaOf: name of each object to its type and text.
using SchemaMap = std::map<std::string, std::pair<std::string, std::string>>;

Result<SchemaMap> SchemaOf(Connection& connection) {
  Statement row = connection.Prepare(
      "SELECT name, type, coalesce(sql, '') FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%'");
  SchemaMap objects;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return objects;
    objects.emplace(std::string(row.Text(0)),
                    std::pair(std::string(row.Text(1)), std::string(row.Text(2))));
  }
}

Result<SchemaMap> ExpectedSchema(int version) {
  sqlite3* handle = nullptr;
  const int code = sqlite3_open(":memory:", &handle);
  Connection connection(handle);
  if (code != SQLITE_OK) return connection.MakeError();
  for (int next = 0; next < version; ++next) {
    RETURN_IF_ERROR(connection.Execute(kMigrations[next]));
  }
  return SchemaOf(connection);
}

Result<sqlite3*> OpenHandle(const std::string& path, ReaderMode mode, bool has_wal) {
  const bool evidence = mode == ReaderMode::kEvidence;
  const std::string name = evidence ? EvidenceUri(path, has_wal) : path;
  ConfigureSqlite();
  sqlite3* handle = nullptr;
  const int flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | (evidence ? SQLITE_OPEN_URI : 0);
  const char* const vfs = evidence && has_wal ? kVfsWithoutLocks : nullptr;
  const int code = sqlite3_open_v2(name.c_str(), &handle, flags, vfs);
  if (code != SQLITE_OK) {
    Error error = LastError(handle);
    sqlite3_close(handle);
    return error;
  }
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, kBusyTimeoutMs);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  return handle;
}

}  // namespace

struct StoreReader::Impl {
  Impl(sqlite3* handle, std::string store_path)
      : connection(handle), path(std::move(store_path)), transaction(connection) {}

  std::array<FileState, 2> FileStates() const { return {StateOf(path), StateOf(path + "-wal")}; }
  Status Begin(ReaderMode mode);
  Result<std::int64_t> Number(const char* sql);
  Result<bool> HasIndex(std::string_view name);

  WorkLimit limit;
  Connection connection;
  std::string path;
  Transaction transaction;
  int schema_version = 0;
  StoreExtent extent;
  std::array<FileState, 2> states_at_open;
  std::uint64_t held_bytes = HeldBytes(path);
};

StoreReader::StoreReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StoreReader::~StoreReader() = default;

int StoreReader::schema_version() const { return impl_->schema_version; }
const StoreExtent& StoreReader::extent() const { return impl_->extent; }
std::uint64_t StoreReader::file_bytes() const { return impl_->held_bytes; }
bool StoreReader::Unchanged() const { return impl_->FileStates() == impl_->states_at_open; }

Result<bool> StoreReader::Impl::HasIndex(std::string_view name) {
  Statement row =
      connection.Prepare("SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?");
  return row.Bind(name).Step();
}

Result<std::int64_t> StoreReader::Impl::Number(const char* sql) {
  Statement row = connection.Prepare(sql);
  ASSIGN_OR_RETURN(const bool found, row.Step());
  return found ? row.Integer(0) : 0;
}

Status StoreReader::Impl::Begin(ReaderMode mode) {
  if (mode == ReaderMode::kEvidence) {
    RETURN_IF_ERROR(connection.Execute("PRAGMA locking_mode = EXCLUSIVE"));
  }
  RETURN_IF_ERROR(transaction.BeginRead());
  ASSIGN_OR_RETURN(const std::int64_t version, Number("PRAGMA user_version"));
  schema_version = static_cast<int>(version);
  if (version <= 0) {
    return Error(ErrorCode::kNotInitialized, Action::kFixInput,
                 fmt::format("{} is no store of keyescrow", path),
                 "name a state folder: the one with store.db and agent.json in it");
  }
  if (version > kSchemaVersion) {
    return Error(
        ErrorCode::kStoreNewerSchema, Action::kFixInput,
        fmt::format("{} has schema {}, this version knows {}", path, version, kSchemaVersion),
        "install the keyescrow that wrote it, or a newer one; this is version " KEYESCROW_VERSION);
  }
  ASSIGN_OR_RETURN(const std::int64_t entries,
                   Number("SELECT coalesce(max(seq) + 1, 0) FROM log_entry"));
  ASSIGN_OR_RETURN(const std::int64_t size,
                   Number("SELECT coalesce(max(size), 0) FROM checkpoint"));
  ASSIGN_OR_RETURN(extent.min_seq, Number("SELECT coalesce(min(seq), 0) FROM log_entry"));
  ASSIGN_OR_RETURN(extent.min_envelope_id, Number("SELECT coalesce(min(id), 0) FROM envelope"));
  ASSIGN_OR_RETURN(extent.max_envelope_id, Number("SELECT coalesce(max(id), 0) FROM envelope"));
  extent.num_entries = static_cast<std::uint64_t>(entries);
  extent.checkpoint_size = static_cast<std::uint64_t>(size);
  return Ok();
}

Result<std::unique_ptr<StoreReader>> StoreReader::Open(const std::string& state_dir,
                                                       ReaderMode mode) {
  if (mode == ReaderMode::kLive) RETURN_IF_ERROR(CheckStateFolder(state_dir));
  ASSIGN_OR_RETURN(const std::string path, ResolveStore(state_dir));
  if (mode == ReaderMode::kEvidence) RETURN_IF_ERROR(CheckBesideEvidence(path));
  const std::array<FileState, 2> states{StateOf(path), StateOf(path + "-wal")};
  ASSIGN_OR_RETURN(sqlite3 * handle, OpenHandle(path, mode, states[1].size_bytes > 0));
  auto impl = std::make_unique<Impl>(handle, path);
  impl->states_at_open = states;
  if (mode == ReaderMode::kEvidence) impl->limit.Set(handle, impl->held_bytes);
  if (Status begun = impl->Begin(mode); !begun) {
    // What is written to while it is opened looks damaged, and is not.
    if (mode == ReaderMode::kEvidence && impl->FileStates() != states) return WrittenTo();
    return std::move(begun).error();
  }
  return std::unique_ptr<StoreReader>(new StoreReader(std::move(impl)));
}

Result<std::vector<std::string>> StoreReader::SchemaDifferences() {
  ASSIGN_OR_RETURN(const SchemaMap expected, ExpectedSchema(impl_->schema_version));
  ASSIGN_OR_RETURN(const SchemaMap found, SchemaOf(impl_->connection));
  std::vector<std::string> differences;
  for (const auto& [name, object] : expected) {
    const auto other = found.find(name);
    if (other == found.end()) {
      differences.push_back(fmt::format("the {} {} is missing", object.first, name));
    } else if (other->second != object) {
      differences.push_back(fmt::format("the {} {} is another", object.first, name));
    }
  }
  for (const auto& [name, object] : found) {
    if (expected.contains(name)) continue;
    differences.push_back(fmt::format("the {} {} is none of keyescrow's", object.first, name));
  }
  return WithStrayRows(impl_->connection, impl_->schema_version, std::move(differences));
}

Status StoreReader::Entries(std::uint64_t first, std::uint64_t last,
                            const std::function<bool(const EntryRow&)>& visit) {
  Statement row = impl_->connection.Prepare(
      "SELECT seq, bytes, leaf_hash, key_name FROM log_entry WHERE seq >= ? AND seq < ? "
      "ORDER BY seq");
  row.Bind(static_cast<std::int64_t>(first)).Bind(static_cast<std::int64_t>(last));
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return Ok();
    if (!visit(
            {static_cast<std::uint64_t>(row.Integer(0)), row.Blob(1), row.Blob(2), row.Text(3)})) {
      return Ok();
    }
  }
}

Status StoreReader::Checkpoints(std::int64_t above, std::int64_t last,
                                const std::function<bool(const CheckpointRow&)>& visit) {
  Statement row = impl_->connection.Prepare(
      "SELECT size, p256_signed, note FROM checkpoint WHERE size > ? AND size <= ? ORDER BY size");
  row.Bind(above).Bind(last);
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return Ok();
    if (!visit({static_cast<std::uint64_t>(row.Integer(0)), row.Integer(1) != 0, row.Text(2)})) {
      return Ok();
    }
  }
}

Result<std::optional<std::string>> StoreReader::NewestCheckpoint(std::uint64_t size) {
  Statement row = impl_->connection.Prepare(
      "SELECT note FROM checkpoint WHERE size <= ? ORDER BY size DESC LIMIT 1");
  row.Bind(static_cast<std::int64_t>(size));
  ASSIGN_OR_RETURN(const bool found, row.Step());
  if (!found) return std::optional<std::string>();
  return std::optional(std::string(row.Text(0)));
}

Status StoreReader::Envelopes(std::int64_t first_id, std::int64_t last_id,
                              const std::function<bool(const EnvelopeRow&)>& visit) {
#define KEYESCROW_COLUMNS \
  "SELECT id, key_name, key_version, revision, envelope_id, sha256, created, log_seq, bytes, "
  Statement row =
      impl_->connection.Prepare(impl_->schema_version < 8 ? KEYESCROW_COLUMNS
                                    "NULL FROM envelope WHERE id >= ? AND id <= ? ORDER BY id"
                                                          : KEYESCROW_COLUMNS
                                    "digest FROM envelope LEFT JOIN path_set ON envelope_row = id "
                                    "WHERE id >= ? AND id <= ? ORDER BY id");
#undef KEYESCROW_COLUMNS
  row.Bind(first_id).Bind(last_id);
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return Ok();
    if (!visit({row.Integer(0), row.Text(1), row.Integer(2), row.Integer(3), row.Text(4),
                row.Blob(5), row.Integer(6), row.Integer(7), row.Blob(8), row.Blob(9)})) {
      return Ok();
    }
  }
}

Status StoreReader::EnvelopeKeys(const std::function<bool(const EnvelopeKeyRow&)>& visit) {
  ASSIGN_OR_RETURN(const bool there, impl_->HasIndex("envelope_by_key"));
  if (!there) return Ok();
  Statement row = impl_->connection.Prepare(
      "SELECT key_name, key_version, revision, id FROM envelope INDEXED BY envelope_by_key "
      "ORDER BY key_name, key_version, revision");
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found || !visit({row.Text(0), row.Integer(1), row.Integer(2), row.Integer(3)})) {
      return Ok();
    }
  }
}

Status StoreReader::EntryKeys(const std::function<bool(std::string_view, std::uint64_t)>& visit) {
  if (impl_->schema_version < 2) return Ok();
  ASSIGN_OR_RETURN(const bool there, impl_->HasIndex("log_entry_by_key"));
  if (!there) return Ok();
  Statement row = impl_->connection.Prepare(
      "SELECT key_name, seq FROM log_entry INDEXED BY log_entry_by_key WHERE key_name IS NOT NULL "
      "ORDER BY key_name, seq");
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found || !visit(row.Text(0), static_cast<std::uint64_t>(row.Integer(1)))) return Ok();
  }
}

Status StoreReader::EntriesOfKey(std::string_view key_name,
                                 const std::function<bool(const EntryRow&)>& visit) {
  Statement row = impl_->connection.Prepare(
      "SELECT seq, bytes, leaf_hash, key_name FROM log_entry WHERE " KEYESCROW_IS_OF_KEY
      " ORDER BY seq DESC");
  row.Bind(key_name).Bind(key_name);
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return Ok();
    const auto seq = static_cast<std::uint64_t>(row.Integer(0));
    if (!visit({seq, row.Blob(1), row.Blob(2), row.Text(3)})) return Ok();
  }
}

Status StoreReader::PathStates(const std::function<bool(const PathState&)>& visit) {
  Statement row = impl_->connection.Prepare(
      "SELECT key_name, key_version, path_id, proven, proven_revision, failed, failure, proven_by, "
      "proof_seq FROM path_state ORDER BY key_name, key_version, path_id");
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found || !visit(ReadPathState(row))) return Ok();
  }
}

Status StoreReader::ImportedEvents(const std::function<bool(const ImportedRow&)>& visit) {
  Statement row =
      impl_->connection.Prepare("SELECT event_id, seq FROM imported_event ORDER BY seq");
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found || !visit({ToBytes(row.Blob(0)), row.Integer(1)})) return Ok();
  }
}

Result<Bytes> StoreReader::Tile(unsigned level, std::uint64_t index) {
  Statement row = impl_->connection.Prepare("SELECT bytes FROM tile WHERE id = ?");
  row.Bind(TileId(level, index));
  ASSIGN_OR_RETURN(const bool found, row.Step());
  return found ? ToBytes(row.Blob(0)) : Bytes();
}

Result<std::optional<Bytes>> StoreReader::EntryBytes(std::uint64_t seq) {
  Statement row = impl_->connection.Prepare("SELECT bytes FROM log_entry WHERE seq = ?");
  return OptionalBlob(row.Bind(static_cast<std::int64_t>(seq)));
}

Result<std::optional<Bytes32>> StoreReader::EnvelopeSha256(std::string_view key_name,
                                                           std::int64_t version,
                                                           std::int64_t revision) {
  Statement row = impl_->connection.Prepare("SELECT sha256 " KEYESCROW_OF_ONE_REVISION);
  ASSIGN_OR_RETURN(const bool found, row.Bind(key_name).Bind(version).Bind(revision).Step());
  if (!found) return std::optional<Bytes32>();
  return std::optional(CopyHash(row.Blob(0)));
}

Result<std::optional<Bytes>> StoreReader::EnvelopeBytes(std::string_view key_name,
                                                        std::int64_t version,
                                                        std::int64_t revision) {
  Statement row = impl_->connection.Prepare("SELECT bytes " KEYESCROW_OF_ONE_REVISION);
  return OptionalBlob(row.Bind(key_name).Bind(version).Bind(revision));
}

Result<EnvelopeRecord> StoreReader::FindEnvelope(std::string_view key_name) {
  Statement row = impl_->connection.Prepare(
      impl_->schema_version < kSchemaWithRotations
          ? "SELECT " KEYESCROW_ENVELOPE_COLUMNS
            ", bytes FROM envelope WHERE key_name = ? "
            "ORDER BY key_version DESC, revision DESC LIMIT 1"
          : "SELECT " KEYESCROW_ENVELOPE_COLUMNS
            ", bytes FROM envelope AS e WHERE key_name = ? AND " KEYESCROW_COUNTS_IN_USE(
                "e") " ORDER BY key_version DESC, revision DESC LIMIT 1");
  row.Bind(key_name);
  ASSIGN_OR_RETURN(const bool found, row.Step());
  if (found) return ReadEnvelope(row, true);
  return Error(ErrorCode::kKeyNotFound, Action::kFixInput,
               fmt::format("no key named {} is escrowed there", key_name),
               "name a key of that store, or leave the name out to verify all of it");
}

Result<std::optional<std::int64_t>> StoreReader::FirstCreated(std::string_view key_name) {
  Statement row = impl_->connection.Prepare(
      "SELECT created FROM envelope WHERE key_name = ? AND length(bytes) > 0 "
      "ORDER BY key_version, revision LIMIT 1");
  ASSIGN_OR_RETURN(const bool found, row.Bind(key_name).Step());
  return found ? std::optional(row.Integer(0)) : std::nullopt;
}

Result<std::vector<PolicyRecord>> StoreReader::Policies() {
  if (impl_->schema_version < 4) return std::vector<PolicyRecord>();
  ASSIGN_OR_RETURN(auto policies, ReadPolicyRows(impl_->connection, 0));
  for (PolicyRecord& policy : policies) {
    Statement row = impl_->connection.Prepare(
        "SELECT name, bytes FROM policy_file WHERE serial = ? ORDER BY name");
    row.Bind(static_cast<std::int64_t>(policy.serial));
    for (;;) {
      ASSIGN_OR_RETURN(const bool found, row.Step());
      if (!found) break;
      policy.files.push_back({std::string(row.Text(0)), ToBytes(row.Blob(1))});
    }
  }
  return policies;
}

Result<std::vector<GateOverrideRecord>> StoreReader::GateOverrides() {
  if (impl_->schema_version < 5) return std::vector<GateOverrideRecord>();
  return ReadOverrideRows(impl_->connection);
}

Result<std::vector<ForeignEscrowRecord>> StoreReader::ForeignEscrows() {
  if (impl_->schema_version < kSchemaWithForeign) return std::vector<ForeignEscrowRecord>();
  return ReadForeignRows(impl_->connection);
}

Result<std::optional<std::string>> StoreReader::NewestCounts() {
  if (impl_->schema_version < 6) return std::optional<std::string>();
  Statement row =
      impl_->connection.Prepare("SELECT counts FROM checkpoint ORDER BY size DESC LIMIT 1");
  ASSIGN_OR_RETURN(const bool found, row.Step());
  if (!found || row.IsNull(0)) return std::optional<std::string>();
  return std::optional(std::string(row.Text(0)));
}

Result<std::vector<RotationRecord>> StoreReader::Rotations() {
  if (impl_->schema_version < kSchemaWithRotations) return std::vector<RotationRecord>();
  return ReadRotationRows(impl_->connection, "");
}

Result<std::vector<DestroyedRecord>> StoreReader::Destroyed() {
  if (impl_->schema_version < kSchemaWithRotations) return std::vector<DestroyedRecord>();
  return ReadDestroyedRows(impl_->connection, "");
}

Result<std::vector<TokenRecord>> StoreReader::Tokens() {
  Statement row = impl_->connection.Prepare(
      "SELECT name, uri, module, spki, evidence, added, '' FROM token ORDER BY name");
  std::vector<TokenRecord> tokens;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return tokens;
    tokens.push_back(ReadToken(row));
  }
}

Result<std::vector<TrustRecord>> StoreReader::Trust() { return ReadTrustRows(impl_->connection); }

Result<std::vector<RecoveryKeyRecord>> StoreReader::RecoveryKeys() {
  ASSIGN_OR_RETURN(const std::int64_t tables,
                   impl_->Number("SELECT count(*) FROM sqlite_master WHERE name = 'recovery_key'"));
  if (tables == 0) return std::vector<RecoveryKeyRecord>();
  return ReadRecoveryKeyRows(impl_->connection);
}

Result<std::vector<Setting>> StoreReader::Settings() {
  Statement row = impl_->connection.Prepare("SELECT name, value FROM meta ORDER BY name");
  std::vector<Setting> settings;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, row.Step());
    if (!found) return settings;
    settings.push_back({std::string(row.Text(0)), std::string(row.Text(1))});
  }
}

Result<std::uint64_t> StoreReader::CountTiles() {
  ASSIGN_OR_RETURN(const std::int64_t count, impl_->Number("SELECT count(*) FROM tile"));
  return static_cast<std::uint64_t>(count);
}

}  // namespace keyescrow::agent::store
