// Proving bytes that are about to be committed: reopened by their paths, one after the other.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/open_path.h"
#include "agent/usecases/path_proof.h"

namespace keyescrow::agent {

// PathTrial: how one path did. `drill` where it opened.
struct PathTrial {
  std::optional<audit::EventDrill> drill;
  std::optional<Error> error;  // why it did not open, or was not tried

  // NotAtHand: a device, a PIN or a password is not here; nothing is learnt of the path.
  bool NotAtHand() const;
};

struct TrialContext {
  Agent* agent = nullptr;
  const envelope::SealedEnvelope* sealed = nullptr;
  const SecretBytes* content = nullptr;
  Secrets* secrets = nullptr;
  envelope::DrillCheckpoint checkpoint;
};

// TryPath reopens a path where its hardware and PINs are at hand, officers' tokens too: nobody is
// waited for. Recovery keys are left to `drill`. Errors: kInternal where a path opens to other
// bytes than `content`.
Result<PathTrial> TryPath(const TrialContext& context, PathOpener& opener, std::size_t index);

// RecordTrial adds the event that tells of the proof, and what the store keeps of it.
void RecordTrial(const TrialContext& context, std::size_t index, const audit::EventDrill& drill,
                 const std::string& proven_by, std::vector<audit::Event>& events,
                 store::Change& change);

}  // namespace keyescrow::agent
