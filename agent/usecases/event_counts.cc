#include "agent/usecases/event_counts.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace keyescrow::agent {
namespace {

constexpr std::string_view kLastVerify = "verify.last";

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
  return type.starts_with("drill.") || type.starts_with("restore.") || type.starts_with("verify.");
}

}  // namespace

EventCounts EventCounts::Parse(std::string_view text) {
  EventCounts result;
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
    result.counts_[std::string(word.substr(0, equals))] = number;
  }
  return result;
}

std::string EventCounts::Text() const {
  std::string text;
  for (const auto& [name, number] : counts_) {
    text += (text.empty() ? "" : " ") + name + "=" + std::to_string(number);
  }
  return text;
}

void EventCounts::Add(std::string_view line) {
  const std::string_view type = TypeOf(line);
  if (!IsCounted(type) || !audit::EventTypeFromName(type)) return;
  ++counts_[std::string(type)];
  if (type.starts_with("verify.")) {
    counts_[std::string(kLastVerify)] =
        type == audit::EventTypeName(audit::EventType::kVerifyPassed) ? 1 : 0;
  }
}

void EventCounts::Append(const EventCounts& later) {
  for (const auto& [name, number] : later.counts_) {
    if (name == kLastVerify) {
      counts_[name] = number;
    } else {
      counts_[name] += number;
    }
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
