#include "agent/cli/run.h"

#include <new>
#include <stdexcept>
#include <string_view>

#include "agent/cli/command_line.h"
#include "agent/cli/commands.h"
#include "agent/cli/nagios.h"
#include "agent/cli/replace_process.h"
#include "agent/cli/session.h"

namespace keyescrow::agent {
namespace {

// Dispatcher calls the command that the options are of.
struct Dispatcher {
  const GlobalOptions& global;
  Session& session;

  int operator()(const TextToPrint&) { return kExitDone; }  // printed before
#define KEYESCROW_COMMAND(command) \
  int operator()(const command##Options& options) { return Run##command(global, options, session); }
  KEYESCROW_COMMAND(Init)
  KEYESCROW_COMMAND(Doctor)
  KEYESCROW_COMMAND(TokenAdd)
  KEYESCROW_COMMAND(TokenList)
  KEYESCROW_COMMAND(TokenShow)
  KEYESCROW_COMMAND(TokenKeygen)
  KEYESCROW_COMMAND(TokenRemove)
  KEYESCROW_COMMAND(RecoveryKeyCreate)
  KEYESCROW_COMMAND(RecoveryKeyList)
  KEYESCROW_COMMAND(RecoveryKeyShow)
  KEYESCROW_COMMAND(RecoveryKeyExport)
  KEYESCROW_COMMAND(RecoveryKeyImport)
  KEYESCROW_COMMAND(RecoveryKeyPassword)
  KEYESCROW_COMMAND(RecoveryKeyRetire)
  KEYESCROW_COMMAND(KeyAdd)
  KEYESCROW_COMMAND(KeyList)
  KEYESCROW_COMMAND(KeyRemove)
  KEYESCROW_COMMAND(Backup)
  KEYESCROW_COMMAND(Restore)
  KEYESCROW_COMMAND(Drill)
  KEYESCROW_COMMAND(Verify)
  KEYESCROW_COMMAND(PathList)
  KEYESCROW_COMMAND(PathAdd)
  KEYESCROW_COMMAND(PathReplace)
  KEYESCROW_COMMAND(PathRemove)
  KEYESCROW_COMMAND(PasswordChange)
  KEYESCROW_COMMAND(Adopt)
  KEYESCROW_COMMAND(Export)
  KEYESCROW_COMMAND(Import)
  KEYESCROW_COMMAND(ImportEvent)
  KEYESCROW_COMMAND(RecoverySheet)
  KEYESCROW_COMMAND(List)
  KEYESCROW_COMMAND(Show)
  KEYESCROW_COMMAND(Status)
  KEYESCROW_COMMAND(Gate)
  KEYESCROW_COMMAND(WhatIf)
  KEYESCROW_COMMAND(Wizard)
  KEYESCROW_COMMAND(AgentKeyShow)
  KEYESCROW_COMMAND(AgentKeyExport)
  KEYESCROW_COMMAND(TrustAdd)
  KEYESCROW_COMMAND(TrustList)
  KEYESCROW_COMMAND(TrustRemove)
  KEYESCROW_COMMAND(PolicyShow)
  KEYESCROW_COMMAND(PolicyCheck)
  KEYESCROW_COMMAND(PolicySign)
  KEYESCROW_COMMAND(PolicySet)
  KEYESCROW_COMMAND(AuditLog)
  KEYESCROW_COMMAND(AuditCheckpoint)
  KEYESCROW_COMMAND(AuditProve)
  KEYESCROW_COMMAND(AuditReport)
  KEYESCROW_COMMAND(AuditAnchor)
  KEYESCROW_COMMAND(AuditExport)
  KEYESCROW_COMMAND(AuditSample)
  KEYESCROW_COMMAND(CompletionNames)
  KEYESCROW_COMMAND(Rotate)
  KEYESCROW_COMMAND(Destroy)
#undef KEYESCROW_COMMAND
};

// IsForNagios: a monitor takes an exit status of 2 for CRITICAL, and reads standard output alone,
// even where the command line is wrong.
bool IsForNagios(int argc, char** argv) {
  for (int index = 1; index < argc && std::string_view(argv[index]) != "--"; ++index) {
    if (std::string_view(argv[index]) == "--nagios") return true;
  }
  return false;
}

Result<int> Dispatch(const GlobalOptions& global, const CommandOptions& options, Terminal& terminal,
                     Devices& devices, Session::Replacement& replacement) {
  // What the parser answered needs no configuration, and must not read one.
  if (const auto* text = std::get_if<TextToPrint>(&options)) {
    RETURN_IF_ERROR(terminal.WriteResult(text->text));
    return kExitDone;
  }
  if (const auto* restore = std::get_if<RestoreOptions>(&options)) {
    PrepareRestore(*restore, devices);
  }
  Session session(global, terminal, devices);
  const int status = std::visit(Dispatcher{global, session}, options);
  // A restore through the TPM keeps to its twelve commands, and a service that starts does not wait
  // for a TPM: the next command anchors what they logged.
  const bool may_anchor = !std::holds_alternative<RestoreOptions>(options) &&
                          !std::holds_alternative<GateOptions>(options);
  const int outcome = may_anchor ? session.AnchorIfDue(status) : status;
  replacement = session.TakeReplacement();
  return outcome;
}

}  // namespace

int RunCli(int argc, char** argv, Devices& devices) {
  const ProcessBefore before;
  before.Harden();
  const Status ready = PrepareProcess();
  GlobalOptions global;
  auto parsed = ParseCommandLine(argc, argv, global);
  Terminal terminal(global);
  const bool nagios = IsForNagios(argc, argv);
  const auto fail = [&terminal, nagios](const Error& error) {
    terminal.PrintError(error);
    if (nagios) {
      const NagiosLine line = FormatNagiosError(error);
      (void)terminal.WriteResult(line.text);
      return line.status;
    }
    return ExitStatus(error);
  };
  if (!ready) return fail(ready.error());
  if (!parsed) return fail(parsed.error());
  // What gate starts gets its own limit back; every other command gives it up for good.
  if (!std::holds_alternative<GateOptions>(parsed->options)) HardenProcess();
  try {
    Session::Replacement replacement;
    const Result<int> status = Dispatch(global, parsed->options, terminal, devices, replacement);
    if (!status) return fail(status.error());
    if (replacement.program.empty()) return *status;
    return fail(before.Become(replacement.program, replacement.arguments));
  } catch (const std::bad_alloc&) {
    return fail(Error(ErrorCode::kOutOfMemory, Action::kCheckSystemState, "not enough memory",
                      "free some memory, or raise the limit of this process"));
  } catch (const std::exception& exception) {
    return fail(Error(ErrorCode::kInternal, Action::kReportBug,
                      std::string("an unexpected exception: ") + exception.what(),
                      "report this with the command that you ran"));
  }
}

}  // namespace keyescrow::agent
