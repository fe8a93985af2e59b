// CliSecrets: how the use cases ask for passwords and PINs on the command line.
#pragma once

#include <string>
#include <string_view>

#include "agent/cli/cli_progress.h"
#include "agent/cli/options.h"
#include "agent/cli/secret_prompt.h"
#include "agent/cli/secret_sources.h"
#include "agent/usecases/secrets.h"

namespace keyescrow::agent {

// A spinner is stopped before anybody is asked. `prompt`, `terminal` and `progress` outlive it.
class CliSecrets final : public Secrets, private envelope::PinProvider {
 public:
  CliSecrets(SecretSources sources, bool assume_yes, SecretPrompt& prompt, Terminal& terminal,
             CliProgress& progress)
      : sources_(std::move(sources)),
        assume_yes_(assume_yes),
        prompt_(prompt),
        terminal_(terminal),
        progress_(progress) {}

  Result<SecretBytes> Password(std::string_view path_id, std::string_view purpose) override;
  Result<SecretBytes> NewPassword(std::string_view path_id, std::string_view purpose) override;
  bool HasPasswordFor(std::string_view path_id) override;
  // WantNewPasswords: what opens does not serve for a path that is made: a password is changed.
  void WantNewPasswords() { new_from_ = SecretSources::NewPasswordFrom::kNewSourcesOnly; }
  envelope::PinProvider& Pins() override { return *this; }
  bool HasPin(std::string_view token_name) override;
  Status MayAsk(const std::function<Result<TokenNames>()>& names) override;
  // AddPinSource: as SecretSources.
  Result<std::string> AddPinSource(std::string_view token_name, std::string_view pin_source) {
    return sources_.AddPinSource(token_name, pin_source);
  }
  // EndsWithReturn: as SecretSources.
  std::string EndsWithReturn(bool is_pin) const { return sources_.EndsWithReturn(is_pin); }
  // ConfirmLoss says once a command what a lost password means; who typed the password types
  // "understood" too, unless --yes.
  Status ConfirmLoss() override;

 private:
  Result<SecretBytes> AskPin(const envelope::PinRequest& request) override;
  void OnReader(const envelope::PinRequest& request) override;

  SecretSources sources_;
  bool assume_yes_;
  bool loss_confirmed_ = false;
  SecretSources::NewPasswordFrom new_from_ = SecretSources::NewPasswordFrom::kAnySource;
  SecretPrompt& prompt_;
  Terminal& terminal_;
  CliProgress& progress_;
};

}  // namespace keyescrow::agent
