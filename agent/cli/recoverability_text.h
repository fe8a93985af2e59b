// What a key survives and what opens it, as JSON, as one line, and as a drawing of 80 columns.
// Plain ASCII without colour: it is read over serial lines and in tickets.
#pragma once

#include <string>

#include "agent/cli/render.h"
#include "agent/usecases/inventory.h"

namespace keyescrow::agent {

// RecoverabilityJson: {"survives","withstands","losses","thefts","factors","paths"}: `losses` and
// `thefts` are all minimal sets, `paths` says for each path which factors it needs, and of its
// officers how many. Null where the key has too many factors.
Json RecoverabilityJson(const KeyView& key);

// RecoverabilityLine: "survives the loss of any one; opened by token:ops + password". Of null: that
// it is not computed.
std::string RecoverabilityLine(const Json& recoverability);

// RecoverabilityDrawing: paths as rows, factors as columns, then the minimal losses and thefts. At
// most 80 columns wide unless a single name is longer. Of null: the line.
std::string RecoverabilityDrawing(const Json& recoverability);

}  // namespace keyescrow::agent
