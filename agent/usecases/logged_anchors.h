// LoggedAnchors: where the log itself says that its counter is.
//
// The truth of an anchor is in two places that who owns the state folder cannot turn back: the
// log's certificates, and the TPM's counter. What agent.json and the store's settings say only
// saves time: an older store can be put back together with any agent.json and any settings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/audit/anchor.h"
#include "agent/usecases/agent.h"
#include "envelope/base/result.h"

namespace keyescrow::agent {

inline constexpr std::string_view kNoCounterNamed =
    "the log was anchored in a tpm, and agent.json names no counter: it was changed, or is of an "
    "older copy than the store";

struct LoggedAnchors {
  // Of whichever counter the newest anchor entry names; certificates are counted, as unchecked.
  audit::AnchorTrail trail = audit::AnchorTrail(std::vector<envelope::AnchorKey>());
  std::uint64_t num_entries = 0;  // that were read

  bool any() const { return trail.num_unchecked() > 0; }
  // Of is the state of one counter: nothing where the newest anchor entry names another.
  audit::AnchorState Of(const envelope::AnchorKey& key) const;
};

// KnowsCounter: an entry told of the counter before it counted for the first time, or after.
bool KnowsCounter(const audit::AnchorState& state);

// ReadLoggedAnchors reads the entries behind those that `read` has. The last certificate of the
// agent's own counter is checked, where it is among them. Errors: kAnchorInvalid, kStore*.
Result<LoggedAnchors> ReadLoggedAnchors(Agent& agent, LoggedAnchors read = {});

// RememberedAnchor reads the anchor entry that a setting names; nothing where there is no setting.
// Errors: kLogDamaged where that entry is not there, or is another: a store that contradicts
// itself.
Result<std::optional<audit::Event>> RememberedAnchor(Agent& agent, std::string_view setting);

// RememberedState is the state of the agent's own counter by the settings alone, in constant time.
// The last certificate is checked: a store whose rows were edited cannot name another counter.
// Errors: kAnchorInvalid; as RememberedAnchor.
Result<audit::AnchorState> RememberedState(Agent& agent);

// UnknownCounter tells of a counter of this log that the TPM has, that has counted, and of which
// neither agent.json nor the log knows; or that the log was anchored and no counter is named. "":
// neither. `known` is the agent's own index, where the log knows it. At most 2 TPM commands, and
// one for each further index. Errors: kTpm*.
Result<std::string> UnknownCounter(Agent& agent, std::optional<std::uint32_t> known, bool anchored);

// RemoveUnknownCounters removes this log's counters but for `known`. Errors: kTpmOwnerAuth, kTpm*.
Status RemoveUnknownCounters(Agent& agent, std::uint32_t known);

}  // namespace keyescrow::agent
