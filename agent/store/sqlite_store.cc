#include "agent/store/sqlite_store.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>

#include "agent/store/schema.h"
#include "agent/store/sqlite_impl.h"

namespace keyescrow::agent::store {
namespace {

constexpr int kPageBytes = 16384;
constexpr int kMaxWalPages = 1000;  // a long-lived process folds 16 MB at a time, as SQLite would
constexpr unsigned long kMinFreeBytes = 256 * 1024;

// sqlite3_wal_hook's callback: remembers the log's length, and folds it when it grows too long.
int AfterCommit(void* context, sqlite3* handle, const char* database, int pages) {
  *static_cast<int*>(context) = pages;
  if (pages >= kMaxWalPages) {
    sqlite3_wal_checkpoint_v2(handle, database, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  }
  return SQLITE_OK;
}

// RealPath resolves the folder, so that SQLITE_OPEN_NOFOLLOW judges the file alone.
Result<std::string> StorePath(const std::string& state_dir) {
  char resolved[PATH_MAX];
  if (realpath(state_dir.c_str(), resolved) == nullptr) {
    return ErrnoError(ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
                      fmt::format("{} cannot be resolved", state_dir),
                      "check the state folder's path", errno);
  }
  return fmt::format("{}/{}", resolved, kStoreFileName);
}

Error NotInitialized(const std::string& state_dir) {
  return Error(ErrorCode::kNotInitialized, Action::kFixInput,
               fmt::format("there is no store in {}", state_dir), "run keyescrow init");
}

Result<int> ReadSchemaVersion(Connection& connection) {
  Statement statement = connection.Prepare("PRAGMA user_version");
  RETURN_IF_ERROR(statement.Step());
  return static_cast<int>(statement.Integer(0));
}

Status Migrate(Connection& connection, const std::string& path) {
  ASSIGN_OR_RETURN(int version, ReadSchemaVersion(connection));
  if (version == kSchemaVersion) return Ok();
  if (version < 0) {
    return Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
                 fmt::format("{} has the schema {}, which no version writes", path, version),
                 "put the store back from a copy; restores from a file still work");
  }
  Transaction transaction(connection);
  if (version < kSchemaVersion) {
    RETURN_IF_ERROR(transaction.BeginImmediate());
    ASSIGN_OR_RETURN(version,
                     ReadSchemaVersion(connection));  // another process may have been first
  }
  if (version > kSchemaVersion) {
    return Error(
        ErrorCode::kStoreNewerSchema, Action::kFixInput,
        fmt::format("{} has schema {}, this version knows {}", path, version, kSchemaVersion),
        "install the keyescrow that wrote it, or a newer one; this is version " KEYESCROW_VERSION);
  }
  if (version == kSchemaVersion) return Ok();
  for (int next = version; next < kSchemaVersion; ++next) {
    RETURN_IF_ERROR(connection.Execute(kMigrations[next]));
  }
  if (version > 0) {
    // The next commit tells the log (store.migrated) and removes this.
    Statement note = connection.Prepare(
        "INSERT INTO meta (name, value) VALUES ('migrated_from', ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value");
    const std::string from = std::to_string(version);
    RETURN_IF_ERROR(note.Bind(std::string_view(from)).Run());
  }
  RETURN_IF_ERROR(
      connection.Execute(fmt::format("PRAGMA user_version = {}", kSchemaVersion).c_str()));
  return transaction.Commit();
}

// OpenHandle opens an existing file and sets what every connection of ours has.
Result<sqlite3*> OpenHandle(const std::string& path, const SqliteOptions& options) {
  ConfigureSqlite();
  sqlite3* handle = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &handle,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW, nullptr);
  if (code != SQLITE_OK) {
    Error error = LastError(handle);
    sqlite3_close(handle);
    return error;
  }
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, static_cast<int>(options.busy_timeout.count()));
  sqlite3_db_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_ENABLE_FKEY, 1, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  return handle;
}

// CreateFile makes an empty file of mode 0600 whatever the umask; an existing one is kept.
Status CreateFile(const std::string& path, const std::string& state_dir) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (file < 0 && errno == EEXIST) return Ok();
  const bool done = file >= 0 && fchmod(file, 0600) == 0;
  const int error_number = errno;
  if (file >= 0) close(file);
  if (done) return Ok();
  const bool full = error_number == ENOSPC || error_number == EDQUOT;
  const bool read_only = error_number == EROFS || error_number == EACCES || error_number == EPERM;
  return ErrnoError(full        ? ErrorCode::kStoreFull
                    : read_only ? ErrorCode::kStoreReadOnly
                                : ErrorCode::kStoreUnavailable,
                    Action::kCheckSystemState, fmt::format("{} cannot be created", path),
                    full ? fmt::format("free space or inodes on the disk of {}: 'df' and 'df -i' "
                                       "tell which",
                                       state_dir)
                         : fmt::format("check the permissions of {}", state_dir),
                    error_number);
}

Status SyncFolder(const std::string& folder) {
  const int file = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool done = file >= 0 && fsync(file) == 0;
  const int error_number = errno;
  if (file >= 0) close(file);
  if (done) return Ok();
  return ErrnoError(ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
                    fmt::format("{} cannot be synced", folder),
                    "look for disk errors in the kernel's log", error_number);
}

}  // namespace

SqliteStore::Impl::~Impl() {
  sqlite3* handle = connection.handle();
  sqlite3_wal_hook(handle, nullptr, nullptr);
  if (std::int64_t{wal_pages} * kPageBytes <= options.checkpoint_wal_bytes) return;
  // It waits for nobody: readers leave the work to the next process.
  sqlite3_busy_timeout(handle, 0);
  int in_log = 0;
  int folded = 0;
  sqlite3_wal_checkpoint_v2(handle, nullptr, SQLITE_CHECKPOINT_PASSIVE, &in_log, &folded);
  if (in_log < 0 || in_log != folded) return;
  // A write that changes nothing begins the log anew, else whoever opens next reads all of it. The
  // file keeps its length: a commit into blocks that are there is synced in a quarter of the time
  // of one that makes the file grow, which is why SQLITE_CHECKPOINT_TRUNCATE is not used.
  Transaction transaction(connection);
  if (!transaction.BeginImmediate()) return;
  // What is there, and not kSchemaVersion: a newer keyescrow may have upgraded the store meanwhile.
  const auto version = ReadSchemaVersion(connection);
  if (!version) return;
  if (connection.Execute(fmt::format("PRAGMA user_version = {}", *version).c_str())) {
    static_cast<void>(transaction.Commit());
  }
}

SqliteStore::SqliteStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SqliteStore::~SqliteStore() = default;

Result<std::unique_ptr<SqliteStore>> SqliteStore::Create(const std::string& state_dir,
                                                         const SqliteOptions& options) {
  RETURN_IF_ERROR(CheckStateFolder(state_dir));
  ASSIGN_OR_RETURN(const std::string path, StorePath(state_dir));
  RETURN_IF_ERROR(CreateFile(path, state_dir));
  ASSIGN_OR_RETURN(sqlite3 * handle, OpenHandle(path, options));
  auto impl = std::make_unique<Impl>(handle, path, options);
  ASSIGN_OR_RETURN(const int version, ReadSchemaVersion(impl->connection));
  if (version == 0) {
    // The page size must come first; the mode is kept in the file.
    RETURN_IF_ERROR(impl->connection.Execute("PRAGMA page_size = 16384"));
    RETURN_IF_ERROR(impl->connection.Execute("PRAGMA application_id = 0x4b455343"));  // KESC
    RETURN_IF_ERROR(impl->connection.Execute("PRAGMA journal_mode = WAL"));
  }
  RETURN_IF_ERROR(Migrate(impl->connection, path));
  impl.reset();
  RETURN_IF_ERROR(SyncFolder(state_dir));
  ASSIGN_OR_RETURN(auto store, Open(state_dir, options));
  ASSIGN_OR_RETURN(const LogHead head, store->Head());
  if (head.size != 0) {
    return Error(ErrorCode::kAlreadyInitialized, Action::kFixInput,
                 fmt::format("{} holds a store with {} log entries", state_dir, head.size),
                 "use it, or move the folder away; where its agent.json was lost, put that back "
                 "from a copy");
  }
  return store;
}

Result<std::unique_ptr<SqliteStore>> SqliteStore::Open(const std::string& state_dir,
                                                       const SqliteOptions& options) {
  RETURN_IF_ERROR(CheckStateFolder(state_dir));
  ASSIGN_OR_RETURN(const std::string path, StorePath(state_dir));
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return NotInitialized(state_dir);
    return ErrnoError(ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
                      fmt::format("{} cannot be opened", path),
                      "check the state folder's owner and permissions", errno);
  }
  if (info.st_size == 0) return NotInitialized(state_dir);  // an init that was killed
  ASSIGN_OR_RETURN(sqlite3 * handle, OpenHandle(path, options));
  auto impl = std::make_unique<Impl>(handle, path, options);
  RETURN_IF_ERROR(Migrate(impl->connection, path));
  RETURN_IF_ERROR(impl->connection.Execute("PRAGMA synchronous = FULL"));
  // The CHECKs hold whoever else writes; what is written here has those sizes by its types (and see
  // Write). Each calls length(), and a function may fail its statement alone: see PutEnvelope.
  RETURN_IF_ERROR(impl->connection.Execute("PRAGMA ignore_check_constraints = ON"));
  sqlite3_wal_hook(handle, AfterCommit, &impl->wal_pages);
  return std::unique_ptr<SqliteStore>(new SqliteStore(std::move(impl)));
}

Status SqliteStore::CheckWritable() {
  struct statvfs disk {};
  if (statvfs(impl_->path.c_str(), &disk) == 0) {
    if ((disk.f_flag & ST_RDONLY) != 0) {
      return Error(ErrorCode::kStoreReadOnly, Action::kCheckSystemState,
                   fmt::format("{} lies on a read-only file system", impl_->path),
                   "mount the state's file system read-write");
    }
    if (disk.f_bavail * disk.f_frsize < kMinFreeBytes) {
      return Error(ErrorCode::kStoreFull, Action::kCheckSystemState,
                   fmt::format("the disk under {} is full", impl_->path),
                   "free space on the disk under the state folder");
    }
  }
  if (sqlite3_db_readonly(impl_->connection.handle(), "main") == 1) {
    return Error(ErrorCode::kStoreReadOnly, Action::kCheckSystemState,
                 fmt::format("{} cannot be written", impl_->path),
                 fmt::format("chmod u+w '{}', or run as its owner", impl_->path));
  }
  Transaction transaction(impl_->connection);
  return transaction.BeginImmediate();
}

}  // namespace keyescrow::agent::store
