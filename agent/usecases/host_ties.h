// HostTies: what here hangs on another host's agent, told when that agent is trusted no longer.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "agent/usecases/agent.h"

namespace keyescrow::agent {

struct HostTies {
  struct Version {
    std::string key_name;
    std::uint32_t key_version = 0;
  };
  struct TpmPath {
    Version key;
    std::string path_id;
    std::string host;
  };
  std::vector<Version> signed_by;  // whose newest revision the agent signed: they open here no more
  std::vector<TpmPath> tpm_paths;  // sealed to the TPM of a host that the agent is of
};

// FindHostTies reads the newest revision of every version. Errors: kStore*, envelopes'.
Result<HostTies> FindHostTies(Agent& agent, const store::TrustRecord& trusted);

// VersionsBeyond returns the versions here whose newest revision `trusted` signed, and that its
// hosts and keys do not reach: they would open here no more. Errors: as FindHostTies.
Result<std::vector<HostTies::Version>> VersionsBeyond(Agent& agent,
                                                      const store::TrustRecord& trusted);

}  // namespace keyescrow::agent
