// The command line, from argv to options: only the table of the command that argv names is read.
//
// main.cc, in outline:
//   if (Status ready = PrepareProcess(); !ready) …            // terminal.h
//   GlobalOptions global;
//   auto parsed = ParseCommandLine(argc, argv, global);
//   Terminal terminal(global);
//   if (!parsed) { terminal.PrintError(parsed.error()); return ExitStatus(parsed.error()); }
//   if (auto* text = std::get_if<TextToPrint>(&parsed->options)) return terminal.WriteResult(…);
//   return std::visit([&](auto& options) { return Run(global, options, session); }, …);
#pragma once

#include <string>
#include <string_view>

#include "agent/cli/options.h"
#include "envelope/base/result.h"

namespace keyescrow::agent {

struct ParsedCommand {
  std::string_view name;  // "restore", "token add", …; static
  CommandOptions options;
};

// ParseCommandLine reads argv[1] to argv[argc - 1]. `global` is filled as far as the line was
// understood, also on an error, so that the error can be told in the form asked for (--json).
// Errors: kUsage, with a hint that names the nearest word or the help to read.
Result<ParsedCommand> ParseCommandLine(int argc, const char* const* argv, GlobalOptions& global);

}  // namespace keyescrow::agent
