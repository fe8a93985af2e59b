#include "agent/usecases/event_counts.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "agent/usecases/imported_counts.h"

namespace keyescrow::agent {
namespace {

using Counts = std::map<std::string, std::uint64_t, std::less<>>;

constexpr std::string_view kOwn = "own ";
constexpr std::string_view kImported = "imported.";
constexpr std::string_view kLastVerify = "verify.last";
// Of all verifications: an imported one, or one behind it.
constexpr std::string_view kLastOfAll = "imported.verify.last";

bool Contains(std::string_view line, std::string_view text) {
  // std::string_view::find stops at each quote.
  return memmem(line.data(), line.size(), text.data(), text.size()) != nullptr;
}

// TypeOf finds the member without parsing the line: a quote inside a string is always escaped, and
// no other member of an entry is called "type".
std::string_view TypeOf(std::string_view line) {
  constexpr std::string_view kMember = "\"type\":\"";
  // std::string_view::find stops at each quote.
  const void* const found = memmem(line.data(), line.size(), kMember.data(), kMember.size());
  if (found == nullptr) return {};
  const auto at = static_cast<std::size_t>(static_cast<const char*>(found) - line.data());
  line.remove_prefix(at + kMember.size());
  return line.substr(0, line.find('"'));
}

bool IsCounted(std::string_view type) {
  if (type.starts_with(kImported)) type.remove_prefix(kImported.size());
  return type.starts_with("drill.") || type.starts_with("restore.") || type.starts_with("verify.");
}

Counts ReadWords(std::string_view text) {
  Counts result;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const std::size_t equals = word.find('=');
    std::uint64_t number = 0;
    if (equals == std::string_view::npos || !IsCounted(word.substr(0, equals))) continue;
    const auto [last, error] =
        std::from_chars(word.data() + equals + 1, word.data() + word.size(), number);
    if (error != std::errc() || last != word.data() + word.size()) continue;
    result[std::string(word.substr(0, equals))] = number;
  }
  return result;
}

std::string Join(const Counts& counts) {
  std::string text;
  for (const auto& [name, number] : counts) {
    text += (text.empty() ? "" : " ") + name + "=" + std::to_string(number);
  }
  return text;
}

}  // namespace

EventCounts EventCounts::Parse(std::string_view text) {
  EventCounts result;
  result.counts_ = ReadWords(text);
  return result;
}

std::string EventCounts::Text() const {
  return counts_.empty() ? "" : std::string(kOwn) + Join(counts_);
}

bool CountsAreOfOwn(std::string_view text) { return text.empty() || text.starts_with(kOwn); }

std::string CountsWithImported(std::string_view text) {
  const Counts counts = ReadWords(text);
  Counts all;
  for (const auto& [name, number] : counts) {
    if (!name.starts_with(kImported) && name != kLastVerify) all[name] += number;
    if (name.starts_with(kImported) && name != kLastOfAll) {
      all[name.substr(kImported.size())] += number;
    }
  }
  const auto last = counts.find(counts.contains(kLastOfAll) ? kLastOfAll : kLastVerify);
  if (last != counts.end()) all[std::string(kLastVerify)] = last->second;
  return Join(all);
}

void EventCounts::Add(std::string_view line) {
  const std::string_view type = TypeOf(line);
  if (!IsCounted(type) || !audit::EventTypeFromName(type)) return;
  // Strings escape their quotes, and no other member of an entry is called "source".
  const bool imported = Contains(line, "\"source\":\"stateless\"");
  ++counts_[std::string(imported ? kImported : "") + std::string(type)];
  if (!type.starts_with("verify.")) return;
  const bool passed = type == audit::EventTypeName(audit::EventType::kVerifyPassed);
  if (!imported) counts_[std::string(kLastVerify)] = passed ? 1 : 0;
  if (imported || counts_.contains(kLastOfAll)) counts_[std::string(kLastOfAll)] = passed ? 1 : 0;
}

void EventCounts::Append(const EventCounts& later) {
  for (const auto& [name, number] : later.counts_) {
    if (name == kLastVerify || name == kLastOfAll) {
      counts_[name] = number;
    } else {
      counts_[name] += number;
    }
  }
  const auto last = later.counts_.find(kLastVerify);
  if (last != later.counts_.end() && !later.counts_.contains(kLastOfAll) &&
      counts_.contains(kLastOfAll)) {
    counts_[std::string(kLastOfAll)] = last->second;
  }
}

std::uint64_t EventCounts::Of(audit::EventType type) const {
  const auto found = counts_.find(audit::EventTypeName(type));
  return found == counts_.end() ? 0 : found->second;
}

std::optional<bool> EventCounts::LastVerify() const {
  const auto found = counts_.find(kLastVerify);
  if (found == counts_.end()) return std::nullopt;
  return found->second == 1;
}

}  // namespace keyescrow::agent
