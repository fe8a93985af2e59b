// Session: what one command works with: terminal, secrets, configuration, state, devices.
//
// Two kinds of commands ask it for the agent. Most need one, and a configuration that is right.
// `restore FILE`, `show FILE` and `verify FILE` must work at 3 a.m. on a machine that has neither,
// or has broken ones: what is broken is then a warning.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/cli/cli_progress.h"
#include "agent/cli/cli_secrets.h"
#include "agent/cli/exit_code.h"
#include "agent/cli/options.h"
#include "agent/cli/render.h"
#include "agent/cli/secret_prompt.h"
#include "agent/cli/terminal.h"
#include "agent/config/config.h"
#include "agent/config/paths.h"
#include "agent/usecases/agent.h"

namespace keyescrow::agent {

class Session {
 public:
  // `terminal` and `devices` outlive the session. The configuration is read; its error is kept.
  Session(const GlobalOptions& global, Terminal& terminal, Devices& devices);
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  Terminal& terminal() { return terminal_; }
  CliProgress& progress() { return progress_; }
  const AgentPaths& paths() const { return paths_; }
  const AgentConfig& config() const { return config_; }
  const std::optional<Error>& config_error() const { return config_error_; }
  const Environment& environment() const { return environment_; }
  Devices& devices() { return *environment_.devices; }
  std::int64_t Now() const { return environment_.clock->NowUnixSeconds(); }

  // RequireConfig: the configuration's error, for commands that stand on it. Errors:
  // kConfiguration.
  Status RequireConfig() const;

  // UseStoreBusyTimeout shortens the wait for another process that holds the store; before
  // OpenAgent.
  void UseStoreBusyTimeout(std::chrono::milliseconds timeout) {
    environment_.store.busy_timeout = timeout;
  }

  // MakeNamedConfig writes an empty configuration where the one that --config or KEYESCROW_CONFIG
  // names is not there. Errors: kDestination*.
  Status MakeNamedConfig();

  // OpenAgent opens the state, once. Errors: kConfiguration, also where a configuration is named
  // and not there: without it, what it declares would pass as not declared; Agent::Open's.
  Result<Agent*> OpenAgent();

  // OpenAgentFor returns null where there is no state and `all_files` says that none is needed; a
  // state or a configuration that is broken is then a warning. Errors: otherwise as OpenAgent.
  Result<Agent*> OpenAgentFor(bool all_files);

  // OpenSecrets makes the sources of this command's secrets; `stdin_user` names what else reads
  // standard input, or is "". Errors: kUsage.
  Result<CliSecrets*> OpenSecrets(const SecretOptions& options, std::string_view stdin_user = "");

  // Confirm has the person type `expected`, unless --yes. `what` completes "to remove …".
  // Errors: kUsage where nobody can be asked, or something else was typed.
  Status Confirm(std::string_view what, std::string_view expected);

  // ConfirmTyped is Confirm for what --yes alone does not confirm; `remedy` says how a script does.
  Status ConfirmTyped(std::string_view what, std::string_view expected, std::string_view remedy);

  // CheckStdoutSink: the sink "-" takes standard output for itself. It is refused with --json, and
  // on a terminal where the bytes are a key. Errors: kUsage, kBinaryToTerminal.
  Status CheckStdoutSink(std::string_view option, bool is_key) const;

  // Finish writes the result, `document` with --json, else `text`, and returns `status`. With
  // `stdout_taken` the text goes to standard error, line by line, as notes.
  Result<int> Finish(const Json& document, std::string_view text, int status = kExitDone,
                     bool stdout_taken = false);

  // ReplaceProcess has `program` take this process's place once the session, with its secrets and
  // files, is gone. TakeReplacement is for whoever owns the session.
  struct Replacement {
    std::string program;  // "": none
    std::vector<std::string> arguments;
  };
  void ReplaceProcess(std::string program, std::vector<std::string> arguments) {
    replacement_ = {std::move(program), std::move(arguments)};
  }
  Replacement TakeReplacement() { return std::move(replacement_); }

  // AnchorIfDue anchors the log in the TPM where this command committed something and an anchor is
  // due; whatever stands in its way is a warning. It returns `status`, or 1 where that is 0 and the
  // counter is not where the log has it.
  int AnchorIfDue(int status);

  // Exit turns the outcome of a command into its exit status; an error is printed.
  int Exit(const Result<int>& outcome);

 private:
  void WarnOfOtherMachine();

  const GlobalOptions& global_;
  Terminal& terminal_;
  SecretPrompt prompt_;
  CliProgress progress_;
  AgentPaths paths_;
  AgentConfig config_;
  std::optional<Error> config_error_;
  Environment environment_;
  std::unique_ptr<Agent> agent_;
  std::optional<CliSecrets> secrets_;
  Replacement replacement_;
};

// MeansFile tells whether NAME|FILE means a file: by its form, or because it exists.
bool MeansFile(const std::string& name_or_file);

}  // namespace keyescrow::agent
