// OfficersDesk: the ceremony of officers' shares on a terminal.
//
// Lines alone, so that it works on a serial console: what stands there is never drawn over. It is a
// Secrets too, in front of the command's own: the PINs that a person types again after a refusal,
// and a password that is typed again, come from here.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/cli/cli_progress.h"
#include "agent/cli/interrupts.h"
#include "agent/cli/options.h"
#include "agent/cli/secret_prompt.h"
#include "agent/usecases/ceremony_desk.h"
#include "agent/usecases/secrets.h"

namespace keyescrow::agent {

// CeremonyLines says how many shares are there, who gave one and who is needed: at most 80 columns
// a line for names of up to 30 characters, nothing escaped yet.
std::vector<std::string> CeremonyLines(const CeremonyView& view);

class OfficersDesk final : public Secrets, public CeremonyDesk, private envelope::PinProvider {
 public:
  // `inner` and `progress` outlive it.
  OfficersDesk(Secrets& inner, const GlobalOptions& global, Progress& progress)
      : inner_(inner), progress_(progress), prompt_(global.no_input, kTerminal, global.json) {}

  // Secrets
  Result<SecretBytes> Password(std::string_view path_id, std::string_view purpose) override;
  Result<SecretBytes> NewPassword(std::string_view path_id, std::string_view purpose) override {
    return inner_.NewPassword(path_id, purpose);
  }
  bool HasPasswordFor(std::string_view path_id) override { return inner_.HasPasswordFor(path_id); }
  envelope::PinProvider& Pins() override { return *this; }
  bool HasPin(std::string_view token_name) override { return inner_.HasPin(token_name); }
  Status MayAsk(const std::function<Result<TokenNames>()>& names) override {
    return inner_.MayAsk(names);
  }
  Status ConfirmLoss() override { return inner_.ConfirmLoss(); }

  CeremonyDesk* Desk() override { return prompt_.available() ? this : nullptr; }

  // CeremonyDesk
  void Open(const CeremonyView& view) override;
  void Close(const CeremonyView& view) override;
  void Show(const CeremonyView& view) override;
  void Greet(const OfficerView& officer) override;
  void Thank(const OfficerView& officer, const CeremonyView& view) override;
  void Refuse(const OfficerView& officer) override;
  Result<DeskAnswer> Wait(const CeremonyView& view, const std::function<bool()>& look) override;
  bool TryAgain(const OfficerView& officer, const Error& error, bool is_last_try) override;
  void ForgetPin(std::string_view token_name) override { typed_pins_.emplace(token_name); }
  bool Leave(const CeremonyView& view) override;
  bool PasswordAgain(const Error& error, bool is_counted) override;

 private:
  static constexpr const char* kTerminal = "/dev/tty";

  Result<SecretBytes> AskPin(const envelope::PinRequest& request) override;
  void OnReader(const envelope::PinRequest& request) override { inner_.Pins().OnReader(request); }
  // Answers "yes" alone counts; nobody who can be asked is a no.
  bool IsYes(std::string_view question);

  Secrets& inner_;
  Progress& progress_;
  SecretPrompt prompt_;
  std::unique_ptr<KeepInterrupts> interrupts_;
  std::set<std::string, std::less<>> typed_pins_;  // tokens whose PIN is asked for here
  bool ask_password_ = false;
};

}  // namespace keyescrow::agent
