// Spinner: a sign of life, with the time gone by, for what lasts longer than half a second.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "agent/cli/terminal.h"

namespace keyescrow::agent {

// Spinner draws "text… 3 s" on standard error from 500 ms after it was made until it is destroyed
// or stopped, on a thread of its own that blocks all signals; then it erases its line. On no
// terminal, with --quiet or with --json it draws nothing and starts no thread.
// Stop it before asking for a secret. Not copied, not moved.
class Spinner {
 public:
  Spinner(const Terminal& terminal, std::string_view text);
  ~Spinner();
  Spinner(const Spinner&) = delete;
  Spinner& operator=(const Spinner&) = delete;

  void SetText(std::string_view text);  // thread-safe; escaped here
  void Stop();                          // blocks until the line is erased; idempotent

 private:
  void Draw();

  int fd_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::string text_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace keyescrow::agent
