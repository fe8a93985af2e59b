// audit sample: an auditor draws keys at random, and a challenge says what must be drilled.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "agent/audit/challenge.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/registry.h"

namespace keyescrow::agent {

// SampleRequest: from an evidence pack, which an auditor can draw from on a machine of their own;
// or from this host's state.
struct SampleRequest {
  std::size_t num_keys = 0;  // 1–kMaxDrawn
  bool with_nonces = false;  // one for each token of the drawn keys
  std::string pack;          // FILE; "": this host's state
  std::optional<TrustDocument> trust;
  std::string trusted_agent;  // thumbprint, or ""
};

struct Sample {
  audit::Challenge challenge;  // `drawn`: each path of each key's version in use
  std::vector<std::pair<std::string, std::uint32_t>> drawn;  // the keys and versions, by name
  audit::TokenAnswers expected;        // the tokens' answers, for the auditor alone
  std::size_t num_population = 0;      // keys it was drawn from
  std::vector<std::string> no_nonces;  // hashes of tokens' keys that are not registered
};

// DrawSample draws without replacement, each key as likely as any other; all of them where there
// are no more. A pack is verified first. `agent` may be null where there is a pack. Errors:
// kNotFound where nothing is escrowed; kUsage; kLogDamaged, and kAgentNotTrusted where nobody
// vouches for the pack; kEntropyUnavailable.
Result<Sample> DrawSample(const Environment& environment, Agent* agent,
                          const SampleRequest& request);

}  // namespace keyescrow::agent
