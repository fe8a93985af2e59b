// Completions for the shells, made from the command table.
#pragma once

#include <cstdint>
#include <string>

namespace keyescrow::agent {

enum class Shell : std::uint8_t { kBash, kZsh, kFish };

// CompletionScript returns the script that the shell sources. It never runs keyescrow.
std::string CompletionScript(Shell shell);

}  // namespace keyescrow::agent
