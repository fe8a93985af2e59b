// StateUse: one running kernel at a time works in a state folder.
//
// SQLite's log is shared memory: it keeps the commands of one kernel apart, containers included,
// and fails in silence where two machines share a folder over a network. Besides, one agent writes
// one log: two machines with copies of a state write it in two ways.
//
//   in-use   one line of JSON: who used the state last: {"boot":…,"host":…,"machine":…,"pid":N}
//
// Whoever works in the state holds a shared lock (flock, which NFS carries from machine to machine)
// on that file. A claim from another boot must find it unlocked. Advisory: where the file cannot be
// made, written or locked, nothing is said.
#pragma once

#include <chrono>
#include <string>

#include "envelope/base/result.h"

namespace keyescrow::agent {

class StateUse {
 public:
  struct User {
    std::string boot;     // the kernel's boot_id: the same in every container of a machine
    std::string machine;  // MachineId, or ""
    std::string host;     // to be shown
  };

  // Claim makes `user` the one that works here, until the end of the StateUse. Blocks for up to
  // `patience` where another boot holds the state: its commands of a moment ago are waited for.
  // Errors: kStoreBusy with kCheckSystemState, naming the other's host and process.
  static Result<StateUse> Claim(const std::string& state_dir, const User& user,
                                std::chrono::milliseconds patience);
  StateUse(StateUse&& other) noexcept;
  StateUse& operator=(StateUse&&) = delete;
  ~StateUse();

  // warning says that another machine used this state last; "": none did.
  const std::string& warning() const { return warning_; }

 private:
  explicit StateUse(int file) : file_(file) {}

  int file_;
  std::string warning_;
};

}  // namespace keyescrow::agent
