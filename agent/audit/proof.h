// Offline proofs of one entry (c2sp.org/tlog-proof@v1). In a receipt the extra line carries the
// entry itself, so that the proof, the envelope and the log's public keys are all a verifier needs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "agent/audit/checkpoint.h"
#include "agent/audit/note.h"
#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent::audit {

struct TlogProof {
  Bytes extra;  // receipts: the entry's bytes; empty: no extra line
  std::uint64_t index = 0;
  std::vector<Bytes32> hashes;  // from the leaf's sibling up
  std::string checkpoint;       // a signed note, verbatim
};

std::string FormatTlogProof(const TlogProof& proof);
// ParseTlogProof checks the shape alone; at most 128 KiB. Errors: kLogDamaged.
Result<TlogProof> ParseTlogProof(std::string_view text);

// VerifiedProof: what a proof proved, and which of the keys vouched for it.
struct VerifiedProof {
  Checkpoint checkpoint;
  std::vector<bool> verified;  // as long as `keys`
};

// VerifyTlogProof checks that `entry` is in the tree of the proof's checkpoint, that the checkpoint
// is of `origin` (empty: of any) and that a line of at least one of `keys` verifies.
// Errors: kLogDamaged.
Result<VerifiedProof> VerifyTlogProof(const TlogProof& proof, ByteView entry,
                                      std::string_view origin, const std::vector<NoteKey>& keys);

}  // namespace keyescrow::agent::audit
