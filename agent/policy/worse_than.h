// What an edit of a key's paths breaks that was not broken before. Pure.
#pragma once

#include <vector>

#include "agent/policy/evaluate.h"

namespace keyescrow::agent::policy {

// WorseThan returns the critical findings of the shape of `after` that `before` does not have. A
// key that a newer policy found wanting can so be mended step by step, and its password changed at
// once; nothing that holds may be given up. What a key survives, and withstands, counts as it was
// where the number did not fall. `facts` are those of now, for both.
std::vector<Finding> WorseThan(const Policy& policy, const KeyFacts& before, const KeyFacts& after,
                               const Facts& facts);

}  // namespace keyescrow::agent::policy
