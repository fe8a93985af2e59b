// What a restore or a rotation put aside beside a destination (PATH.keyescrow-previous), and
// whether it is escrowed: nothing tells where it came from but its bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "agent/store/escrow_store.h"
#include "agent/usecases/agent.h"

namespace keyescrow::agent {

struct PutAside {
  store::DestinationRecord record;
  bool is_there = true;
  std::optional<std::uint32_t> version;  // of the record's key: the one that has these bytes
  std::string why_not;  // without one: "no escrowed version of app/key has its bytes", "whether …"
  // MayBeTheOnlyCopy: what is removed then may be escrowed nowhere.
  bool MayBeTheOnlyCopy() const { return is_there && !version; }
};

// LookAtPutAside compares it with the fingerprints of every version that is escrowed.
// Errors: kStore*, kMemoryLockLimit, kOutOfMemory.
Result<PutAside> LookAtPutAside(Agent& agent, const store::DestinationRecord& record);

// FindPutAside looks for what lies beside `sink`. Errors: kNotFound where nothing is known to;
// LookAtPutAside's.
Result<PutAside> FindPutAside(Agent& agent, const std::string& sink);

// DiscardPrevious removes it, durably, then logs it; what was gone already is told so.
// `only_copy_too`: also what MayBeTheOnlyCopy. Errors: FindPutAside's; kUsage where it may be, and
// that was not said; kDestination*.
Result<PutAside> DiscardPrevious(Agent& agent, const std::string& sink, bool only_copy_too);

}  // namespace keyescrow::agent
