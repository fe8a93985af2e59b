// Anchors in the log: what a verifier checks of each entry, and what the counter must be now.
// FORMAT.md, "Anchors". Pure: keys and numbers come in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/audit/event.h"
#include "envelope/anchor.h"
#include "envelope/base/result.h"

namespace keyescrow::agent::audit {

// CheckAnchor checks an anchor.tpm entry of outcome success: the attestation key is one of `keys`,
// its signature holds, and what it signs is this log's counter at event.anchor->counter over
// event.prev_checkpoint. That prev_checkpoint is the log's own is LogVerifier's to check. Offline.
// Errors: kAnchorInvalid.
Result<envelope::AnchorFacts> CheckAnchor(const Event& event,
                                          const std::vector<envelope::AnchorKey>& keys);

// AnchorState: where the log says that the counter is.
struct AnchorState {
  // The key and index that the newest anchor entry names.
  std::optional<envelope::AnchorKey> key;
  std::optional<std::uint64_t> counter;  // of the last success
  std::int64_t time = 0;                 // of the last success
  std::optional<std::uint64_t> intent;   // of an intent after it
  bool mismatch_open = false;            // an anchor.mismatch that nobody has settled
  std::string mismatch;                  // its reason
};

// AnchorTrail is fed a log's entries in order and keeps one state; entries that are not about
// anchors change nothing.
class AnchorTrail {
 public:
  // `keys`: those known to be the log's. Without any, certificates are counted and not checked.
  explicit AnchorTrail(std::vector<envelope::AnchorKey> keys) : keys_(std::move(keys)) {}

  // Add returns what is wrong with the entry: a certificate that does not verify, a counter that
  // did not rise by one, a mismatch (which stays a finding after somebody settled it).
  std::optional<std::string> Add(const Event& event);

  const AnchorState& state() const { return state_; }
  std::uint64_t num_checked() const { return num_checked_; }
  std::uint64_t num_unchecked() const { return num_unchecked_; }

 private:
  std::vector<envelope::AnchorKey> keys_;
  AnchorState state_;
  std::uint64_t num_checked_ = 0;
  std::uint64_t num_unchecked_ = 0;
};

// CounterVerdict: what the counter that was read says of the store.
enum class CounterVerdict : std::uint8_t {
  kRight,            // nothing happened since the last anchor
  kRedoIncrement,    // an intent, and the process died before the increment
  kRedoCertify,      // an intent, and the process died after it
  kStoreWentBack,    // entries are missing: an older store was put back
  kCounterWentBack,  // the TPM's memory was put back: a virtual TPM's snapshot
};

// JudgeCounter compares; `base` is the counter as it was made, before the first anchor.
CounterVerdict JudgeCounter(const AnchorState& state, std::uint64_t base, std::uint64_t found);

}  // namespace keyescrow::agent::audit
