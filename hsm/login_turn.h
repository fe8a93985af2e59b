// LoginTurn: on this host one C_Login at a time by one module.
//
// A module that keeps its tokens in files reads a token's flags and writes them anew in every
// login. Where two processes do that in the same moment, SoftHSM 2.6 now and then fails one of them
// with CKR_GENERAL_ERROR, and a login that failed is never sent again.
#pragma once

#include <chrono>
#include <string>
#include <utility>

namespace keyescrow::hsm {

class LoginTurn {
 public:
  // kPatience: how long a login waits for the others. A module that hangs, or somebody else who
  // holds the lock, does not keep it for longer.
  static constexpr std::chrono::milliseconds kPatience{2000};

  // Take locks the module's file (flock) until the turn ends, or the process. After `patience`, or
  // where the file cannot be locked, there is none, and the login goes on: it fails rarely.
  static LoginTurn Take(const std::string& module_path,
                        std::chrono::milliseconds patience = kPatience);
  LoginTurn(LoginTurn&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
  LoginTurn& operator=(LoginTurn&&) = delete;
  ~LoginTurn();

  bool is_ours() const { return file_ >= 0; }

 private:
  explicit LoginTurn(int file) : file_(file) {}
  int file_;
};

}  // namespace keyescrow::hsm
