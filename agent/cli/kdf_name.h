// KdfName: --kdf as the use cases' requests say it.
#pragma once

#include <optional>
#include <string>

#include "agent/cli/options.h"

namespace keyescrow::agent {

// KdfName returns "argon2id" or "pbkdf2-sha512"; "" where none was chosen.
inline std::string KdfName(const std::optional<KdfChoice>& kdf) {
  if (!kdf) return "";
  return *kdf == KdfChoice::kArgon2id ? "argon2id" : "pbkdf2-sha512";
}

}  // namespace keyescrow::agent
