// A pack that an auditor works with: verified first, on a machine that may have no state.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "agent/report/ustar.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/registry.h"

namespace keyescrow::agent {

struct PackSource {
  std::string file;
  std::optional<TrustDocument> trust;
  std::string trusted_agent;  // thumbprint, or ""
};

// OpenVerifiedPack verifies the pack as `verify PACK` does, and opens it. `agent` may be null.
// Errors: kLogDamaged; kAgentNotTrusted where nobody vouches for the pack's keys; kUsage;
// kNotFound.
Result<report::TarReader> OpenVerifiedPack(Agent* agent, const PackSource& source);

// ForSummaries calls `visit` with each line of summaries/, until it fails.
Status ForSummaries(const report::TarReader& pack,
                    const std::function<Status(std::string_view line)>& visit);

}  // namespace keyescrow::agent
