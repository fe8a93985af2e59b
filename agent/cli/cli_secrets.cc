#include "agent/cli/cli_secrets.h"

namespace keyescrow::agent {

Result<SecretBytes> CliSecrets::Password(std::string_view path_id, std::string_view purpose) {
  progress_.Pause();
  return sources_.Password(path_id, purpose);
}

Result<SecretBytes> CliSecrets::NewPassword(std::string_view path_id, std::string_view purpose) {
  progress_.Pause();
  return sources_.NewPassword(path_id, purpose, new_from_);
}

bool CliSecrets::HasPasswordFor(std::string_view path_id) {
  return sources_.HasPasswordFor(path_id);
}

bool CliSecrets::HasPin(std::string_view token_name) { return sources_.HasPin(token_name); }

Status CliSecrets::MayAsk(const std::function<Result<TokenNames>()>& names) {
  if (!sources_.HasNamelessPin()) return Ok();
  ASSIGN_OR_RETURN(const TokenNames asking, names());
  return sources_.CheckPins(asking);
}

Status CliSecrets::ConfirmLoss() {
  if (loss_confirmed_) return Ok();
  progress_.Pause();
  terminal_.Note(
      "a lost password cannot be recovered: without it, and without another path, the key is gone");
  if (!assume_yes_ && sources_.NewPasswordIsTyped()) {
    ASSIGN_OR_RETURN(const std::string answer,
                     prompt_.AskLine("type \"understood\" to go on", "add --yes"));
    if (answer != "understood") {
      return Error(ErrorCode::kUsage, Action::kFixInput, "it was not confirmed: nothing was done",
                   "type the word understood, or add --yes");
    }
  }
  loss_confirmed_ = true;
  return Ok();
}

Result<SecretBytes> CliSecrets::AskPin(const envelope::PinRequest& request) {
  progress_.Pause();
  return sources_.AskPin(request);
}

void CliSecrets::OnReader(const envelope::PinRequest& request) {
  progress_.Pause();
  sources_.OnReader(request);
}

}  // namespace keyescrow::agent
