// KeyLocation: where a protected key lives, as people write it:
//   file:PATH (a bare path too)   a regular file
//   -                             standard input or output
//   exec:CMD                      the output (source) or input (sink) of `/bin/sh -c CMD`
// Key bytes go straight between the descriptor and SecretBytes.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {

inline constexpr std::size_t kMaxKeyBytes = 1u << 20;  // a protected key: 1 byte to 1 MiB

struct WriteOptions {
  bool replace = false;  // put aside another key that stands there
};

struct WriteOutcome {
  bool written = false;
  bool already_same = false;       // the destination held these bytes: nothing was written
  std::string previous_path = {};  // where the old key now is, or ""
};

class KeyLocation {
 public:
  virtual ~KeyLocation() = default;

  // Read returns the whole key, 1 byte to 1 MiB. Blocks until the source ends.
  // Errors: kSourceUnreadable, kSourceSize, kSourceCommand.
  virtual Result<SecretBytes> Read() = 0;

  // CheckWritable tells, before any factor is unlocked, what would make Write fail; for a file it
  // makes a temporary one of 4 KiB in the folder and removes it. Whether another key stands there
  // only Write can tell. Errors: kDestination* but kDestinationOtherKey; kBinaryToTerminal.
  virtual Status CheckWritable() = 0;

  // Write delivers `key` and blocks until the sink has it, durably where it is a file. A file gets
  // all of it or nothing; a pipe may have taken a part before it failed.
  // Errors: kDestination*, kBinaryToTerminal.
  virtual Result<WriteOutcome> Write(const SecretBytes& key, const WriteOptions& options) = 0;

  // Describe returns the location as written, for messages and events: "file:/etc/app/key".
  virtual std::string Describe() const = 0;

  // FilePath returns the path of a file, or "" for other kinds.
  virtual std::string FilePath() const { return ""; }
};

// ParseLocation reads SOURCE or SINK; touches nothing. A word and a colon that is no known scheme
// is refused, so that a misspelt one does not become a file's name: write `file:odd:name` or
// `./odd:name`. Errors: kInvalidLocation; `luks:` is not offered by this version.
Result<std::unique_ptr<KeyLocation>> ParseLocation(std::string_view text);

}  // namespace keyescrow::agent
