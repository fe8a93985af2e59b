// Counts of events for monitors, kept beside each checkpoint in the commit that makes it: reading
// them costs one row, whatever the log's length. They are no part of what is signed; the log is.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "agent/audit/event.h"

namespace keyescrow::agent {

class EventCounts {
 public:
  // Parse reads what Text wrote; what it does not know is left out.
  static EventCounts Parse(std::string_view text);
  // Text: "own drill.passed=12 imported.restore.completed=1 verify.last=1", sorted; "" where
  // nothing was counted. Nothing signed an imported event: it is counted apart, and in no Of.
  std::string Text() const;

  // Add counts an entry of the log by its line; drills, restores and verifications count.
  void Add(std::string_view line);

  // Append adds what was counted of the entries behind these.
  void Append(const EventCounts& later);

  std::uint64_t Of(audit::EventType type) const;
  // LastVerify: whether the newest verify.* event passed; none where there is none.
  std::optional<bool> LastVerify() const;

 private:
  std::map<std::string, std::uint64_t, std::less<>> counts_;
};

}  // namespace keyescrow::agent
