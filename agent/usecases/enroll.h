// Enrolling a path's factors: each yields a fresh secret and the record that gives it back.
#pragma once

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
};

// CheckPaths refuses what this version cannot make: recovery keys, another host's TPM, a
// token that is not registered. Errors: kUnsupportedHere, kTokenNotRegistered.
Status CheckPaths(Agent& agent, const std::vector<envelope::PathOption>& paths);

// EnrollPaths asks for the passwords, checks them, and enrolls every factor of every path.
// Errors: kPasswordWeak, kPasswordInvalid, kTpm*, those of asking.
Result<std::vector<envelope::EnrolledPath>> EnrollPaths(
    const EnrollContext& context, const std::vector<envelope::PathOption>& paths);

}  // namespace keyescrow::agent
