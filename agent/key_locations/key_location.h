// KeyLocation: where a protected key lives, as people write it:
//   file:PATH (a bare path too)   a regular file
//   -                             standard input or output
//   exec:CMD                      the output (source) or input (sink) of `/bin/sh -c CMD`
//   luks:DEVICE-OR-IMAGE          the volume key (source) or another keyslot (sink) of a LUKS2
//   volume
// Key bytes go straight between the descriptor and SecretBytes.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {

inline constexpr std::size_t kMaxKeyBytes = 1u << 20;  // a protected key: 1 byte to 1 MiB

struct WriteOptions {
  bool replace = false;     // put aside another key that stands there
  bool random_key = false;  // made by this process of at least 32 random bytes, and nowhere yet
  bool volume_key = false;  // the key is a volume's own: it never becomes the secret of a keyslot
};

struct WriteOutcome {
  bool written = false;
  bool already_same = false;             // the destination held these bytes: nothing was written
  std::string previous_path = {};        // where the old key now is, or ""
  std::optional<unsigned> keyslot = {};  // of a LUKS volume: the one that the key opens
};

// RetiredSecret: an older secret of a place that holds several.
struct RetiredSecret {
  unsigned keyslot = 0;
  Bytes32 keyslot_hash{};  // luks_header.h: only that very keyslot is removed
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

  // CheckRoom tells, before a new key is made, whether there is room for one more beside what is
  // there; a key that is there already needs none. Errors: kDestinationFull.
  virtual Status CheckRoom() { return Ok(); }

  // Write delivers `key` and blocks until the sink has it, durably where it is a file. A file gets
  // all of it or nothing; a pipe may have taken a part before it failed.
  // Errors: kDestination*, kBinaryToTerminal.
  virtual Result<WriteOutcome> Write(const SecretBytes& key, const WriteOptions& options) = 0;

  // Retire is the second half of a rotation at a place that holds several secrets side by side, a
  // LUKS volume: first Write hands the new key over beside the old one, and once the new one is
  // confirmed, Retire proves that `in_use` opens another keyslot and removes the retired one. It
  // needs no unlock file. False where that secret is gone already, or the place holds one secret
  // alone, which Write has replaced. Errors: kDestinationOtherKey where `in_use` opens nothing:
  // nothing is removed then; LuksVolume's.
  virtual Result<bool> Retire(const RetiredSecret& retired, const SecretBytes& in_use) {
    static_cast<void>(retired);
    static_cast<void>(in_use);
    return false;
  }
  // RetireBeside is Retire where the key in use is not at hand: `in_use` is its keyslot as it was
  // when the key was seen to open it, and must be that still.
  virtual Result<bool> RetireBeside(const RetiredSecret& retired, const RetiredSecret& in_use) {
    static_cast<void>(retired);
    static_cast<void>(in_use);
    return false;
  }

  // FindKeyslot returns the keyslot of a LUKS volume that `key` opens; it needs no unlock file.
  // None where there is no such one, and at other places. Errors: LuksVolume's.
  virtual Result<std::optional<unsigned>> FindKeyslot(const SecretBytes& key) {
    static_cast<void>(key);
    return std::optional<unsigned>();
  }

  // Describe returns the location as written, for messages and events: "file:/etc/app/key".
  virtual std::string Describe() const = 0;

  // FilePath returns the path of a file, or "" for other kinds.
  virtual std::string FilePath() const { return ""; }
  // VolumePath returns the path of a LUKS volume, or "" for other kinds.
  virtual std::string VolumePath() const { return ""; }
  // TakesParts: where Write fails, the sink may have a part of the key, or all of it.
  bool TakesParts() const { return FilePath().empty() && VolumePath().empty(); }
};

// LocationOptions: what a location needs beside its text.
struct LocationOptions {
  std::string luks_unlock_file = {};  // path; "": none
};

// ParseLocation reads SOURCE or SINK; touches nothing. A word and a colon that is no known scheme
// is refused, so that a misspelt one does not become a file's name: write `file:odd:name` or
// `./odd:name`. Errors: kInvalidLocation.
Result<std::unique_ptr<KeyLocation>> ParseLocation(std::string_view text,
                                                   const LocationOptions& options = {});

// AbsoluteLocation returns the text with the path of its file or volume made absolute, so that it
// means the same from every folder; other kinds, and what ParseLocation refuses, stay as they are.
std::string AbsoluteLocation(std::string_view text);

// CheckTakesFiles refuses a sink that takes keys alone, where a document is to be written.
// Errors: kInvalidLocation.
Status CheckTakesFiles(const KeyLocation& location);

}  // namespace keyescrow::agent
