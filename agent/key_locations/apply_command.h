// A rotation's command: it gets the old and the new key on descriptors and puts the new one to use.
//
// The protocol, which the manual page tells to those who write such commands:
//   KEYESCROW_OLD_KEY_FD, KEYESCROW_NEW_KEY_FD   the numbers of two descriptors, each read once to
//                                                its end: pipes, which hold the keys and nothing
//                                                else; /dev/fd/N opens them by name. Up to
//                                                64 KiB of each are there before it begins
//   KEYESCROW_KEY, KEYESCROW_OLD_VERSION, KEYESCROW_NEW_VERSION
// Standard input is /dev/null; standard output goes to our standard error. No other descriptor of
// ours is open in it, and no key is in its arguments or environment. Exit status 0 means that the
// new key is in use, durably; 1 to 127 that the old one still is. Above 127 are those that a shell
// gives for what a signal ended, and ssh for a connection that broke: they say nothing. It runs in
// a process group of its own, which is ended when the time is over, when it waits for the terminal,
// which is not its to read, or when SIGINT, SIGTERM or SIGHUP reaches this process: SIGTERM, and
// SIGKILL two seconds later.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>

#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {

struct ApplyRequest {
  std::string command;  // for /bin/sh -c
  std::string key_name;
  std::uint32_t old_version = 0;
  std::uint32_t new_version = 0;
  std::chrono::milliseconds timeout{};
};

struct ApplyOutcome {
  bool gave_word = false;  // it ended by itself, and its exit status says which key is in use
  std::string failure;     // "" for exit status 0; else how it ended
  int interrupted_by = 0;  // SIGINT, SIGTERM or SIGHUP, which this process was sent meanwhile
};

class ApplyCommand {
 public:
  // Start makes the process, which waits: its command runs once Run is called, and never where this
  // object, or this whole process, goes before that. Errors: kDestinationCommand.
  static Result<ApplyCommand> Start(const ApplyRequest& request);
  ApplyCommand(ApplyCommand&& other) noexcept;
  ApplyCommand& operator=(ApplyCommand&&) = delete;
  ~ApplyCommand();

  // Process names the process: it is not mistaken for a later one of the same number, nor for one
  // of another boot.
  const std::string& process() const { return process_; }

  // Run lets the command run, gives it both keys and waits for its end. What would end this process
  // ends the command instead: ApplyOutcome tells of it.
  ApplyOutcome Run(const SecretBytes& old_key, const SecretBytes& new_key);

 private:
  ApplyCommand() = default;
  void CloseAll();

  pid_t pid_ = -1;
  int child_ = -1;  // pidfd
  int go_ = -1;
  int old_key_ = -1;
  int new_key_ = -1;
  std::chrono::milliseconds timeout_{};
  std::string process_;
};

// ProcessName names a process so that no other is taken for it, on this boot or another.
std::string ProcessName(pid_t pid);
// StillRuns tells whether the process of that name lives.
bool StillRuns(const std::string& process);

}  // namespace keyescrow::agent
