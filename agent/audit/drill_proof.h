// Drill proofs: what an entry's `drill` member, with the envelope's header, proves offline.
// FORMAT.md, "Drill proofs", is normative.
#pragma once

#include "agent/audit/event.h"
#include "envelope/drill.h"
#include "envelope/header.h"

namespace keyescrow::agent::audit {

// DrillStatementOf puts the signed statement together again. Errors: kLogDamaged where the event
// has no proof, or not one envelope and one path.
Result<envelope::DrillStatement> DrillStatementOf(const Event& event);

// VerifyDrillProof checks the signature against the path's drill key alone: for who has a summary
// of the envelope. Errors: kLogDamaged.
Status VerifyDrillProof(const Event& event, const Bytes32& drill_key);

// VerifyDrillProof checks the proof against the envelope: key, version, revision, id, hash and path
// are the header's, the event tells of a success, and the path's drill key signed. Whether the
// log's first `size` entries have the statement's root is for whoever holds the log to check.
// Errors: kLogDamaged.
Status VerifyDrillProof(const Event& event, const envelope::Header& header,
                        const Bytes32& envelope_hash);

}  // namespace keyescrow::agent::audit
