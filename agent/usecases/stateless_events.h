// StatelessEvents: the file that stands for the log on a machine without state, one event a line
// (FORMAT.md of agent/audit, "Stateless events"). `import-event` merges it later.
#pragma once

#include <cstdint>
#include <string>

#include "agent/usecases/agent.h"

namespace keyescrow::agent {

class StatelessEvents {
 public:
  // `file` is --event-log's, or "": ./keyescrow-<command>-<id>.json. `command` is "restore" or
  // "drill". `environment` outlives it.
  StatelessEvents(const Environment& environment, std::string command, std::string file)
      : environment_(environment), command_(std::move(command)), file_(std::move(file)) {}

  // Record fills the event and appends it; durable when it returns. The file must be new.
  // Errors: kEventLogUnavailable.
  Status Record(audit::Event event);

  const std::string& file() const { return file_; }

 private:
  const Environment& environment_;
  std::string command_;
  std::string file_;
  std::uint64_t num_recorded_ = 0;
};

}  // namespace keyescrow::agent
