// What `status --prometheus` writes: Prometheus' text exposition format 0.0.4, for node_exporter's
// textfile collector. docs/MONITORING.md lists the metrics; none has a key's name as a label.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "agent/usecases/event_counts.h"
#include "agent/usecases/inventory.h"

namespace keyescrow::agent {

struct MonitorFacts {
  EventCounts counts;
  std::optional<std::int64_t> checkpoint_time;  // of the newest entry, Unix seconds
  std::int64_t now = 0;
};

std::string FormatPrometheus(const StatusReport& report, const MonitorFacts& facts);

}  // namespace keyescrow::agent
