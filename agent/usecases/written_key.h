// What a person should know of the files that a key, or a copy of its envelope, was written to.
#pragma once

#include <string>

#include "agent/usecases/backup.h"
#include "envelope/base/result.h"

namespace keyescrow::agent {

// OpenToOthers tells of a file that a key was written to, with none before it, and that others on
// this host may read or write: its file system keeps no modes, or an empty file stood there. ""
// where all is well, and where the path is no regular file.
std::string OpenToOthers(const std::string& path);

// OnOneFileSystem tells whether both files are there, on one file system.
bool OnOneFileSystem(const std::string& left, const std::string& right);

// CopyFailed is `error` of the portable file of a backup, with what is true all the same: the
// version is in the store, and a generated key is nowhere else yet.
Error CopyFailed(Error error, const BackupRequest& request, const BackupResult& result);

}  // namespace keyescrow::agent
