#include "agent/key_locations/crash_safe_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <utility>

#include "agent/key_locations/destination_errors.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {
namespace {

constexpr char kTemporarySuffix[] = ".keyescrow-tmp";
constexpr char kAccessList[] = "system.posix_acl_access";
constexpr std::size_t kMarkBytes = 4096;    // of a document, in which its mark is looked for
constexpr std::size_t kMaxNameBytes = 255;  // NAME_MAX of every file system in use

// LockFolder waits for the other writers in the folder; false where somebody else keeps the lock,
// which anybody can who may read the folder. A file system without locks (some network ones) gives
// none; O_EXCL and the rename still keep each file whole.
bool LockFolder(int folder_fd) {
  constexpr int kNumTries = 500;
  constexpr timespec kPause{0, 20'000'000};
  for (int i = 0; i < kNumTries; ++i) {
    if (flock(folder_fd, LOCK_EX | LOCK_NB) == 0) return true;
    if (errno != EWOULDBLOCK && errno != EINTR) return true;
    nanosleep(&kPause, nullptr);
  }
  return false;
}

Error FolderLocked(const std::string& folder) {
  return Error(ErrorCode::kDestinationUnwritable, Action::kRetry,
               "another process has locked the folder " + folder + " for 10 seconds",
               "wait until it is done, and look with 'fuser -v " + folder + "' if it never is");
}

Status WriteWhole(int fd, ByteView bytes) {
  while (!bytes.empty()) {
    const ssize_t count = write(fd, bytes.data(), bytes.size());
    if (count < 0) {
      if (errno == EINTR) continue;
      return Error(ErrorCode::kDestinationUnwritable, Action::kCheckSystemState, "", "")
          .WithNative("errno", static_cast<std::uint64_t>(errno));
    }
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return Ok();
}

// RenameKeeping renames unless the new name is taken: 0 or an errno.
int RenameKeeping(int folder_fd, const char* from, const char* to) {
  if (renameat2(folder_fd, from, folder_fd, to, RENAME_NOREPLACE) == 0) return 0;
  // EPERM: a container's filter that does not know the call.
  if (errno != EINVAL && errno != ENOSYS && errno != EPERM) return errno;
  // The file system has no RENAME_NOREPLACE; a hard link refuses to replace as well.
  if (linkat(folder_fd, from, folder_fd, to, 0) == 0) {
    return unlinkat(folder_fd, from, 0) == 0 ? 0 : errno;
  }
  if (errno != EPERM && errno != ENOTSUP && errno != ENOSYS) return errno;
  // Nor hard links, as some network ones: an empty file takes the name, which no other can then.
  const int taken =
      openat(folder_fd, to, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (taken < 0) return errno;
  close(taken);
  if (renameat(folder_fd, from, folder_fd, to) == 0) return 0;
  const int failed = errno;
  unlinkat(folder_fd, to, 0);
  return failed;
}

// SyncFolder: a file system that cannot sync a folder says EINVAL; its server does as it does.
bool SyncFolder(int folder_fd) { return fsync(folder_fd) == 0 || errno == EINVAL; }

// ChangeMode: a file system without modes may refuse; a file that nobody else has more rights to
// than `mode` gives is well then.
bool ChangeMode(int fd, mode_t mode) {
  if (fchmod(fd, mode) == 0) return true;
  const int refused = errno;
  if (refused != EPERM && refused != ENOTSUP && refused != ENOSYS) return false;
  struct stat made {};
  if (fstat(fd, &made) == 0 && (made.st_mode & 077 & ~mode) == 0) return true;
  errno = refused;
  return false;
}

Error Taken(const std::string& path) {
  return Error(ErrorCode::kAlreadyExists, Action::kFixInput, path + " is already there",
               "choose another name, or move the file away");
}

// TemporaryName: `place` 0 is for who holds the folder's lock, 1 to kNumOtherPlaces are for those
// who do not.
constexpr int kNumOtherPlaces = 3;
std::string TemporaryName(const std::string& name, int place = 0) {
  const std::size_t room = kMaxNameBytes - sizeof kTemporarySuffix - 1;
  const std::string number = place == 0 ? "" : std::to_string(place);
  return "." + name.substr(0, room) + kTemporarySuffix + number;
}

// RemoveIfDead removes another place's file unless its writer lives, who holds a lock on it.
void RemoveIfDead(int folder_fd, const std::string& name) {
  const int fd = openat(folder_fd, name.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return;
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) unlinkat(folder_fd, name.c_str(), 0);
  close(fd);
}

int MakeFile(int folder_fd, const std::string& name) {
  return openat(folder_fd, name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                0600);
}

bool SameFile(const struct stat& left, const struct stat& right) {
  return left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

bool SameVersion(const struct stat& left, const struct stat& right) {
  return SameFile(left, right) && left.st_size == right.st_size &&
         left.st_mtim.tv_sec == right.st_mtim.tv_sec &&
         left.st_mtim.tv_nsec == right.st_mtim.tv_nsec;
}

}  // namespace

std::vector<std::string> LeftBeside(const std::string& path) {
  const std::size_t name = path.rfind('/') + 1;  // 0 where there is no folder
  std::vector<std::string> left;
  for (int place = 0; place <= kNumOtherPlaces; ++place) {
    std::string file = path.substr(0, name) + TemporaryName(path.substr(name), place);
    struct stat status {};
    if (lstat(file.c_str(), &status) == 0) left.push_back(std::move(file));
  }
  return left;
}

FileReplacement::FileReplacement(std::string path, std::string folder, std::string name,
                                 int folder_fd)
    : path_(std::move(path)),
      folder_(std::move(folder)),
      name_(std::move(name)),
      folder_fd_(folder_fd) {}

FileReplacement::FileReplacement(FileReplacement&& other) noexcept
    : path_(std::move(other.path_)),
      folder_(std::move(other.folder_)),
      name_(std::move(other.name_)),
      temporary_(std::exchange(other.temporary_, {})),
      folder_fd_(std::exchange(other.folder_fd_, -1)),
      fd_(std::exchange(other.fd_, -1)),
      locked_(other.locked_),
      synced_(other.synced_),
      seen_(other.seen_) {}

FileReplacement::~FileReplacement() {
  if (!temporary_.empty()) unlinkat(folder_fd_, temporary_.c_str(), 0);
  if (fd_ >= 0) close(fd_);
  if (folder_fd_ >= 0) close(folder_fd_);  // the last descriptor releases the lock
}

Error FileReplacement::SystemError(const char* step, int error_number) const {
  return DestinationError(step, path_, folder_, error_number);
}

Result<FileReplacement> FileReplacement::Open(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  if (name.empty() || name == "." || name == "..") {
    return Error(ErrorCode::kDestinationIsFolder, Action::kFixInput,
                 "'" + path + "' names a folder", "name the file inside it");
  }
  const int folder_fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_fd < 0) {
    const int error_number = errno;
    return ErrnoError(ErrorCode::kDestinationUnwritable, Action::kCheckSystemState,
                      "cannot open the folder " + folder + " of " + path,
                      error_number == ENOENT ? "make it with 'mkdir -p " + folder + "'"
                                             : "check its path and permissions",
                      error_number);
  }
  FileReplacement replacement(path, std::move(folder), std::move(name), folder_fd);
  replacement.locked_ = LockFolder(folder_fd);
  return replacement;
}

Result<FileReplacement> FileReplacement::Beside(const std::string& suffix) const {
  // A duplicate shares the lock; a second open() would wait for it for ever.
  const int folder_fd = fcntl(folder_fd_, F_DUPFD_CLOEXEC, 0);
  if (folder_fd < 0) return SystemError("open the folder of", errno);
  FileReplacement beside(path_ + suffix, folder_, name_ + suffix, folder_fd);
  beside.locked_ = locked_;
  return beside;
}

Status FileReplacement::RemoveExisting() const {
  if (unlinkat(folder_fd_, name_.c_str(), 0) != 0 && errno != ENOENT) {
    return SystemError("remove", errno);
  }
  if (!SyncFolder(folder_fd_)) return SystemError("sync the folder of", errno);
  return Ok();
}

Result<bool> FileReplacement::Inspect(struct stat* found) const {
  if (fstatat(folder_fd_, name_.c_str(), found, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return false;
    return SystemError("look at", errno);
  }
  if (S_ISREG(found->st_mode)) {
    seen_ = *found;
    return true;
  }
  if (S_ISDIR(found->st_mode)) {
    return Error(ErrorCode::kDestinationIsFolder, Action::kFixInput, path_ + " is a folder",
                 "name the file inside it");
  }
  if (S_ISLNK(found->st_mode)) {
    return Error(ErrorCode::kDestinationIsSymlink, Action::kFixInput,
                 path_ + " is a symbolic link, which is never followed",
                 "name the file that it points to: 'readlink -f " + path_ + "' shows it");
  }
  return Error(ErrorCode::kDestinationNotRegular, Action::kFixInput,
               path_ + " is a device, pipe or socket",
               "name a regular file; 'exec:cat > " + path_ + "' writes to a device or pipe");
}

Result<int> FileReplacement::OpenExisting() const {
  const int fd = openat(folder_fd_, name_.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return SystemError("read what stands at", errno);
  return fd;
}

Status FileReplacement::Stage(ByteView bytes) {
  RETURN_IF_ERROR(locked_ ? MakeLocked() : MakeUnlocked());
  if (!ChangeMode(fd_, 0600)) return SystemError("set the mode of", errno);  // whatever the umask
  return StageMore(bytes);
}

Status FileReplacement::MakeLocked() {
  std::string temporary = TemporaryName(name_);
  // Under the lock, a file of that name is what a killed writer left.
  // (Of a read-only file system that answer tells nothing of the name: making one is refused next.)
  if (unlinkat(folder_fd_, temporary.c_str(), 0) != 0 && errno != ENOENT && errno != EROFS) {
    return SystemError("remove what an interrupted write left beside", errno);
  }
  for (int place = 1; place <= kNumOtherPlaces; ++place) {
    RemoveIfDead(folder_fd_, TemporaryName(name_, place));
  }
  fd_ = MakeFile(folder_fd_, temporary);
  if (fd_ < 0) return SystemError("make a file beside", errno);
  temporary_ = std::move(temporary);
  return Ok();
}

Status FileReplacement::MakeUnlocked() {
  for (int place = 1; place <= kNumOtherPlaces; ++place) {
    std::string temporary = TemporaryName(name_, place);
    RemoveIfDead(folder_fd_, temporary);
    const int fd = MakeFile(folder_fd_, temporary);
    if (fd < 0 && errno != EEXIST) return SystemError("make a file beside", errno);
    if (fd < 0) continue;
    struct stat made {};
    // Who locks it first owns it, or removes it for dead.
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &made) == 0 && made.st_nlink == 1) {
      fd_ = fd;
      temporary_ = std::move(temporary);
      return Ok();
    }
    close(fd);
  }
  return FolderLocked(folder_);
}

Status FileReplacement::StageMore(ByteView bytes) {
  if (auto status = WriteWhole(fd_, bytes); !status) {
    return SystemError("write", static_cast<int>(status.error().native_code()));
  }
  synced_ = false;
  return Ok();
}

Status FileReplacement::Sync() {
  if (!synced_ && fsync(fd_) != 0) return SystemError("sync", errno);
  synced_ = true;
  return Ok();
}

Status FileReplacement::CopyAccess(int existing_fd) {
  struct stat existing {};
  struct stat staged {};
  if (fstat(existing_fd, &existing) != 0 || fstat(fd_, &staged) != 0) {
    return SystemError("read the owner and mode of", errno);
  }
  const bool same_owner = existing.st_uid == staged.st_uid && existing.st_gid == staged.st_gid;
  if (!same_owner && fchown(fd_, existing.st_uid, existing.st_gid) != 0) {
    return SystemError("keep the owner of", errno)
        .WithHint("run as root or as the file's owner, or remove the file first");
  }
  std::array<std::uint8_t, 4096> list{};
  const ssize_t list_size = fgetxattr(existing_fd, kAccessList, list.data(), list.size());
  if (list_size > 0) {
    // The list holds the mode as well. Until here the file is 0600.
    if (fsetxattr(fd_, kAccessList, list.data(), static_cast<std::size_t>(list_size), 0) != 0) {
      return SystemError("keep the access list of", errno);
    }
    synced_ = false;
    return Ok();
  }
  if (list_size < 0 && errno != ENODATA && errno != ENOTSUP) {
    return SystemError("read the access list of", errno);
  }
  // Who read the old file shall read the new one: here less than its mode is not enough.
  const mode_t mode = existing.st_mode & 07777;
  if (fchmod(fd_, mode) != 0 && (staged.st_mode & 07777) != mode) {
    return SystemError("keep the mode of", errno)
        .WithHint("its file system changes no modes: remove the file first, and see who reads it");
  }
  synced_ = false;
  return Ok();
}

Status FileReplacement::SetMode(mode_t mode) {
  if (!ChangeMode(fd_, mode)) return SystemError("set the mode of", errno);
  synced_ = false;
  return Ok();
}

Status FileReplacement::Publish(Existing existing) {
  RETURN_IF_ERROR(Sync());
  struct stat staged {};
  if (fstat(fd_, &staged) != 0) return SystemError("look at the new file for", errno);
  // close(2) is where some network file systems tell of a full disk.
  if (close(std::exchange(fd_, -1)) != 0) return SystemError("close", errno);
  int error_number = 0;
  if (existing == Existing::kKeep) {
    error_number = RenameKeeping(folder_fd_, temporary_.c_str(), name_.c_str());
    if (error_number == EEXIST) return Taken(path_);
  } else if (!locked_) {
    RETURN_IF_ERROR(Exchange(staged));
  } else if (renameat(folder_fd_, temporary_.c_str(), folder_fd_, name_.c_str()) != 0) {
    error_number = errno;
  }
  if (error_number != 0) return SystemError("rename the new file to", error_number);
  temporary_.clear();
  if (!SyncFolder(folder_fd_)) {
    return SystemError("sync the folder of", errno)
        .WithHint(path_ +
                  " is there, and may be lost in a power cut: look for errors in the kernel's log, "
                  "or choose another destination");
  }
  return Ok();
}

Status FileReplacement::Exchange(const struct stat& staged) {
  const auto exchange = [this] {
    return renameat2(folder_fd_, temporary_.c_str(), folder_fd_, name_.c_str(), RENAME_EXCHANGE);
  };
  if (exchange() != 0) {
    if (errno == EINVAL || errno == ENOSYS) return FolderLocked(folder_);
    return SystemError("rename the new file to", errno);
  }
  struct stat out {};
  const bool expected = fstatat(folder_fd_, temporary_.c_str(), &out, AT_SYMLINK_NOFOLLOW) == 0 &&
                        seen_ && SameVersion(out, *seen_);
  if (expected) {
    if (unlinkat(folder_fd_, temporary_.c_str(), 0) != 0) {
      return SystemError("remove the old file of", errno);
    }
    return Ok();
  }
  // Another program wrote there meanwhile: what it wrote goes back.
  const bool back = exchange() == 0;
  if (!back || fstatat(folder_fd_, temporary_.c_str(), &out, AT_SYMLINK_NOFOLLOW) != 0 ||
      !SameFile(out, staged)) {
    temporary_.clear();  // not ours, and perhaps somebody's only copy: it stays
  }
  return Error(ErrorCode::kDestinationOtherKey, Action::kRetry,
               path_ + " was written by another program in this moment",
               "look what writes there, then run the command again");
}

Status FileReplacement::SyncExisting(int existing_fd) const {
  const auto failed = [](int fd) { return fsync(fd) != 0 && errno != EROFS && errno != EINVAL; };
  if (failed(existing_fd) || failed(folder_fd_)) return SystemError("sync", errno);
  return Ok();
}

namespace {

// Prepare stages `bytes` with the access that the name has, or is to have.
Result<FileReplacement::Existing> Prepare(FileReplacement& replacement, ByteView bytes,
                                          const DurableWriteOptions& options) {
  struct stat found {};
  ASSIGN_OR_RETURN(const bool exists, replacement.Inspect(&found));
  if (exists && options.exclusive) return Taken(replacement.path());
  if (options.may_write) RETURN_IF_ERROR(options.may_write());
  RETURN_IF_ERROR(replacement.Stage(bytes));
  if (exists) {
    ASSIGN_OR_RETURN(const int existing_fd, replacement.OpenExisting());
    const Status copied = replacement.CopyAccess(existing_fd);
    close(existing_fd);
    RETURN_IF_ERROR(copied);
  } else {
    RETURN_IF_ERROR(replacement.SetMode(options.mode));
  }
  return exists ? FileReplacement::Existing::kReplace : FileReplacement::Existing::kKeep;
}

}  // namespace

Status WriteFileDurably(const std::string& path, ByteView bytes,
                        const DurableWriteOptions& options) {
  ASSIGN_OR_RETURN(FileReplacement replacement, FileReplacement::Open(path));
  ASSIGN_OR_RETURN(const auto existing, Prepare(replacement, bytes, options));
  return replacement.Publish(existing);
}

Error DocumentPlaceTaken(const std::string& path, std::string_view what) {
  return Error(ErrorCode::kDestinationOtherKey, Action::kFixInput,
               path + " holds something else than " + std::string(what) + ", and was left alone",
               "name another file, or move that one away first");
}

Status CheckDocumentPlace(const std::string& path, std::string_view what,
                          std::initializer_list<std::string_view> marks) {
  const int fd = open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) return Ok();
  struct stat found {};
  const bool is_file = fstat(fd, &found) == 0 && S_ISREG(found.st_mode) && found.st_size > 0;
  auto start = SecretBytes::Allocate(kMarkBytes);  // it may be a key
  const ssize_t count =
      is_file && start ? pread(fd, start->ExposeMutable().data(), start->size(), 0) : 0;
  close(fd);
  if (!start) return std::move(start).error();
  if (count <= 0) return Ok();
  const std::string_view text = AsText(start->Expose()).substr(0, static_cast<std::size_t>(count));
  const bool is_ours = std::any_of(marks.begin(), marks.end(), [&](std::string_view mark) {
    return text.find(mark) != std::string_view::npos;
  });
  if (is_ours) return Ok();
  return DocumentPlaceTaken(path, what);
}

Status WritePairDurably(const std::string& path, ByteView bytes, const std::string& suffix,
                        ByteView companion_bytes, const DurableWriteOptions& options) {
  ASSIGN_OR_RETURN(FileReplacement file, FileReplacement::Open(path));
  ASSIGN_OR_RETURN(const auto existing, Prepare(file, bytes, options));
  ASSIGN_OR_RETURN(FileReplacement companion, file.Beside(suffix));
  ASSIGN_OR_RETURN(const auto existing_companion, Prepare(companion, companion_bytes, options));
  RETURN_IF_ERROR(file.Sync());
  RETURN_IF_ERROR(companion.Sync());
  if (existing_companion == FileReplacement::Existing::kReplace) {
    RETURN_IF_ERROR(companion.RemoveExisting());
  }
  RETURN_IF_ERROR(file.Publish(existing));
  return companion.Publish(FileReplacement::Existing::kKeep);
}

Status AppendLineDurably(const std::string& path, std::string_view line) {
  const int fd = open(path.c_str(), O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC);
  int error_number = fd < 0 ? errno : 0;
  if (error_number == 0) {
    const std::string text = std::string(line) + "\n";
    struct stat before {};
    if (fstat(fd, &before) != 0) {
      error_number = errno;
    } else {
      if (auto written = WriteWhole(fd, AsBytes(text)); !written) {
        error_number = static_cast<int>(written.error().native_code());
      } else if (fdatasync(fd) != 0) {
        error_number = errno;
      }
      // Half a line would be one with the next, and nobody could read either.
      if (error_number != 0 && ftruncate(fd, before.st_size) != 0) error_number = errno;
    }
    close(fd);
  }
  if (error_number == 0) return Ok();
  const bool full = error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG;
  return ErrnoError(full ? ErrorCode::kDestinationFull : ErrorCode::kDestinationUnwritable,
                    Action::kCheckSystemState, "cannot add a line to " + path,
                    full ? "free some space" : "check the file's permissions", error_number);
}

}  // namespace keyescrow::agent
