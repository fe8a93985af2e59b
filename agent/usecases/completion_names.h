// What a shell completes: names that stand in the store. It is read and never written, no device is
// touched, and nothing that is secret or long to compute is looked at.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/config/config.h"

namespace keyescrow::agent {

// CompletionNames returns the names of `kind`, sorted: "keys" (escrowed or declared), "tokens",
// "paths" (the ids of `key_name`'s newest envelope; of no key: none), "losses" (what `what-if`
// takes). A state that is not there or cannot be read has no names: a shell that completes has no
// place for an error.
std::vector<std::string> CompletionNames(const std::string& state_dir, const AgentConfig& config,
                                         std::string_view kind, std::string_view key_name);

}  // namespace keyescrow::agent
