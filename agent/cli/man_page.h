// The manual page of each command, from the table of commands: what --help says, for man(1).
#pragma once

#include <string>

#include "agent/cli/command_table.h"

namespace keyescrow::agent {

// ManPageName returns e.g. "keyescrow-token-add".
std::string ManPageName(const CommandSpec& command);

// ManPage returns the page in mdoc(7). `date` is as .Dd takes it: "November 26, 2026".
std::string ManPage(const CommandSpec& command, std::string_view date);

}  // namespace keyescrow::agent
