#include "hsm/login_turn.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

namespace keyescrow::hsm {
namespace {

constexpr std::chrono::milliseconds kLookAgain{1};

}  // namespace

LoginTurn LoginTurn::Take(const std::string& module_path, std::chrono::milliseconds patience) {
  LoginTurn turn(open(module_path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (turn.is_ours() && flock(turn.file_, LOCK_EX | LOCK_NB) != 0) {
    const bool is_held = errno == EWOULDBLOCK || errno == EINTR;
    if (!is_held || std::chrono::steady_clock::now() >= deadline) return LoginTurn(-1);
    std::this_thread::sleep_for(kLookAgain);
  }
  return turn;
}

LoginTurn::~LoginTurn() {
  if (file_ >= 0) close(file_);
}

}  // namespace keyescrow::hsm
