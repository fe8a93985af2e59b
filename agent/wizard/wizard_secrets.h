// WizardSecrets: the password that was typed on its page serves the backup and its proofs; whatever
// else is needed (a PIN, another path's password) is asked for as everywhere.
#pragma once

#include "agent/usecases/secrets.h"

namespace keyescrow::agent {

class WizardSecrets final : public Secrets {
 public:
  // `others` and `password` outlive it.
  WizardSecrets(Secrets& others, const SecretBytes& password)
      : others_(others), password_(password) {}

  Result<SecretBytes> Password(std::string_view path_id, std::string_view purpose) override;
  Result<SecretBytes> NewPassword(std::string_view path_id, std::string_view purpose) override;
  envelope::PinProvider& Pins() override { return others_.Pins(); }
  bool HasPin(std::string_view token_name) override { return others_.HasPin(token_name); }
  Status MayAsk(const std::function<Result<TokenNames>()>& names) override {
    return others_.MayAsk(names);
  }
  // The page "a lost password" was that confirmation.
  Status ConfirmLoss() override { return Ok(); }

 private:
  Secrets& others_;
  const SecretBytes& password_;
};

}  // namespace keyescrow::agent
