#include "agent/key_locations/destination_errors.h"

#include <cerrno>
#include <utility>

namespace keyescrow::agent {
namespace {

// Remedy: what to do about a system call that failed at a destination in `folder`.
std::string Remedy(const std::string& folder, int error_number) {
  switch (error_number) {
    case EROFS: return "the file system is read-only: remount it, or choose another destination";
    case ENAMETOOLONG: return "choose a shorter name";
    case EINVAL:
      return "the file system of " + folder +
             " takes no such name or request: choose another name, or another destination";
    case ENOTSUP:
    case ENOSYS:
      return "the file system of " + folder +
             " lacks what keeps a file whole: choose a destination on another one, and copy the "
             "file from there";
    case EIO:
    case ENXIO:
    case ENODEV:
    case ESTALE:
    case ETIMEDOUT:
    case ENOTCONN:
      return "look for errors of the disk or the network in the kernel's log, or choose another "
             "destination";
    default:
      return "check the permissions of the folder " + folder + ", or choose another destination";
  }
}

}  // namespace

Error DestinationError(const char* step, const std::string& path, const std::string& folder,
                       int error_number) {
  if (error_number == ENOSPC || error_number == EDQUOT) {
    return ErrnoError(ErrorCode::kDestinationFull, Action::kCheckSystemState,
                      std::string("cannot ") + step + " " + path,
                      "free some space in " + folder +
                          ", or inodes ('df -i'), or choose another destination; nothing was "
                          "written",
                      error_number);
  }
  if (error_number == EFBIG) {
    return ErrnoError(ErrorCode::kDestinationFull, Action::kCheckSystemState,
                      std::string("cannot ") + step + " " + path,
                      "raise the limit on the size of files (ulimit -f, a service's LimitFSIZE=); "
                      "nothing was written",
                      error_number);
  }
  return ErrnoError(ErrorCode::kDestinationUnwritable, Action::kCheckSystemState,
                    std::string("cannot ") + step + " " + path, Remedy(folder, error_number),
                    error_number);
}

}  // namespace keyescrow::agent
