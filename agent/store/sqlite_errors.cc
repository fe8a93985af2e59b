#include "agent/store/sqlite_errors.h"

#include <fmt/core.h>
#include <sqlite3.h>

#include <cerrno>
#include <cstring>

namespace keyescrow::agent::store {
namespace {

struct Row {
  int code;  // extended or primary; the first that matches counts
  ErrorCode error;
  Action action;
  std::string_view message;
  std::string_view hint;
};

constexpr std::string_view kFullHint = "free space on the disk under the state folder";
constexpr std::string_view kReadOnlyHint =
    "mount the state's file system read-write, or run as the owner of the state folder";
constexpr std::string_view kBusyHint =
    "wait for the other keyescrow process, or end it; where there is none, the state's file system "
    "has no locks (nfs without lockd): put the state folder on a local one";
constexpr std::string_view kDamagedHint =
    "keep the file, restore keys from their .escrow files, and run verify on a copy of the store";
constexpr std::string_view kIoHint = "look for disk errors in the kernel's log";

constexpr Row kRows[] = {
    {SQLITE_CONSTRAINT_PRIMARYKEY, ErrorCode::kAlreadyExists, Action::kFixInput,
     "the store has such a row already", "use another name, version or revision"},
    {SQLITE_CONSTRAINT_UNIQUE, ErrorCode::kAlreadyExists, Action::kFixInput,
     "the store has such a row already", "use another name, version or revision"},
    {SQLITE_CONSTRAINT_TRIGGER, ErrorCode::kAlreadyExists, Action::kFixInput,
     "the store does not rewrite history", "use another name, version or revision"},
    {SQLITE_CONSTRAINT_FOREIGNKEY, ErrorCode::kInternal, Action::kReportBug,
     "a row names a log entry that is not there", "report this"},
    {SQLITE_CONSTRAINT, ErrorCode::kInternal, Action::kReportBug,
     "a row breaks a rule of the schema", "report this"},
    {SQLITE_READONLY_DBMOVED, ErrorCode::kStoreUnavailable, Action::kRetry,
     "the store's file was moved while it was open", "run the command again"},
    {SQLITE_READONLY, ErrorCode::kStoreReadOnly, Action::kCheckSystemState,
     "the store cannot be written", kReadOnlyHint},
    {SQLITE_FULL, ErrorCode::kStoreFull, Action::kCheckSystemState,
     "the disk under the store is full", kFullHint},
    {SQLITE_BUSY, ErrorCode::kStoreBusy, Action::kRetry, "another process holds the store",
     kBusyHint},
    {SQLITE_LOCKED, ErrorCode::kStoreBusy, Action::kRetry, "another process holds the store",
     kBusyHint},
    {SQLITE_PROTOCOL, ErrorCode::kStoreBusy, Action::kRetry, "another process holds the store",
     kBusyHint},
    {SQLITE_CORRUPT, ErrorCode::kStoreDamaged, Action::kCallOperator, "the store is damaged",
     kDamagedHint},
    {SQLITE_NOTADB, ErrorCode::kStoreDamaged, Action::kCallOperator,
     "the store's file is not a database", kDamagedHint},
    {SQLITE_FORMAT, ErrorCode::kStoreDamaged, Action::kCallOperator, "the store is damaged",
     kDamagedHint},
    {SQLITE_IOERR_NOMEM, ErrorCode::kOutOfMemory, Action::kCheckSystemState,
     "not enough memory for the store", "free memory and run the command again"},
    {SQLITE_NOMEM, ErrorCode::kOutOfMemory, Action::kCheckSystemState,
     "not enough memory for the store", "free memory and run the command again"},
    {SQLITE_IOERR, ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
     "reading or writing the store failed", kIoHint},
    {SQLITE_CANTOPEN_SYMLINK, ErrorCode::kStatePermissions, Action::kCheckSystemState,
     "the store's file is a symbolic link", "put the file itself into the state folder"},
    {SQLITE_CANTOPEN, ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
     "the store cannot be opened", "check the state folder's owner and permissions"},
    {SQLITE_PERM, ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
     "the store cannot be opened", "check the state folder's owner and permissions"},
    {SQLITE_AUTH, ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
     "the store cannot be opened", "check the state folder's owner and permissions"},
    {SQLITE_NOLFS, ErrorCode::kStoreFull, Action::kCheckSystemState,
     "the store is too large for its file system", "move the state folder to another file system"},
    {SQLITE_TOOBIG, ErrorCode::kStoreDamaged, Action::kCallOperator,
     "the store has a row that is larger than any that is written", kDamagedHint},
    {SQLITE_INTERRUPT, ErrorCode::kStoreDamaged, Action::kCallOperator,
     "the store's pages lead to more rows than it can hold", kDamagedHint},
};

// The cause that SQLite's own code hides, where the system call's says it.
const Row* FromErrno(int primary, int system_errno) {
  static constexpr Row kFull = {0, ErrorCode::kStoreFull, Action::kCheckSystemState,
                                "the disk under the store is full", kFullHint};
  static constexpr Row kTooLarge = {
      0, ErrorCode::kStoreFull, Action::kCheckSystemState, "the store may not grow",
      "raise the limit on the size of files (ulimit -f, a service's LimitFSIZE=)"};
  static constexpr Row kLacking = {
      0, ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
      "the state's file system lacks the locks or the shared memory that the store needs",
      "put the state folder on a local file system (ext4, xfs, btrfs)"};
  static constexpr Row kReadOnly = {0, ErrorCode::kStoreReadOnly, Action::kCheckSystemState,
                                    "the store cannot be written", kReadOnlyHint};
  static constexpr Row kNoDescriptor = {
      0, ErrorCode::kStoreUnavailable, Action::kCheckSystemState, "the store cannot be opened",
      "raise the limit on open files (ulimit -n, a service's LimitNOFILE=)"};
  if (primary != SQLITE_IOERR && primary != SQLITE_CANTOPEN) return nullptr;
  switch (system_errno) {
    case ENOSPC:
    case EDQUOT: return &kFull;
    case EFBIG: return &kTooLarge;
    case ENODEV:
    case ENOSYS:
    case EOPNOTSUPP: return &kLacking;
    case EROFS:
    case EACCES:
    case EPERM: return &kReadOnly;
    case EMFILE:
    case ENFILE: return &kNoDescriptor;
    default: return nullptr;
  }
}

}  // namespace

Error SqliteError(int extended_code, int system_errno, std::string_view message) {
  const int primary = extended_code & 0xFF;
  const Row* found = FromErrno(primary, system_errno);
  for (const Row& row : kRows) {
    if (found != nullptr) break;
    if (row.code == extended_code || row.code == primary) found = &row;
  }
  std::string text;
  std::string detail(message);
  if (system_errno != 0) detail += fmt::format("; {}", std::strerror(system_errno));
  if (found == nullptr) {
    return Error(ErrorCode::kStoreUnavailable, Action::kCallOperator,
                 fmt::format("the store failed with code 0x{:x} ({})", extended_code, detail),
                 "look the code up in sqlite3.h and check the disk")
        .WithNative("SQLITE", static_cast<std::uint64_t>(extended_code));
  }
  return Error(found->error, found->action, fmt::format("{} ({})", found->message, detail),
               std::string(found->hint))
      .WithNative("SQLITE", static_cast<std::uint64_t>(extended_code));
}

}  // namespace keyescrow::agent::store
