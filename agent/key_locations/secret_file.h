// Passwords and PINs from files and descriptors: one line, straight into SecretBytes.
#pragma once

#include <cstddef>
#include <string>

#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {

inline constexpr std::size_t kMaxSecretLineBytes = 4096;

// ReadSecretFile returns the first line of `path` without its LF; "-" is standard input. The file
// is a regular file or a pipe (also /dev/fd/N), owned by this user or root, and closed to group and
// others; a systemd credential, whose access list opens it to this user alone, is accepted. A
// symbolic link is followed and its target judged.
// Errors: kSecretFileUnsafe; kSecretSourceUnreadable: not there, empty, or longer than 4096 bytes.
Result<SecretBytes> ReadSecretFile(const std::string& path);

// ReadWholeSecretFile returns all of such a file, 1 byte to 1 MiB, with its line ends: a key file.
// Errors: as ReadSecretFile.
Result<SecretBytes> ReadWholeSecretFile(const std::string& path);

// CheckSecretFile judges a file as ReadSecretFile does, without reading it. Errors: as there.
Status CheckSecretFile(const std::string& path);

// ReadSecretFd reads one line from an open descriptor and not a byte more; it does not close it,
// and whoever opened it answers for its permissions. Errors: kSecretSourceUnreadable.
Result<SecretBytes> ReadSecretFd(int fd);

}  // namespace keyescrow::agent
