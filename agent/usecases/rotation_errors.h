// How a rotation that does not end well is told, and what the operator can do then.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/store/escrow_store.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/rotation_backup.h"
#include "agent/usecases/rotation_record.h"
#include "envelope/base/error.h"

namespace keyescrow::agent {

// Instead of the text of --apply, once a rotation ended.
inline constexpr std::string_view kEndedCommand = "(ended)";

// Unresolved: which key is in use is not known, by what stands at its place. `interrupted`: an
// earlier call did not end.
Error Unresolved(const Agent& agent, const store::RotationRecord& record, const HeldKey& held,
                 bool interrupted);

// IsInUse refuses to roll back what stands at the key's place.
Error IsInUse(const store::RotationRecord& record, const HeldKey& held);

// WhyNotProven appends to `text` why each path was not proven: "; token-ops: the token …".
std::string WhyNotProven(std::string text, const Refusals& refusals);
// NotHandedOver: no path was proven, so the new version was abandoned. Its code is that of the PIN
// or password that was refused, where one was; else kFindings.
Error NotHandedOver(const store::RotationRecord& record, const std::vector<PathProof>& paths,
                    const Refusals& refusals);

}  // namespace keyescrow::agent
