// Replacing this process by the command that `gate` lets start, as if we had never been there: the
// reactions to signals, the limit on core dumps and closed standard streams are put back.
#pragma once

#include <sys/resource.h>

#include <array>
#include <csignal>
#include <string>
#include <vector>

#include "envelope/base/result.h"

namespace keyescrow::agent {

// ProcessBefore: what PrepareProcess and Harden change. Taken before them.
class ProcessBefore {
 public:
  ProcessBefore();

  // Harden is HardenProcess, but for the hard limit on core dumps: what Become executes gets its
  // own limit back.
  void Harden() const;

  // Become executes `program` with the arguments, environment, descriptors, mask and folder of this
  // process; ours are all close-on-exec. It returns only on failure: kUsage.
  Error Become(const std::string& program, const std::vector<std::string>& arguments) const;

 private:
  static constexpr std::array kSignals = {SIGPIPE, SIGXFSZ, SIGCHLD};

  std::array<struct sigaction, kSignals.size()> actions_{};
  rlimit core_{};
  std::array<bool, 3> closed_{};
};

// FindProgram returns the file that a command's first word means: itself where it has a slash, else
// the first executable one on PATH. Errors: kUsage.
Result<std::string> FindProgram(const std::string& word);

}  // namespace keyescrow::agent
