// BackOff: waiting for a TPM that is busy.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <thread>

namespace keyescrow::tpm {

// IsBusy: warnings that say that the command was not started (Part 2, 6.6.3).
inline bool IsBusy(std::uint32_t response_code) {
  return response_code == 0x908 || response_code == 0x90a || response_code == 0x920 ||
         response_code == 0x922 || response_code == 0x923;
}

// BackOff waits before a command is repeated: not at all (0x922 comes once after a boot), then for
// 50 ms, and twice as long each time up to 2 s.
class BackOff {
 public:
  explicit BackOff(std::chrono::steady_clock::time_point deadline) : deadline_(deadline) {}

  // Wait returns false, at once, where the deadline would pass.
  bool Wait() {
    if (std::chrono::steady_clock::now() + next_ >= deadline_) return false;
    std::this_thread::sleep_for(next_);
    next_ = std::clamp(next_ * 2, kFirst, kLongest);
    return true;
  }

 private:
  static constexpr std::chrono::milliseconds kFirst{50};
  static constexpr std::chrono::milliseconds kLongest{2000};

  std::chrono::steady_clock::time_point deadline_;
  std::chrono::milliseconds next_{0};
};

}  // namespace keyescrow::tpm
