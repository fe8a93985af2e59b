#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "agent/store/sqlite_store.h"

namespace keyescrow::agent::store {
namespace {

constexpr mode_t kOthers = S_IRWXG | S_IRWXO;

Status CheckOwnerAndMode(const std::string& path, const struct stat& info, const char* mode) {
  if (info.st_uid != 0 && info.st_uid != geteuid()) {
    return Error(
        ErrorCode::kStatePermissions, Action::kCheckSystemState,
        fmt::format("{} belongs to uid {}, neither us nor root", path, info.st_uid),
        fmt::format("find out who wrote it; if it is ours: chown {} '{}'", geteuid(), path));
  }
  if ((info.st_mode & kOthers) != 0) {
    return Error(ErrorCode::kStatePermissions, Action::kCheckSystemState,
                 fmt::format("{} can be read or written by others (mode {:04o})", path,
                             static_cast<unsigned>(info.st_mode & 07777)),
                 fmt::format("chmod {} '{}'; where that changes nothing, its file system keeps no "
                             "modes (vfat, exfat, cifs): put the state folder on another",
                             mode, path));
  }
  return Ok();
}

Error StatError(const std::string& path, int error_number) {
  return ErrnoError(ErrorCode::kStatePermissions, Action::kCheckSystemState,
                    fmt::format("{} cannot be examined", path),
                    "run as the owner of the state folder, or as root", error_number);
}

}  // namespace

Status CheckPrivateFile(const std::string& path) {
  struct stat info {};
  if (lstat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) {
      return Error(ErrorCode::kNotFound, Action::kCheckSystemState,
                   fmt::format("{} is not there", path), "put it back from a copy");
    }
    return StatError(path, errno);
  }
  if (!S_ISREG(info.st_mode)) {
    return Error(ErrorCode::kStatePermissions, Action::kCheckSystemState,
                 fmt::format("{} is not a regular file", path),
                 "put the file itself into the state folder");
  }
  return CheckOwnerAndMode(path, info, "600");
}

Status CheckStateFolder(const std::string& state_dir) {
  struct stat info {};
  if (stat(state_dir.c_str(), &info) != 0) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return Error(ErrorCode::kNotInitialized, Action::kFixInput,
                   fmt::format("there is no state in {}", state_dir), "run keyescrow init");
    }
    return StatError(state_dir, errno);
  }
  if (!S_ISDIR(info.st_mode)) {
    return Error(ErrorCode::kStatePermissions, Action::kCheckSystemState,
                 fmt::format("{} is not a folder", state_dir),
                 "name the state folder with --state");
  }
  RETURN_IF_ERROR(CheckOwnerAndMode(state_dir, info, "700"));
  for (const char* suffix : {"", "-wal", "-shm"}) {
    const auto status = CheckPrivateFile(fmt::format("{}/{}{}", state_dir, kStoreFileName, suffix));
    if (!status && status.error().code() != ErrorCode::kNotFound) return status.error();
  }
  return Ok();
}

}  // namespace keyescrow::agent::store
