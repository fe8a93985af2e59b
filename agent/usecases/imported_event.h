// What a run without state writes, and so what `import-event` takes: FORMAT.md, "Stateless events".
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "agent/audit/event.h"

namespace keyescrow::agent {

// CanBeImported: a restore or a drill without state writes events of this type. Nothing signed an
// imported event, so one of another type would tell of what only the log itself can know: which
// tokens are registered, who is trusted, which policy is in force.
bool CanBeImported(audit::EventType type);

// ImportCheck holds a file's events, in order, to what a restore or a drill without state writes.
class ImportCheck {
 public:
  // Check returns what is wrong with the next event, such as "an intent that is not pending"; ""
  // where nothing is.
  std::string Check(const audit::Event& event);

 private:
  std::uint64_t number_ = 0;
  std::optional<audit::Event> asked_;  // the restore that has no end yet
};

}  // namespace keyescrow::agent
