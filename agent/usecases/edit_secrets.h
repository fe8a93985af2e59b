// EditSecrets: the secrets of a command that opens paths and makes others. What was typed for a
// path that is made opens it again; the password that opened one path is kept for those that have
// it too.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "agent/usecases/secrets.h"

namespace keyescrow::agent {

class EditSecrets final : public Secrets {
 public:
  // `inner` outlives it.
  explicit EditSecrets(Secrets& inner) : inner_(inner) {}

  CeremonyDesk* Desk() override { return inner_.Desk(); }
  Result<SecretBytes> Password(std::string_view path_id, std::string_view purpose) override {
    const auto made = made_.find(path_id);
    if (made != made_.end()) return SecretBytes::CopyOf(made->second.Expose());
    if (opened_ && shared_.contains(path_id)) {
      return SecretBytes::CopyOf(opened_->Expose());
    }
    ASSIGN_OR_RETURN(SecretBytes typed, inner_.Password(path_id, purpose));
    if (opening_) {
      ASSIGN_OR_RETURN(opened_, SecretBytes::CopyOf(typed.Expose()));
    }
    return typed;
  }
  Result<SecretBytes> NewPassword(std::string_view path_id, std::string_view purpose) override {
    ASSIGN_OR_RETURN(SecretBytes typed, inner_.NewPassword(path_id, purpose));
    ASSIGN_OR_RETURN(SecretBytes kept, SecretBytes::CopyOf(typed.Expose()));
    made_.insert_or_assign(std::string(path_id), std::move(kept));
    return typed;
  }
  bool HasPasswordFor(std::string_view path_id) override {
    return made_.contains(path_id) || (opened_ && shared_.contains(path_id)) ||
           inner_.HasPasswordFor(path_id);
  }
  envelope::PinProvider& Pins() override { return inner_.Pins(); }
  bool HasPin(std::string_view token_name) override { return inner_.HasPin(token_name); }
  Status MayAsk(const std::function<Result<TokenNames>()>& names) override {
    return inner_.MayAsk(names);
  }
  Status ConfirmLoss() override { return inner_.ConfirmLoss(); }

  // Opened ends the time in which a password is remembered as the one that opens; null where the
  // path that opened has none.
  const SecretBytes* Opened(bool has_password) {
    opening_ = false;
    if (!has_password) opened_.reset();
    return opened_ ? &*opened_ : nullptr;
  }
  // Share says that the path has the password that opened.
  void Share(std::string path_id) { shared_.insert(std::move(path_id)); }

 private:
  Secrets& inner_;
  bool opening_ = true;
  std::optional<SecretBytes> opened_;
  std::map<std::string, SecretBytes, std::less<>> made_;
  std::set<std::string, std::less<>> shared_;
};

}  // namespace keyescrow::agent
