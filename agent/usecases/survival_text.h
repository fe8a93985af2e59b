// What a key survives and what opens it, in one line: `status` says the same of the same key.
#pragma once

#include <optional>
#include <string>

#include "envelope/recoverability.h"

namespace keyescrow::agent {

// SurvivalText: "survives the loss of any one; opened by token:ops + password"; of none, that it is
// not computed.
std::string SurvivalText(const std::optional<envelope::Recoverability>& recoverability);

}  // namespace keyescrow::agent
