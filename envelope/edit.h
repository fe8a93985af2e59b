// Edits: the next revision of an envelope that one of its paths has opened (FORMAT.md, "Editing").
//
// Content, file key, envelope id, key version, host, note and `created` stay. Paths are kept as
// they are or made anew; whatever is not named is gone. An edit revokes nothing: a copy of the
// revision before it opens by the paths that it had.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "envelope/base/random.h"
#include "envelope/opened_envelope.h"
#include "envelope/sealed_envelope.h"
#include "envelope/signer.h"

namespace keyescrow::envelope {

// KeptPath: a path of the revision before, every member of it as it was.
struct KeptPath {
  std::size_t index = 0;  // in header().paths
};

// NextPath: a path of the revision to be. An EnrolledPath's factors and secrets are fresh ones.
using NextPath = std::variant<KeptPath, EnrolledPath>;

struct EditDraft {
  std::string policy;
  std::string updated;  // T
};

// Reseal makes the next revision of `sealed`, which `opened` is the open form of: `previous` is its
// hash, the IV is fresh, the content is sealed under the same file key, and `signer` signs.
// Errors: Failure::kFormat or kLimit where the paths make no valid header (none, over 16, an id
// twice, a revision over 2^31 - 1); the signer's.
Result<SealedBytes> Reseal(const SealedEnvelope& sealed, const OpenedEnvelope& opened,
                           const EditDraft& draft, const std::vector<NextPath>& paths,
                           Signer& signer, RandomSource& random);

// SamePath tells whether two paths are the same in every byte that opens them.
bool SamePath(const PathRecord& left, const PathRecord& right);

}  // namespace keyescrow::envelope
