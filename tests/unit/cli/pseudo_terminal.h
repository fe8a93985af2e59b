// PseudoTerminal: a terminal whose other side the test holds.
#pragma once

#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <termios.h>
#include <unistd.h>

#include <string>
#include <string_view>

namespace keyescrow::agent {

class PseudoTerminal {
 public:
  PseudoTerminal() {
    char name[64] = {};
    EXPECT_EQ(openpty(&master_, &slave_, name, nullptr, nullptr), 0);
    name_ = name;
  }
  PseudoTerminal(const PseudoTerminal&) = delete;
  PseudoTerminal& operator=(const PseudoTerminal&) = delete;
  ~PseudoTerminal() {
    close(slave_);
    close(master_);
  }

  const char* name() const { return name_.c_str(); }
  const std::string& shown() const { return shown_; }

  bool Echoes() const {
    termios mode{};
    tcgetattr(slave_, &mode);
    return (mode.c_lflag & ECHO) != 0;
  }

  // SetInput sets and clears input modes, as a serial console's getty does.
  void SetInput(tcflag_t set, tcflag_t clear = 0) {
    termios mode{};
    tcgetattr(slave_, &mode);
    mode.c_iflag = (mode.c_iflag | set) & ~clear;
    EXPECT_EQ(tcsetattr(slave_, TCSANOW, &mode), 0);
  }
  tcflag_t Input() const {
    termios mode{};
    tcgetattr(slave_, &mode);
    return mode.c_iflag;
  }

  // WaitFor reads what is shown until `text` was, counted from the last call; false after 10 s.
  bool WaitFor(std::string_view text) {
    while (shown_.find(text, seen_) == std::string::npos) {
      pollfd waiting{.fd = master_, .events = POLLIN, .revents = 0};
      if (poll(&waiting, 1, 10000) != 1) return false;
      char bytes[512];
      const ssize_t size = read(master_, bytes, sizeof bytes);
      if (size <= 0) return false;
      shown_.append(bytes, static_cast<std::size_t>(size));
    }
    seen_ = shown_.find(text, seen_) + text.size();
    return true;
  }

  void Type(std::string_view text) {
    EXPECT_EQ(write(master_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }

 private:
  int master_ = -1;
  int slave_ = -1;
  std::string name_;
  std::string shown_;
  std::size_t seen_ = 0;
};

}  // namespace keyescrow::agent
