// What verification can find, each kind by its name.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace keyescrow::agent::audit {

enum class LogFault : std::uint8_t {
#define KEYESCROW_LOG_FAULT(enumerator, name, damage, remedy) enumerator,
#include "agent/audit/log_faults.def"
#undef KEYESCROW_LOG_FAULT
};
std::string_view LogFaultName(LogFault fault);    // e.g. "missing_p256"
std::string_view LogFaultRemedy(LogFault fault);  // what the reader should do
// IsDamage: the evidence was changed, or contradicts itself. Other faults are findings.
bool IsDamage(LogFault fault);

struct LogFinding {
  LogFault fault{};
  std::uint64_t position = 0;  // entry's index, or checkpoint's size
  std::string text;            // lower case, no full stop
};

inline constexpr std::size_t kMaxFindings = 100;

// LogFindings keeps the first kMaxFindings findings and counts all.
struct LogFindings {
  std::vector<LogFinding> list;
  std::uint64_t num_all = 0;
  std::uint64_t num_damages = 0;

  void Add(LogFault fault, std::uint64_t position, std::string text);
  void Append(LogFindings&& more);
};

}  // namespace keyescrow::agent::audit
