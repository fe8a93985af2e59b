// Restores whose process ended before it logged an outcome: the next command that writes logs that
// they were interrupted, so that each release has an end, and one that may have happened is named.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/audit/event.h"
#include "agent/store/escrow_store.h"
#include "envelope/base/result.h"

namespace keyescrow::agent {

// The setting that keeps which restores are under way: a line "SEQ PROCESS" each.
inline constexpr std::string_view kOpenRestoresSetting = "open_restores";

struct OpenRestore {
  std::uint64_t seq = 0;  // of its restore.requested
  std::string process;    // ProcessName
};
// ParseOpenRestores passes over a line that is none.
std::vector<OpenRestore> ParseOpenRestores(std::string_view text);

// UpdateOpenRestores adds to `settings` what `events` change of it: this process's, the first of
// them at `seq`, which the commit under way appends.
Status UpdateOpenRestores(const std::vector<audit::Event>& events, std::uint64_t seq,
                          store::EscrowStore& store, std::vector<store::Setting>& settings);

// InterruptedEvents makes the entries that end those of `gone` which are still open in the store.
Result<std::vector<audit::Event>> InterruptedEvents(const std::vector<OpenRestore>& gone,
                                                    store::EscrowStore& store);
// UncertainRelease is the entry that ends the restore of `request`, at `seq`, where it is not known
// whether the key went out: `why` says what happened.
audit::Event UncertainRelease(const audit::Event& request, std::uint64_t seq, std::string_view why);
// InterruptedSeq returns the number of the restore.requested that such an entry ends.
std::optional<std::uint64_t> InterruptedSeq(audit::EventType type, audit::Outcome outcome,
                                            std::string_view reason);

// InterruptedText: "" or " (1 interrupted: its key may have been released)".
std::string InterruptedText(std::uint64_t num_interrupted);

}  // namespace keyescrow::agent
