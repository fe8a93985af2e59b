#include "agent/cli/spinner.h"

#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <system_error>

namespace keyescrow::agent {
namespace {

using namespace std::chrono_literals;

constexpr auto kDelay = 500ms;
constexpr auto kStep = 120ms;
constexpr std::string_view kEraseLine = "\r\x1b[K";

void Write(int fd, std::string_view text) {
  // A sign of life that cannot be drawn is no reason to fail.
  [[maybe_unused]] const ssize_t written = write(fd, text.data(), text.size());
}

}  // namespace

Spinner::Spinner(const Terminal& terminal, std::string_view text)
    : fd_(terminal.err_fd()), text_(EscapeForTerminal(text)) {
  if (!terminal.shows_progress()) return;
  // Signals stay with the thread that knows what to do about them.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    thread_ = std::thread([this] { Draw(); });
  } catch (const std::system_error&) {
    // No thread can be had: what it tells of goes on without it.
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Spinner::~Spinner() { Stop(); }

void Spinner::SetText(std::string_view text) {
  const std::lock_guard lock(mutex_);
  text_ = EscapeForTerminal(text);
}

void Spinner::Stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Spinner::Draw() {
  const auto start = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  if (wake_.wait_for(lock, kDelay, [this] { return stopping_; })) return;
  constexpr std::string_view kSigns = "|/-\\";
  std::size_t frame = 0;
  do {
    const auto elapsed = std::chrono::steady_clock::now() - start;
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(elapsed).count();
    Write(fd_,
          fmt::format("{}{} {} {} s", kEraseLine, kSigns[frame % kSigns.size()], text_, seconds));
    ++frame;
  } while (!wake_.wait_for(lock, kStep, [this] { return stopping_; }));
  Write(fd_, kEraseLine);
}

}  // namespace keyescrow::agent
