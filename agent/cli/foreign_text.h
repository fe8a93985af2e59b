// Foreign escrows, as JSON and as text. Whatever is said of them says too that keyescrow does not
// hold them and has not proven them.
#pragma once

#include <string>
#include <vector>

#include "agent/cli/render.h"
#include "agent/usecases/foreign_escrow.h"

namespace keyescrow::agent {

// ForeignJson: {"kind","place","item","volume","keyslots","opens_by","opens_nothing",
// "recoverability","caveats","found","held":false,"proven":false}; recoverability is {"open",
// "survives","withstands","losses","thefts"}, or null where it is not known.
Json ForeignJson(const ForeignEscrow& escrow);
Json ForeignListJson(const std::vector<ForeignEscrow>& escrows);

// RenderForeign: a heading and some lines each; "" for an empty list.
std::string RenderForeign(const Json& escrows);

}  // namespace keyescrow::agent
