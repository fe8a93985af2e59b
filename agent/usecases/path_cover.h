// Cover: what the opening of a recovery key says of a path to it, as against a proof of the very
// envelope.
#pragma once

#include <string_view>

#include "agent/usecases/event_order.h"
#include "agent/usecases/inventory.h"

namespace keyescrow::agent {

inline constexpr std::string_view kCoveredName = "covered";

// IsCovered: the path itself was not seen to open; the recovery key that it goes to was, at
// `proven`, as lately as the policy asks for.
inline bool IsCovered(const PathView& path) {
  return path.condition == PathCondition::kProven && path.proven_by == kRecoveryKeyKind;
}

// ConditionName is PathConditionName, and "covered" where the path is.
inline std::string_view ConditionName(const PathView& path) {
  return IsCovered(path) ? kCoveredName
                         : PathConditionName(path.condition.value_or(PathCondition::kUnproven));
}

}  // namespace keyescrow::agent
