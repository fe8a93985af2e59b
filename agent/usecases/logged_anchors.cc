#include "agent/usecases/logged_anchors.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

#include "agent/usecases/anchor_counters.h"

namespace keyescrow::agent {
namespace {

bool IsOf(const audit::EventAnchor& anchor, const envelope::AnchorKey& key) {
  return envelope::AnchorKey{anchor.key, anchor.index} == key;
}

// FoundCounters: none where the devices cannot tell.
Result<std::vector<FoundCounter>> FoundCounters(Agent& agent, AnchorCounters*& devices) {
  devices = dynamic_cast<AnchorCounters*>(agent.environment().devices);
  if (devices == nullptr) return std::vector<FoundCounter>();
  return devices->FindCounters(agent.identity().origin);
}

}  // namespace

audit::AnchorState LoggedAnchors::Of(const envelope::AnchorKey& key) const {
  return trail.state().key == key ? trail.state() : audit::AnchorState();
}

bool KnowsCounter(const audit::AnchorState& state) {
  return state.counter || state.intent || state.mismatch_open;
}

Result<LoggedAnchors> ReadLoggedAnchors(Agent& agent, LoggedAnchors read) {
  EventFilter filter;
  filter.first = read.num_entries;
  filter.types = {audit::EventType::kAnchorTpm, audit::EventType::kAnchorMismatch};
  const auto& own = agent.identity().anchor;
  std::optional<audit::Event> last;
  RETURN_IF_ERROR(agent.journal().Events(filter, [&](const LoggedEvent& logged) {
    const audit::Event& event = *logged.event;
    static_cast<void>(read.trail.Add(event));  // what is wrong with it is verify's to tell
    read.num_entries = logged.seq + 1;
    if (event.type == audit::EventType::kAnchorTpm && event.outcome == audit::Outcome::kSuccess &&
        event.source != audit::kStatelessSource && own && event.anchor &&
        IsOf(*event.anchor, own->key)) {
      last = event;
    }
    return true;
  }));
  if (last) RETURN_IF_ERROR(audit::CheckAnchor(*last, {own->key}));
  return read;
}

Result<std::optional<audit::Event>> RememberedAnchor(Agent& agent, std::string_view setting) {
  ASSIGN_OR_RETURN(const auto value, agent.store().GetSetting(setting));
  if (!value) return std::optional<audit::Event>();
  const std::uint64_t seq = std::strtoull(value->c_str(), nullptr, 10);
  auto entry = agent.store().Entry(seq);
  auto event = entry ? audit::ParseEvent(AsText(entry->bytes))
                     : Result<audit::Event>(std::move(entry).error());
  if (!event || event->source_seq != seq || event->source != agent.identity().origin) {
    return Error(ErrorCode::kLogDamaged, Action::kCallOperator,
                 fmt::format("entry {} is not the one that the store remembers", seq),
                 "run 'keyescrow verify'");
  }
  return std::optional(std::move(*event));
}

Result<audit::AnchorState> RememberedState(Agent& agent) {
  const envelope::AnchorKey& key = agent.identity().anchor->key;
  std::vector<audit::Event> events;
  for (const std::string_view setting :
       {kAnchorSetting, kAnchorIntentSetting, kAnchorMismatchSetting}) {
    ASSIGN_OR_RETURN(auto event, RememberedAnchor(agent, setting));
    // What an earlier counter said does not bind this one.
    if (!event || !event->anchor || !IsOf(*event->anchor, key)) continue;
    if (setting == kAnchorSetting) RETURN_IF_ERROR(audit::CheckAnchor(*event, {key}));
    events.push_back(std::move(*event));
  }
  std::ranges::sort(events, {}, &audit::Event::source_seq);
  audit::AnchorTrail trail({});
  // Entries between these three are not read: how far the counter rose is verify's to check.
  for (const audit::Event& event : events) static_cast<void>(trail.Add(event));
  return trail.state();
}

Result<std::string> UnknownCounter(Agent& agent, std::optional<std::uint32_t> known,
                                   bool anchored) {
  AnchorCounters* devices = nullptr;
  ASSIGN_OR_RETURN(const std::vector<FoundCounter> counters, FoundCounters(agent, devices));
  const auto& own = agent.identity().anchor;
  for (const FoundCounter& counter : counters) {
    if (!counter.counted || counter.index == known) continue;
    const bool named = own && own->key.nv_index == counter.index;
    return fmt::format(
        "an older store was put back, or agent.json was changed: the tpm has a counter "
        "of this log at 0x{:08x} that has counted, and {}",
        counter.index,
        named ? "what the state has does not belong to it" : "agent.json does not name it");
  }
  return anchored && !own ? std::string(kNoCounterNamed) : std::string();
}

Status RemoveUnknownCounters(Agent& agent, std::uint32_t known) {
  AnchorCounters* devices = nullptr;
  ASSIGN_OR_RETURN(const std::vector<FoundCounter> counters, FoundCounters(agent, devices));
  for (const FoundCounter& counter : counters) {
    if (counter.index == known) continue;
    RETURN_IF_ERROR(devices->RemoveCounter(counter.index, agent.identity().origin));
  }
  return Ok();
}

}  // namespace keyescrow::agent
