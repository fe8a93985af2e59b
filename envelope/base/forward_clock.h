// ForwardClock: a clock that does not go back while the process lives. One command writes several
// times, and what comes later must not be of an earlier time than what it tells of: a clock that is
// set back meanwhile would leave a log that looks made up for ever. Between commands the clock may
// go back, and the log's verification says so.
#pragma once

#include <atomic>
#include <limits>

#include "envelope/base/clock.h"

namespace keyescrow {

class ForwardClock final : public Clock {
 public:
  // `source` must outlive the clock.
  explicit ForwardClock(Clock& source) : source_(source) {}

  // NowUnixSeconds is the latest time that the source has told; thread-safe if the source is.
  std::int64_t NowUnixSeconds() override {
    const std::int64_t now = source_.NowUnixSeconds();
    std::int64_t latest = latest_.load();
    while (now > latest && !latest_.compare_exchange_weak(latest, now)) {
    }
    return now > latest ? now : latest;
  }

 private:
  Clock& source_;
  std::atomic<std::int64_t> latest_ = std::numeric_limits<std::int64_t>::min();
};

}  // namespace keyescrow
