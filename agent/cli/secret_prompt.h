// SecretPrompt: asks a person on the controlling terminal, /dev/tty, whatever the standard streams
// are. A secret goes from the terminal straight into locked memory, without echo; the terminal's
// mode is restored when the process is interrupted, stopped or ends.
#pragma once

#include <string>
#include <string_view>

#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {

class SecretPrompt {
 public:
  static constexpr std::size_t kMaxSecretBytes = 1023;
  static constexpr int kMaxMismatches = 3;

  // `no_input`: every question fails with kSecretSourceMissing. `device` is not owned.
  // `terminal_only`: Tell leaves standard error alone, which holds one JSON document.
  explicit SecretPrompt(bool no_input, const char* device = "/dev/tty", bool terminal_only = false);

  // available: a terminal is there and asking is allowed.
  bool available() const;

  // Ask writes "`label`: " and returns one line without its line feed; `remedy` is the hint when
  // nobody can be asked ("give --password-file FILE"). Blocks. One caller at a time.
  // Errors: kSecretSourceMissing without a terminal or with no_input; kSecretSourceUnreadable at
  // the end of input, on an empty line, or above kMaxSecretBytes; kMemoryLockLimit.
  Result<SecretBytes> Ask(std::string_view label, std::string_view remedy);

  // AskMaybe is Ask, but an empty line is an answer.
  Result<SecretBytes> AskMaybe(std::string_view label, std::string_view remedy);

  // AskNew asks twice and, where the two differ, again, up to kMaxMismatches times.
  // Errors: as Ask; kSecretSourceUnreadable after the last mismatch.
  Result<SecretBytes> AskNew(std::string_view label, std::string_view remedy);

  // AskLine asks with echo for something that is no secret (a typed confirmation).
  // Errors: as Ask, but an empty line is an answer.
  Result<std::string> AskLine(std::string_view label, std::string_view remedy);

  // Tell writes a line to the terminal, or to standard error where there is none and it is free.
  void Tell(std::string_view line);
  // TellLines does so with text of whole lines.
  void TellLines(std::string_view text);

 private:
  Result<SecretBytes> AskOnce(std::string_view label, bool echo, std::string_view remedy);

  bool no_input_;
  const char* device_;
  bool terminal_only_;
};

}  // namespace keyescrow::agent
