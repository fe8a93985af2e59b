// PK and D: what the factors of a path give together (envelope/FORMAT.md, section 9).
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/header.h"

namespace keyescrow::envelope {

struct PathKeys {
  SecretBytes wrapping_key;  // PK, 64 bytes
  SecretBytes drill_seed;    // D, 32 bytes
};

// DerivePathKeys takes S of each of `factors`, in their order, and B. Errors: kFactorBad
// (Failure::kFactor) where one is not 32 bytes; `path_id` names the path in it.
Result<PathKeys> DerivePathKeys(std::span<const SecretBytes* const> secrets,
                                std::string_view binding, const std::vector<FactorRecord>& factors,
                                std::string_view path_id);

// UnwrapError is the error of a path whose factors gave something that does not open it:
// kWrongPassword where a password is among them, else kEnvelopeUnwrap; Failure::kUnwrap.
Error UnwrapError(const std::vector<FactorRecord>& factors, std::string_view path_id);

// DamagedPathError is kEnvelopeUnwrap, of a path that its factors do not open although they are the
// right ones: D is the path's, or PK fits the tag.
Error DamagedPathError(std::string_view path_id);

}  // namespace keyescrow::envelope
