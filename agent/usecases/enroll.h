// Enrolling a path's factors: each yields a fresh secret and the record that gives it back.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/kdf_choice.h"
#include "agent/usecases/open_path.h"
#include "agent/usecases/secrets.h"
#include "envelope/path_expression.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {

struct EnrollContext {
  Agent* agent = nullptr;
  Secrets* secrets = nullptr;
  Progress* progress = nullptr;
  StretchedPasswords* passwords = nullptr;
  envelope::EnvelopeDraft draft;  // key name, version, envelope id: what the labels bind
  PathKdfs kdfs;
  // Paths that are made again with fresh factors: a token's key is taken from the path of the same
  // id here, whether it is registered or not, and so are the PCRs of a TPM.
  std::vector<const envelope::PathRecord*> remade = {};
  // May refuse a new password, normalised, for what else it opens.
  std::function<Status(const SecretBytes& password, const envelope::PathOption& option)>
      check_password = nullptr;
  std::string recovery_key = {};  // its name, where the factors are a recovery key's; `draft` is
                                  // then of no key
  std::string binding = {};       // B of that recovery key
};

// CheckPaths refuses what this version cannot make: another host's TPM, a token or a recovery key
// that is not registered, or is retired. Errors: kUnsupportedHere, kTokenNotRegistered, kNotFound.
Status CheckPaths(Agent& agent, const std::vector<envelope::PathOption>& paths);

// EnrollPaths asks for the passwords, checks them, and enrolls every factor of every path.
// Errors: kPasswordWeak, also where one password would stand alone in one path and
// beside hardware in another, kPasswordInvalid, kTpm*, those of asking.
Result<std::vector<envelope::EnrolledPath>> EnrollPaths(
    const EnrollContext& context, const std::vector<envelope::PathOption>& paths);

// PasswordUse: what a new password will open.
struct PasswordUse {
  std::string policy;  // its name
  std::string name;    // of the key, or of the recovery key
  std::string host;    // the key's
  bool is_recovery_key = false;
};
// CheckNewPassword holds a password, normalised, against every profile that the policy and
// agent.toml name for the path. Errors: kPasswordWeak, kPasswordInvalid, those of the policy.
Status CheckNewPassword(Agent& agent, const PasswordUse& use, const envelope::PathOption& option,
                        const SecretBytes& password);

// PasswordReused refuses a password that opens `weaker` alone and `stronger` beside hardware.
Error PasswordReused(const std::string& weaker, const std::string& stronger);

}  // namespace keyescrow::agent
