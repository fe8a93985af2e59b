#include "agent/usecases/imported_event.h"

#include <fmt/core.h>

#include <utility>

namespace keyescrow::agent {

using audit::EventType;
using audit::Outcome;

bool CanBeImported(EventType type) {
  switch (type) {
    case EventType::kRestoreRequested:
    case EventType::kRestoreCompleted:
    case EventType::kRestoreFailed:
    case EventType::kDrillPassed:
    case EventType::kDrillFailed:
    case EventType::kDrillSkipped: return true;
    default: return false;
  }
}

std::string ImportCheck::Check(const audit::Event& event) {
  if (event.source != audit::kStatelessSource || event.source_seq != number_ ||
      event.prev_checkpoint) {
    return "not an event of a run without state";
  }
  ++number_;
  if (!CanBeImported(event.type)) {
    return fmt::format("of the type {}, which no run without state writes",
                       audit::EventTypeName(event.type));
  }
  if (event.type == EventType::kRestoreRequested) {
    if (event.outcome != Outcome::kPending) return "an intent that is not pending";
    asked_ = event;
    return "";
  }
  const bool passes =
      event.type == EventType::kDrillPassed || event.type == EventType::kRestoreCompleted;
  if (event.outcome != (passes ? Outcome::kSuccess : Outcome::kFailure)) {
    return "of another outcome than its type";
  }
  if (event.type != EventType::kRestoreCompleted && event.type != EventType::kRestoreFailed) {
    return "";
  }
  const std::optional<audit::Event> asked = std::exchange(asked_, std::nullopt);
  const auto process = [](const audit::Event& of) {
    const audit::Actor actor = of.actor.value_or(audit::Actor());
    return std::pair(actor.uid, actor.pid);
  };
  const bool fits = asked && asked->key == event.key && process(*asked) == process(event);
  return fits ? "" : "the end of a restore that no line before it asked for";
}

}  // namespace keyescrow::agent
