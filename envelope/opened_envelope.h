// OpenedEnvelope: an envelope that one path has opened: the protected key and what edits need.
//
// Only SealedEnvelope::Open makes one, after the wrapped key, the drill key and the content's tag
// have all been verified. It holds no way back to the factors.
#pragma once

#include <string>

#include "envelope/base/secret_bytes.h"

namespace keyescrow::envelope {

class OpenedEnvelope {
 public:
  // content is the protected key, 1 byte to 1 MiB.
  const SecretBytes& content() const { return content_; }
  // file_key is FK, 32 bytes, for re-wrapping to other paths.
  const SecretBytes& file_key() const { return file_key_; }
  // drill_seed is D of the path that was opened, 32 bytes: the seed of its drill key. Empty where a
  // recovery key opened it whose password was changed after the envelope was made: its drill key is
  // no longer the one in the envelope.
  const SecretBytes& drill_seed() const { return drill_seed_; }
  const std::string& path_id() const { return path_id_; }

 private:
  friend class SealedEnvelope;
  OpenedEnvelope(std::string path_id, SecretBytes content, SecretBytes file_key,
                 SecretBytes drill_seed)
      : path_id_(std::move(path_id)),
        content_(std::move(content)),
        file_key_(std::move(file_key)),
        drill_seed_(std::move(drill_seed)) {}

  std::string path_id_;
  SecretBytes content_;
  SecretBytes file_key_;
  SecretBytes drill_seed_;
};

}  // namespace keyescrow::envelope
