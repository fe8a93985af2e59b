// Facts: what a policy is held against. Whoever evaluates gathers them; nothing here asks a device,
// a store or a clock.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "agent/policy/policy.h"
#include "envelope/header.h"
#include "envelope/path_expression.h"

namespace keyescrow::agent::policy {

// TokenUse: one token, or one share's, that a path uses.
struct TokenUse {
  std::string name;  // as it was registered where the path was made
  Bytes32 spki_sha256{};
};

struct PathFacts {
  std::string id;
  envelope::PathExpression expression;  // `tpm` without a host: the TPM of the key's host
  std::vector<TokenUse> tokens;
  std::optional<envelope::KdfParameters> kdf;  // of its password
  std::string recovery_thumbprint;             // of a recovery key, or ""
  // What opens the recovery key, where that is known; `tokens` and `kdf` are of these.
  envelope::PathExpression recovery_factors;
  // Proofs, Unix seconds. A proof of an older revision is no proof of this one.
  std::optional<std::int64_t> proven;
  bool proven_this_revision = false;
  std::optional<std::int64_t> failed;
  std::string failure;  // an error code's name

  // OpenedBy returns what must be at hand in the end: a recovery key's own factors, where known.
  const envelope::PathExpression& OpenedBy() const {
    return recovery_factors.factors.empty() ? expression : recovery_factors;
  }
};

struct KeyFacts {
  std::string name;
  std::string host;
  std::uint32_t version = 0;
  std::int64_t created = 0;        // of this version
  std::int64_t first_created = 0;  // of the oldest version that is known
  // When the key's bytes were made, where that is known: a version of the same bytes is no new key.
  std::optional<std::int64_t> made;
  std::optional<std::int64_t> restored;  // when they were first released
  std::vector<PathFacts> paths;
};

// TokenEvidence: what is known of a registered token's key. No assurance: nothing is.
struct TokenEvidence {
  std::string name;
  Bytes32 spki_sha256{};
  std::optional<Assurance> assurance;
  bool simulator = false;  // SoftHSM
};

// Facts: of the agent.
struct Facts {
  std::string host;
  std::int64_t now = 0;
  std::int64_t policy_set = 0;  // when the policy was set here
  std::vector<TokenEvidence> tokens;
  bool tpm_simulator = false;
};

// FactsOf reads a header's shape: name, host, version, times and paths; no proofs.
KeyFacts FactsOf(const envelope::Header& header);

}  // namespace keyescrow::agent::policy
