// The help texts: `keyescrow --help` by journey, `keyescrow COMMAND --help` by example.
#pragma once

#include <string>
#include <string_view>

#include "agent/cli/command_table.h"

namespace keyescrow::agent {

// GeneralHelp tells the journeys: set up, back up, restore, prove, audit.
std::string GeneralHelp();

// GroupHelp lists the commands that begin with `word` ("token").
std::string GroupHelp(std::string_view word);

// CommandHelp: purpose, usage, options, examples, exit statuses.
std::string CommandHelp(const CommandSpec& command);

// UsageLine: "keyescrow restore NAME|FILE [options]".
std::string UsageLine(const CommandSpec& command);

}  // namespace keyescrow::agent
