// What `status --nagios` prints: one line with performance data, and the plug-in's exit status.
// Source: Monitoring Plugins Development Guidelines, "Plugin Output" and "Performance data".
#pragma once

#include <string>

#include "agent/usecases/inventory.h"

namespace keyescrow::agent {

inline constexpr int kNagiosOk = 0;
inline constexpr int kNagiosWarning = 1;
inline constexpr int kNagiosCritical = 2;
inline constexpr int kNagiosUnknown = 3;

struct NagiosLine {
  std::string text;  // ends with a line feed
  int status = kNagiosUnknown;
};

// FormatNagios: CRITICAL or WARNING by the worst finding, which it names; else OK.
NagiosLine FormatNagios(const StatusReport& report);

// FormatNagiosError: CRITICAL for a store or log that is damaged, else UNKNOWN.
NagiosLine FormatNagiosError(const Error& error);

}  // namespace keyescrow::agent
