// DrillChecker: every proof of a path that a log tells of, held against the envelope that it is of.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "agent/audit/event.h"
#include "agent/audit/log_faults.h"
#include "agent/store/store_reader.h"
#include "envelope/header.h"

namespace keyescrow::agent {

struct DrillTally {
  std::uint64_t num_held = 0;           // by the signature of the path's own key
  std::vector<std::uint64_t> not_held;  // their entries, in order; each a finding
  std::uint64_t num_no_envelope = 0;    // not checked: of a file, or of a revision that is not kept
  std::uint64_t num_no_tile = 0;        // not checked: the tile that its root needs is damaged
  void Add(const DrillTally& other) {
    num_held += other.num_held;
    not_held.insert(not_held.end(), other.not_held.begin(), other.not_held.end());
    num_no_envelope += other.num_no_envelope;
    num_no_tile += other.num_no_tile;
  }
};

// One a thread. Keeps the newest envelopes' headers: a backup proves all its paths at once.
class DrillChecker {
 public:
  explicit DrillChecker(store::StoreReader& reader) : reader_(reader) {}

  // Check verifies the proof of entry `seq`, which has a drill, as audit/FORMAT.md, "Drill proofs",
  // says. One that does not hold is damage; of an imported event, which nothing signed before, it
  // is a finding. What is wrong with the envelope itself is told elsewhere. Errors: StoreReader's.
  Status Check(std::uint64_t seq, const audit::Event& event, audit::LogFindings& findings);

  const DrillTally& tally() const { return tally_; }

 private:
  // HeaderOf returns the header of the very envelope that the event names, or null.
  Result<const envelope::Header*> HeaderOf(const audit::Event& event);
  // RootAt returns the root of the log's first `size` entries; nothing where a tile is damaged.
  std::optional<Bytes32> RootAt(std::uint64_t size);
  Status CheckStatement(std::uint64_t seq, const audit::Event& event,
                        const envelope::Header& header, bool& has_root);

  store::StoreReader& reader_;
  DrillTally tally_;
  std::map<Bytes32, std::unique_ptr<envelope::Header>> headers_;  // null: not at hand
  std::optional<std::pair<std::uint64_t, std::optional<Bytes32>>> last_root_;
};

}  // namespace keyescrow::agent
