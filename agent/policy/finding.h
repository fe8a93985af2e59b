// Finding: one rule that one key, or the agent, breaks, with its remedy. Whatever judges keys says
// it in this form: the policy's evaluation, `status`, reports.
#pragma once

#include <cstdint>
#include <string>

namespace keyescrow::agent {

// Severity: a critical finding means that something does not comply (exit status 1).
enum class Severity : std::uint8_t { kWarning, kCritical };

struct Finding {
  std::string rule;  // stable: "portable_path_unproven", "declared_not_escrowed" …
  std::string key;   // its name, or "": the agent's own
  std::string host;
  Severity severity = Severity::kCritical;
  std::string what;
  std::string remedy;
  std::string policy_rule = {};  // the name of the policy's rule that asks for it, or ""

  bool operator==(const Finding&) const = default;
};

}  // namespace keyescrow::agent
