// Dialogue: how the wizard talks with a person. agent/cli implements it on the terminal.
//
// Whole lines alone: no cursor is moved and nothing is cleared, so that it works on a serial
// console and under a screen reader, and what was read stays to be read again.
#pragma once

#include <string>
#include <string_view>

#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {

class Dialogue {
 public:
  virtual ~Dialogue() = default;

  // Show writes `text`, whole lines; what is not safe on a terminal is escaped there.
  virtual void Show(std::string_view text) = 0;

  // AskLine returns what was typed, with echo; an empty line is an answer. Blocks.
  // Errors: kSecretSourceMissing where nobody can be asked; kSecretSourceUnreadable at the end of
  // input.
  virtual Result<std::string> AskLine(std::string_view label) = 0;

  // AskSecret is AskLine without echo, into locked memory.
  virtual Result<SecretBytes> AskSecret(std::string_view label) = 0;
};

}  // namespace keyescrow::agent
