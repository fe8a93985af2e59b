// completion-names: what the completions of the shells ask for. One name a line; never an error.
#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/usecases/completion_names.h"

namespace keyescrow::agent {

int RunCompletionNames(const GlobalOptions& /*global*/, const CompletionNamesOptions& options,
                       Session& session) {
  std::string text;
  for (const std::string& name : CompletionNames(session.environment().state_dir, session.config(),
                                                 options.kind, options.name)) {
    text += name + "\n";
  }
  (void)session.terminal().WriteResult(text);
  return kExitDone;
}

}  // namespace keyescrow::agent
