// Clock: the seam for wall-clock time. Deadlines use the monotonic clock directly.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace keyescrow {

class Clock {
 public:
  virtual ~Clock() = default;
  // NowUnixSeconds returns seconds since 1970-01-01T00:00:00Z.
  virtual std::int64_t NowUnixSeconds() = 0;
};

// SystemClock is the machine's clock; it lives for the whole process.
Clock& SystemClock();

// FormatUtc returns YYYY-MM-DDThh:mm:ssZ.
std::string FormatUtc(std::int64_t unix_seconds);

// ParseUtc takes exactly YYYY-MM-DDThh:mm:ssZ, a valid date and a time 00:00:00–23:59:59.
std::optional<std::int64_t> ParseUtc(std::string_view text);

}  // namespace keyescrow
