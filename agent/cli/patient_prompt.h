// AskLinePatiently: a question that also ends by itself, when what it waits for has happened.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {

// AskLinePatiently writes "`label`: " to the terminal `device` and returns the line that is typed,
// without its line feed. It calls `look` every kLookPeriodMs meanwhile, with signals blocked, and
// returns nothing once that is true; also after the process was stopped and continued, so that the
// screen can be shown again. The line may be a secret, typed too early. Blocks. Errors: as
// SecretPrompt::AskLine.
inline constexpr int kLookPeriodMs = 1500;
Result<std::optional<SecretBytes>> AskLinePatiently(const char* device, std::string_view label,
                                                    const std::function<bool()>& look);

}  // namespace keyescrow::agent
