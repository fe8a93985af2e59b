// AnchorCounters: what Devices also are where a host can tell which counters of a log its TPM has.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "envelope/base/result.h"

namespace keyescrow::agent {

// FoundCounter: an index of the log, told by its public area, whatever agent.json says.
struct FoundCounter {
  std::uint32_t index = 0;
  bool counted = false;
};

class AnchorCounters {
 public:
  virtual ~AnchorCounters() = default;
  // FindCounters: `origin` is the log's. Errors: kTpm*.
  virtual Result<std::vector<FoundCounter>> FindCounters(const std::string& origin) = 0;
  // RemoveCounter removes one of these. Errors: kAnchorMissing where it is another log's;
  // kTpmOwnerAuth; kTpm*.
  virtual Status RemoveCounter(std::uint32_t index, const std::string& origin) = 0;
};

}  // namespace keyescrow::agent
