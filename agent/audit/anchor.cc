#include "agent/audit/anchor.h"

#include <fmt/core.h>

#include <algorithm>

namespace keyescrow::agent::audit {
namespace {

Error Invalid(std::string what) {
  return Error(
      ErrorCode::kAnchorInvalid, Action::kCallOperator, std::move(what),
      "compare the log with a copy, and the attestation key with the one that was exported");
}

}  // namespace

Result<envelope::AnchorFacts> CheckAnchor(const Event& event,
                                          const std::vector<envelope::AnchorKey>& keys) {
  if (event.type != EventType::kAnchorTpm || event.outcome != Outcome::kSuccess || !event.anchor ||
      !event.anchor->signature || !event.prev_checkpoint || event.source == kStatelessSource) {
    return Invalid("the entry is not an anchor of this log");
  }
  const envelope::AnchorKey key{event.anchor->key, event.anchor->index};
  if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
    return Invalid("the anchor is by an attestation key that is not known as this log's");
  }
  ASSIGN_OR_RETURN(const envelope::AnchorFacts facts,
                   envelope::CheckAnchorStatement(
                       key, event.source, {event.anchor->attest, *event.anchor->signature}));
  if (facts.checkpoint_hash != *event.prev_checkpoint) {
    return Invalid("the anchor certifies another checkpoint than the one before its entry");
  }
  if (facts.counter != event.anchor->counter) {
    return Invalid(fmt::format("the anchor says {} where the tpm certified {}",
                               event.anchor->counter, facts.counter));
  }
  return facts;
}

std::optional<std::string> AnchorTrail::Add(const Event& event) {
  // An imported entry was written without state: it says nothing about this log's counter.
  if (!event.anchor || event.source == kStatelessSource) return std::nullopt;
  const EventAnchor& anchor = *event.anchor;
  const envelope::AnchorKey key{anchor.key, anchor.index};
  if (state_.key != key) {
    state_ = AnchorState();
    state_.key = key;
  }
  if (event.type == EventType::kAnchorMismatch) {
    state_.mismatch_open = event.outcome != Outcome::kSuccess;
    if (!state_.mismatch_open) {
      // Somebody settled it: from here on the counter counts as it was found.
      state_.counter = anchor.counter;
      state_.intent.reset();
      return std::nullopt;
    }
    state_.mismatch = event.reason;
    return "the counter was not where the log had it: " + event.reason;
  }
  if (event.type != EventType::kAnchorTpm) return std::nullopt;
  if (event.outcome == Outcome::kPending) {
    state_.intent = anchor.counter;
    return std::nullopt;
  }
  if (event.outcome != Outcome::kSuccess) return std::nullopt;
  std::optional<std::string> fault;
  if (keys_.empty()) {
    ++num_unchecked_;
  } else if (auto checked = CheckAnchor(event, keys_); !checked) {
    fault = checked.error().message();
  } else {
    ++num_checked_;
  }
  if (!fault && state_.counter && anchor.counter != *state_.counter + 1) {
    fault = fmt::format("the counter went from {} to {} between two anchors", *state_.counter,
                        anchor.counter);
  }
  state_.counter = anchor.counter;
  state_.time = event.time;
  state_.intent.reset();
  return fault;
}

CounterVerdict JudgeCounter(const AnchorState& state, std::uint64_t base, std::uint64_t found) {
  const std::uint64_t last = state.counter.value_or(base);
  if (state.intent) {
    if (found == *state.intent) return CounterVerdict::kRedoCertify;
    if (found + 1 == *state.intent) return CounterVerdict::kRedoIncrement;
    return found > *state.intent ? CounterVerdict::kStoreWentBack
                                 : CounterVerdict::kCounterWentBack;
  }
  if (found == last) return CounterVerdict::kRight;
  return found > last ? CounterVerdict::kStoreWentBack : CounterVerdict::kCounterWentBack;
}

}  // namespace keyescrow::agent::audit
