#include "agent/wizard/wizard_secrets.h"

namespace keyescrow::agent {

Result<SecretBytes> WizardSecrets::Password(std::string_view path_id, std::string_view purpose) {
  if (password_.empty()) return others_.Password(path_id, purpose);
  return SecretBytes::CopyOf(password_.Expose());
}

Result<SecretBytes> WizardSecrets::NewPassword(std::string_view path_id, std::string_view purpose) {
  if (password_.empty()) return others_.NewPassword(path_id, purpose);
  return SecretBytes::CopyOf(password_.Expose());
}

}  // namespace keyescrow::agent
