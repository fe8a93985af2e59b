// EventFacts: what verification asks of an entry, read in one pass and without a copy.
//
// ParseEvent decides what an event is. EventReader agrees with it on every line and costs a tenth
// for the plain ones: printable ASCII without escapes, and the members that most entries have. Any
// other line it gives to ParseEvent.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "agent/audit/event.h"
#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent::audit {

struct EventFacts {
  Bytes16 id{};
  std::string_view source;
  std::uint64_t source_seq = 0;
  std::int64_t time = 0;
  EventType type{};
  Outcome outcome = Outcome::kSuccess;
  std::string_view error;
  std::uint32_t uid = 0;
  std::int32_t pid = 0;
  bool has_key = false;
  std::string_view key_name;
  std::uint32_t key_version = 0;
  bool has_envelope = false;
  std::string_view envelope_id;
  std::uint32_t revision = 0;
  Bytes32 envelope_sha256{};
  bool has_policy = false;
  std::uint64_t policy_serial = 0;
  Bytes32 policy_sha256{};
  std::string_view path_id;      // of the first path
  std::string_view factor_kind;  // of its first factor
  std::string_view factor_id;
  std::optional<Bytes32> factor_key_sha256;
  std::string_view reason;
  std::optional<Bytes32> prev_checkpoint;
  bool truncated = false;
  const Event* event = nullptr;  // the whole event, where the line was not plain
};

class EventReader {
 public:
  // Read returns the facts of a line; they borrow from it and from the reader, until the next Read.
  // Errors: ParseEvent's.
  Result<EventFacts> Read(std::string_view line);

 private:
  Event slow_;
};

// ScanPlainEvent is the fast way alone: nothing where the line is not plain, or no event at all.
std::optional<EventFacts> ScanPlainEvent(std::string_view line);

}  // namespace keyescrow::agent::audit
