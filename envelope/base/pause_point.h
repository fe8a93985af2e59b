// PausePoint stops a test build at a moment when secrets lie in memory, so that tests/memory can
// read all of it: where KEYESCROW_PAUSE_AT names the moment. Other builds have none of it.
#pragma once

#ifdef KEYESCROW_PAUSE_POINTS
#include <csignal>
#include <cstdlib>
#include <cstring>
#endif

namespace keyescrow {

#ifdef KEYESCROW_PAUSE_POINTS
inline void PausePoint(const char* name) {
  const char* wanted = std::getenv("KEYESCROW_PAUSE_AT");
  if (wanted != nullptr && std::strcmp(wanted, name) == 0) std::raise(SIGSTOP);
}
#else
constexpr void PausePoint(const char* /*name*/) {}
#endif

}  // namespace keyescrow
