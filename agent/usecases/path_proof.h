// Proofs that a path opened, for the log: signed by the path's drill seed (FORMAT.md of
// agent/audit, "Drill proofs"). Nothing of the key or of the seed is in one.
#pragma once

#include <optional>
#include <string>

#include "agent/audit/event.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/secrets.h"
#include "envelope/drill.h"
#include "envelope/opened_envelope.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {

// NewestCheckpoint returns what a proof signed now refers to: the log's newest checkpoint, or,
// where `agent` is null, the empty log of stateless events. Errors: kStore*, kLogDamaged.
Result<envelope::DrillCheckpoint> NewestCheckpoint(Agent* agent);

struct ProofRequest {
  envelope::DrillCheckpoint checkpoint;
  std::optional<Bytes32> challenge;
  std::int64_t time = 0;  // Unix seconds
};

// ProveOpened signs that `sealed` was opened by the path of `opened`. Errors: kLogDamaged,
// kCryptoLibrary.
Result<audit::EventDrill> ProveOpened(const envelope::SealedEnvelope& sealed,
                                      const envelope::OpenedEnvelope& opened,
                                      const ProofRequest& request);

// TellsOfThePath: the failure lies in the path itself, not in what was typed, in a device that is
// away or locked, or in the destination; the path then counts as broken until it opens again.
bool TellsOfThePath(const Error& error);

// IsOfThisHost: that another host's TPM is not here tells nothing of the path.
bool IsOfThisHost(const Agent& agent, const envelope::PathRecord& path);

// RequirePin: a PIN for the token of that name can be had. Errors: kSecretSourceMissing.
Status RequirePin(const std::string& token_name, Secrets& secrets);

}  // namespace keyescrow::agent
