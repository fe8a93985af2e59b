// wizard: the guided dialogue, on the terminal.
#include <optional>

#include "agent/cli/commands.h"
#include "agent/cli/officers_desk.h"
#include "agent/cli/session.h"
#include "agent/wizard/command_text.h"
#include "agent/wizard/wizard.h"

namespace keyescrow::agent {
namespace {

constexpr std::string_view kRemedy = "run the wizard on a terminal; scripts use backup and restore";

class TerminalDialogue final : public Dialogue {
 public:
  explicit TerminalDialogue(SecretPrompt& prompt) : prompt_(prompt) {}
  void Show(std::string_view text) override { prompt_.TellLines(text); }
  Result<std::string> AskLine(std::string_view label) override {
    return prompt_.AskLine(label, kRemedy);
  }
  Result<SecretBytes> AskSecret(std::string_view label) override {
    return prompt_.AskMaybe(label, kRemedy);
  }

 private:
  SecretPrompt& prompt_;
};

// CommandStart is how the equal command lines begin: with the global options that were given.
std::string CommandStart(const GlobalOptions& global) {
  std::string out = "keyescrow";
  if (!global.config.empty()) out += " --config " + ShellWord(global.config);
  if (!global.state.empty()) out += " --state " + ShellWord(global.state);
  if (!global.tpm.empty()) out += " --tpm " + ShellWord(global.tpm);
  return out;
}

Result<int> DoWizard(const GlobalOptions& global, Session& session) {
  if (global.json) {
    return Error(ErrorCode::kUsage, Action::kFixInput, "the wizard talks with a person: no --json",
                 std::string(kRemedy));
  }
  SecretPrompt prompt(global.no_input);
  if (!prompt.available()) {
    return Error(ErrorCode::kUsage, Action::kFixInput, "the wizard needs a terminal",
                 std::string(kRemedy));
  }
  TerminalDialogue dialogue(prompt);
  const SecretOptions no_options;
  WizardTools tools;
  tools.dialogue = &dialogue;
  tools.environment = &session.environment();
  tools.progress = &session.progress();
  tools.open_agent = [&session] { return session.OpenAgentFor(true); };
  std::optional<OfficersDesk> desk;  // of the secrets at hand
  tools.new_secrets = [&]() -> Result<Secrets*> {
    ASSIGN_OR_RETURN(CliSecrets* const secrets, session.OpenSecrets(no_options));
    return &desk.emplace(*secrets, global, session.progress());
  };
  tools.command = CommandStart(global);
  ASSIGN_OR_RETURN(const WizardOutcome outcome, LeadThrough(tools));
  if (outcome == WizardOutcome::kLeft) {
    return Error(ErrorCode::kUsage, Action::kFixInput, "left before the end",
                 "run the wizard again; 'keyescrow status' tells what is escrowed");
  }
  return outcome == WizardOutcome::kDone ? kExitDone : kExitFindings;
}

}  // namespace

int RunWizard(const GlobalOptions& global, const WizardOptions& /*options*/, Session& session) {
  return session.Exit(DoWizard(global, session));
}

}  // namespace keyescrow::agent
