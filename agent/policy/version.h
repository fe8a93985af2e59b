// Versions of keyescrow, as min_agent_version compares them: one to three numbers joined by dots.
#pragma once

#include <string_view>

namespace keyescrow::agent::policy {

bool IsVersion(std::string_view text);

// IsOlder compares number by number; a missing one is 0. What is no version is not older.
bool IsOlder(std::string_view version, std::string_view than);

}  // namespace keyescrow::agent::policy
