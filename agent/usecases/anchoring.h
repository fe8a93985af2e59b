// Anchoring: the log's counter in the TPM. It shows that an older store was put back, which the log
// cannot show by itself. agent/audit/FORMAT.md, "Anchors"; agent/docs/decisions/0009.
//
// An anchor is: the intent in the log, NV_Increment, NV_Certify over the newest checkpoint, the
// certificate in the log. Killed anywhere, the next one finds the intent and goes on from it; that
// holds for a new counter too, whose first intent is in the log before it counts for the first
// time.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/audit/anchor.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/inventory.h"
#include "agent/usecases/logged_anchors.h"

namespace keyescrow::agent {

struct AnchorResult {
  std::uint64_t counter = 0;
  std::uint64_t log_seq = 0;  // of the entry with the certificate
  bool made = false;          // the counter is new
  bool settled = false;       // a mismatch was accepted
};

struct AnchorRequest {
  // A new counter and key where the old ones are gone (the TPM's owner removed the index).
  bool renew = false;
  // Why a counter that is not where the log has it is accepted; "": it is not.
  std::string accept{};
};

// AnchorLog makes the counter where there is none yet, judges it, and anchors the log. A counter
// that is not where the log has it is logged (anchor.mismatch, once) and stops every later anchor
// until somebody accepts it with a reason. So does a counter of this log that the log does not
// know; accepted, it is logged, and another takes its place. 11 TPM commands, 28 with a new
// counter. Errors:
// kAnchorMismatch; kAnchorMissing; kAnchorNoIndex; kTpmOwnerAuth; kTpm*; kStoreBusy where another
// process anchors; kAlreadyExists (`renew`, and the counter works); kStore*.
Result<AnchorResult> AnchorLog(Agent& agent, const AnchorRequest& request);

// AnchorIsDue: something was committed by this process or a release happened since the last anchor,
// which is an hour old or more, or older than a release. No device is touched.
Result<bool> AnchorIsDue(Agent& agent);

// AnchorCheck: what the counter says, without changing anything. The counter is certified, not
// just read: 6 TPM commands, and one for each further counter of this log.
struct AnchorCheck {
  bool checked = false;
  bool asked = false;          // the tpm told which counters of this log it has
  std::string what;            // "the tpm's counter is at 17, where the log has it", or why not
  std::string remedy;          // where it was not checked
  std::optional<Error> error;  // the counter is not where it should be, or is gone
};
// `logged`: what a verifier has read of the log; then no setting is believed. Without it the log is
// read where the settings know of no anchor.
AnchorCheck CheckCounter(Agent& agent, const LoggedAnchors* logged = nullptr);

// AnchorFindings: what the log's settings alone tell: a mismatch that nobody has accepted, a
// release that has not been anchored for a day, a counter that agent.json lost. No device is
// touched.
Result<std::vector<Finding>> AnchorFindings(Agent& agent);

}  // namespace keyescrow::agent
