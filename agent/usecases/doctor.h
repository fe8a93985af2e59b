// doctor: what people trip over, each with its remedy. Needs no state and no configuration.
#pragma once

#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/devices.h"

namespace keyescrow::agent {

enum class CheckOutcome : std::uint8_t { kGood, kWarning, kBad, kSkipped };

struct Check {
  std::string area;  // "tpm", "token", "memory", "clock", "state", "store", "log", "luks", "sheet",
                     // "recovery key", "officer"
  CheckOutcome outcome = CheckOutcome::kGood;
  std::string what;
  std::string remedy;  // "" where it is good
  std::string code;    // ErrorCodeName of the fault, or ""
};

// Doctor looks at everything and stops at nothing. `config_error` is what loading agent.toml gave.
std::vector<Check> Doctor(const Environment& environment, const std::string& module,
                          const std::optional<Error>& config_error);

}  // namespace keyescrow::agent
