#include "agent/key_locations/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>

#include "agent/key_locations/stream.h"

namespace keyescrow::agent {
namespace {

Error Unsafe(std::string message, std::string hint) {
  return Error(ErrorCode::kSecretFileUnsafe, Action::kFixInput, std::move(message),
               std::move(hint));
}

// ListOpensToUsAlone reads a POSIX access list: where there is one, the mode's group bits are its
// mask, not the group's rights. systemd gives a unit's user its credentials in this way.
// Source: Linux, include/uapi/linux/posix_acl_xattr.h: version 2, then 8-byte entries,
// little-endian.
bool ListOpensToUsAlone(int fd) {
  constexpr std::uint16_t kUser = 0x02, kGroupObject = 0x04, kGroup = 0x08, kOther = 0x20;
  std::array<std::uint8_t, 1024> list{};
  const ssize_t size = fgetxattr(fd, "system.posix_acl_access", list.data(), list.size());
  if (size < 4 || (size - 4) % 8 != 0) return false;
  const auto number = [&](std::size_t at, std::size_t num_bytes) {
    std::uint32_t value = 0;
    for (std::size_t i = num_bytes; i > 0; --i) value = value << 8 | list[at + i - 1];
    return value;
  };
  if (number(0, 4) != 2) return false;
  for (std::size_t at = 4; at < static_cast<std::size_t>(size); at += 8) {
    const std::uint32_t tag = number(at, 2), rights = number(at + 2, 2), id = number(at + 4, 4);
    if (rights == 0) continue;
    if (tag == kGroupObject || tag == kGroup || tag == kOther) return false;
    if (tag == kUser && id != geteuid() && id != 0) return false;
  }
  return true;
}

Status CheckPermissions(int fd, const std::string& path) {
  struct stat found {};
  if (fstat(fd, &found) != 0) {
    return ErrnoError(ErrorCode::kSecretSourceUnreadable, Action::kCheckSystemState,
                      "cannot look at " + path, "check that the file is there", errno);
  }
  if (!S_ISREG(found.st_mode) && !S_ISFIFO(found.st_mode)) {
    return Unsafe(path + " is neither a regular file nor a pipe",
                  "name a file with the secret in its first line, or '-' for standard input");
  }
  if (found.st_uid != geteuid() && found.st_uid != 0) {
    return Unsafe(path + " belongs to another user, who can read it",
                  "use a file of your own with mode 0600");
  }
  if ((found.st_mode & 077) == 0) return Ok();
  if ((found.st_mode & 007) == 0 && ListOpensToUsAlone(fd)) return Ok();
  return Unsafe(path + " can be read or written by others",
                "run 'chmod 600 " + path + "', and change the secret if others may have seen it");
}

}  // namespace

Result<SecretBytes> ReadSecretFd(int fd) {
  ASSIGN_OR_RETURN(SecretBytes line, SecretBytes::Allocate(kMaxSecretLineBytes + 1));
  std::size_t size = 0;
  while (true) {
    // One byte at a time: what follows the line belongs to the next reader of a pipe.
    const ssize_t count = read(fd, line.ExposeMutable().data() + size, 1);
    if (count < 0) {
      if (errno == EINTR) continue;
      return ErrnoError(ErrorCode::kSecretSourceUnreadable, Action::kCheckSystemState,
                        "cannot read a secret from descriptor " + std::to_string(fd),
                        "check that it is open for reading", errno);
    }
    if (count == 0 || line.Expose()[size] == '\n') break;
    if (++size > kMaxSecretLineBytes) {
      return Error(ErrorCode::kSecretSourceUnreadable, Action::kFixInput,
                   "the first line is longer than 4096 bytes",
                   "put the secret alone into the first line");
    }
  }
  if (size == 0) {
    return Error(ErrorCode::kSecretSourceUnreadable, Action::kFixInput, "the first line is empty",
                 "put the secret into the first line");
  }
  return SecretBytes::CopyOf(line.Expose().first(size));
}

Status CheckSecretFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) {
    return ErrnoError(ErrorCode::kSecretSourceUnreadable, Action::kFixInput, "cannot read " + path,
                      "check that the file is there and that this user may read it", errno);
  }
  Status safe = CheckPermissions(fd, path);
  close(fd);
  return safe;
}

Result<SecretBytes> ReadWholeSecretFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) {
    return ErrnoError(ErrorCode::kSecretSourceUnreadable, Action::kFixInput, "cannot read " + path,
                      "check that the file is there and that this user may read it", errno);
  }
  if (Status safe = CheckPermissions(fd, path); !safe) {
    close(fd);
    return std::move(safe).error();
  }
  auto secret = ReadKey(fd, path);
  close(fd);
  if (secret && !secret->empty()) return secret;
  return Error(ErrorCode::kSecretSourceUnreadable, Action::kFixInput,
               secret ? path + " is empty" : secret.error().message(),
               "name the file with the secret: 1 byte to 1 MiB");
}

Result<SecretBytes> ReadSecretFile(const std::string& path) {
  if (path == "-") return ReadSecretFd(STDIN_FILENO);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) {
    return ErrnoError(ErrorCode::kSecretSourceUnreadable, Action::kFixInput, "cannot read " + path,
                      "check that the file is there and that this user may read it", errno);
  }
  if (Status safe = CheckPermissions(fd, path); !safe) {
    close(fd);
    return std::move(safe).error();
  }
  auto secret = ReadSecretFd(fd);
  close(fd);
  if (!secret) return std::move(secret).error().WithContext(path);
  return secret;
}

}  // namespace keyescrow::agent
