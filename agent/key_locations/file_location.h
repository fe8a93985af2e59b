// file:PATH, see key_location.h.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "agent/key_locations/key_location.h"

namespace keyescrow::agent {

// kPreviousSuffix: where `replace` keeps the key that stood there.
inline constexpr char kPreviousSuffix[] = ".keyescrow-previous";

// MakeFileLocation: Read follows links and takes regular files and pipes. Write follows none.
//   absent, or there and empty: written (0600, or the owner and mode of the empty file)
//   the same bytes: done, nothing written
//   other bytes: kDestinationOtherKey; with `replace` the old bytes first get a copy of their own
//   at PATH.keyescrow-previous (0600), then the new ones take the name. A copy of an interrupted
//   run is taken over, and the key that is written may lie there: the two change places. Another
//   key that was put aside earlier is never overwritten: kDestinationOtherKey.
// At every instant PATH is one whole key.
std::unique_ptr<KeyLocation> MakeFileLocation(std::string path);

// KeyFileAccess: whom a key's file belongs to, and who may read it.
struct KeyFileAccess {
  std::uint32_t uid = 0;
  std::uint32_t gid = 0;
  std::uint32_t permissions = 0;  // 07777
};
// StatKeyFile follows links; none where the path is no regular file.
std::optional<KeyFileAccess> StatKeyFile(const std::string& path);

struct KeyFile {
  SecretBytes key;
  KeyFileAccess access;
};
// ReadKeyFile reads a regular file, links followed, and waits for nothing: a pipe or a device is
// refused unread. Errors: kNotFound where nothing is there; kSourceUnreadable; kSourceSize.
Result<KeyFile> ReadKeyFile(const std::string& path);

}  // namespace keyescrow::agent
