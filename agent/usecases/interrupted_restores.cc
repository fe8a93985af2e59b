#include "agent/usecases/interrupted_restores.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "agent/key_locations/apply_command.h"

namespace keyescrow::agent {
namespace {

using audit::EventType;

constexpr std::string_view kEntry = "entry ";

// LeadingNumber reads a number that `end` follows, and takes both off `text`.
std::optional<std::uint64_t> LeadingNumber(std::string_view& text, char end) {
  std::uint64_t number = 0;
  const char* last = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), last, number);
  if (error != std::errc() || at == last || *at != end) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(at - text.data()) + 1);
  return number;
}

std::string FormatOpenRestores(const std::vector<OpenRestore>& open) {
  std::string text;
  for (const OpenRestore& restore : open) {
    text += fmt::format("{} {}\n", restore.seq, restore.process);
  }
  return text;
}

bool TellsOfRestore(const audit::Event& event) {
  return event.type == EventType::kRestoreRequested || event.type == EventType::kRestoreCompleted ||
         event.type == EventType::kRestoreFailed || event.type == EventType::kRestoreDenied ||
         event.type == EventType::kRestoreReleased;
}

bool SameProcess(const audit::Event& left, const audit::Event& right) {
  return left.actor && right.actor && left.actor->uid == right.actor->uid &&
         left.actor->pid == right.actor->pid;
}

void Note(const audit::Event& event, std::uint64_t seq, std::vector<OpenRestore>& open) {
  if (!TellsOfRestore(event)) return;
  if (event.type == EventType::kRestoreReleased) {
    const auto ended = InterruptedSeq(event.type, event.outcome, event.reason);
    std::erase_if(open, [&](const OpenRestore& restore) { return restore.seq == ended; });
    return;
  }
  const std::string self = ProcessName(getpid());
  // One process does one restore at a time.
  std::erase_if(open, [&](const OpenRestore& restore) { return restore.process == self; });
  // Of a process that cannot be found again it could not be said that it ended.
  if (event.type == EventType::kRestoreRequested && StillRuns(self)) open.push_back({seq, self});
}

// HasEnd: an entry tells how the restore of `request`, at `seq`, ended. The setting alone is no
// witness: whoever writes it would have the agent sign that a restore was interrupted.
Result<bool> HasEnd(const audit::Event& request, std::uint64_t seq, store::EscrowStore& store) {
  bool ended = false;
  const std::string name = request.key ? request.key->name : "";
  RETURN_IF_ERROR(store.Entries(seq + 1, name, [&](const store::LogEntry& entry) {
    const auto event = audit::ParseEvent(AsText(entry.bytes));
    if (!event || event->source == audit::kStatelessSource || event->key != request.key) {
      return true;
    }
    if (event->type == EventType::kRestoreReleased) {
      ended = InterruptedSeq(event->type, event->outcome, event->reason) == seq;
      return !ended;
    }
    if (!TellsOfRestore(*event) || !SameProcess(*event, request)) return true;
    ended = event->type != EventType::kRestoreRequested;
    return false;  // a later one's entries tell nothing of this one
  }));
  return ended;
}

}  // namespace

std::vector<OpenRestore> ParseOpenRestores(std::string_view text) {
  std::vector<OpenRestore> open;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (const auto seq = LeadingNumber(line, ' ')) open.push_back({*seq, std::string(line)});
  }
  return open;
}

Status UpdateOpenRestores(const std::vector<audit::Event>& events, std::uint64_t seq,
                          store::EscrowStore& store, std::vector<store::Setting>& settings) {
  if (std::none_of(events.begin(), events.end(), TellsOfRestore)) return Ok();
  ASSIGN_OR_RETURN(const auto before, store.GetSetting(kOpenRestoresSetting));
  std::vector<OpenRestore> open = ParseOpenRestores(before.value_or(""));
  for (const audit::Event& event : events) Note(event, seq++, open);
  std::string after = FormatOpenRestores(open);
  if (after == before.value_or("")) return Ok();
  settings.push_back({std::string(kOpenRestoresSetting), std::nullopt});
  if (!open.empty()) settings.back().value = std::move(after);
  return Ok();
}

Result<std::vector<audit::Event>> InterruptedEvents(const std::vector<OpenRestore>& gone,
                                                    store::EscrowStore& store) {
  ASSIGN_OR_RETURN(const auto text, store.GetSetting(kOpenRestoresSetting));
  std::vector<audit::Event> events;
  for (const OpenRestore& open : ParseOpenRestores(text.value_or(""))) {
    const bool is_gone = std::any_of(gone.begin(), gone.end(), [&](const OpenRestore& other) {
      return other.seq == open.seq && other.process == open.process;
    });
    if (!is_gone) continue;  // or another process was first
    ASSIGN_OR_RETURN(const store::LogEntry entry, store.Entry(open.seq));
    const auto request = audit::ParseEvent(AsText(entry.bytes));
    if (!request || request->type != EventType::kRestoreRequested) continue;
    ASSIGN_OR_RETURN(const bool ended, HasEnd(*request, open.seq, store));
    if (ended) continue;
    events.push_back(
        UncertainRelease(*request, open.seq, "its process ended before it logged an outcome"));
  }
  return events;
}

audit::Event UncertainRelease(const audit::Event& request, std::uint64_t seq,
                              std::string_view why) {
  audit::Event event;
  event.type = EventType::kRestoreReleased;
  event.outcome = audit::Outcome::kPending;
  event.key = request.key;
  event.envelope = request.envelope;
  event.paths = request.paths;
  event.ticket = request.ticket;
  event.reason = fmt::format("{}{}: {}; the key may have been released", kEntry, seq, why);
  return event;
}

std::optional<std::uint64_t> InterruptedSeq(EventType type, audit::Outcome outcome,
                                            std::string_view reason) {
  if (type != EventType::kRestoreReleased || outcome != audit::Outcome::kPending) return {};
  if (!reason.starts_with(kEntry)) return {};
  reason.remove_prefix(kEntry.size());
  return LeadingNumber(reason, ':');
}

std::string InterruptedText(std::uint64_t num_interrupted) {
  if (num_interrupted == 0) return "";
  return fmt::format(" ({} interrupted: {} may have been released)", num_interrupted,
                     num_interrupted == 1 ? "its key" : "their keys");
}

}  // namespace keyescrow::agent
