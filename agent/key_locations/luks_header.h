// The header of a LUKS2 volume, read without any secret, without libcryptsetup and without its
// locks: `status` and `gate` must neither wait nor load a library for it. It is foreign bytes: each
// size is bounded, and nothing in it is followed anywhere.
// Source: LUKS2 On-Disk Format Specification 1.1.0, chapters 2 (binary header) and 3 (JSON area).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent {

struct LuksKeyslot {
  unsigned id = 0;
  std::string kdf;  // "pbkdf2", "argon2i", "argon2id"; "" for kinds of slots without one
  std::uint64_t area_offset = 0;
  std::uint64_t area_bytes = 0;
  // opens_volume: its secret gives the volume key; false for an unbound one.
  bool opens_volume = false;
  std::string metadata;  // canonical JSON of what decides which secret opens it
};

struct LuksToken {
  unsigned id = 0;
  std::string json;  // as it stands, of at most kMaxLuksTokenBytes
};
inline constexpr std::size_t kMaxLuksTokenBytes = 256u << 10;

struct LuksHeader {
  std::string uuid;
  std::string label;
  std::size_t volume_key_bytes = 0;
  std::uint64_t keyslots_offset = 0;  // of the area for keyslots
  std::uint64_t keyslots_bytes = 0;
  std::vector<LuksKeyslot> keyslots;      // by id
  std::vector<LuksToken> tokens;          // by id
  std::vector<std::string> requirements;  // "online-reencrypt-v2" …
  // volume: SHA-256 over UUID and the digest of the volume key (PBKDF2 of it under a salt). It is
  // the same as long as the volume key is.
  Bytes32 volume{};

  const LuksKeyslot* FindKeyslot(unsigned id) const;
  // HasRoom: another keyslot has a number and a gap in the area left.
  bool HasRoom() const;
  // IsReencrypting: a re-encryption was begun and is not done.
  bool IsReencrypting() const;
};

// ParseLuksHeader reads a binary header and its JSON area: `bytes` begins with the magic and has as
// many bytes as the header says, or more. Errors: kInvalidLocation with what is wrong.
Result<LuksHeader> ParseLuksHeader(ByteView bytes, bool is_secondary = false);

// ReadLuksHeader reads the newer one of the volume's two headers that is whole. `path` is a block
// device, an image or a detached header; links are followed, as those in /dev/disk must be.
// Errors: kNotFound where nothing is there; kSourceUnreadable; kInvalidLocation where it is no
// LUKS2 volume (its hint tells LUKS1 from what is no LUKS at all).
Result<LuksHeader> ReadLuksHeader(const std::string& path);

// KeyslotHash returns SHA-256 over the volume, the keyslot's metadata and its area: it changes when
// the keyslot is removed, replaced or overwritten, and not when others are. Errors: kNotFound
// without such a keyslot; kSourceUnreadable.
Result<Bytes32> KeyslotHash(const std::string& path, const LuksHeader& header, unsigned keyslot);

// IsLuks tells whether a file's first bytes are those of a LUKS header, of any version.
bool IsLuks(ByteView first_bytes);

}  // namespace keyescrow::agent
