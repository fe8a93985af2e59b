// Secrets: how a use case asks for passwords and confirmations. agent/cli implements it.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <string_view>

#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/factor.h"

namespace keyescrow::agent {

class CeremonyDesk;

class Secrets {
 public:
  virtual ~Secrets() = default;

  // Desk is where officers give their shares; null where no person can be asked now.
  virtual CeremonyDesk* Desk() { return nullptr; }

  // Password returns the password that opens a path, as typed.
  virtual Result<SecretBytes> Password(std::string_view path_id, std::string_view purpose) = 0;
  // NewPassword returns the password for a path that is being made.
  virtual Result<SecretBytes> NewPassword(std::string_view path_id, std::string_view purpose) = 0;
  // HasPasswordFor: a source names this path and no other, so that its password can be had without
  // surprising anybody.
  virtual bool HasPasswordFor(std::string_view path_id) {
    static_cast<void>(path_id);
    return false;
  }
  virtual envelope::PinProvider& Pins() = 0;
  // HasPin: a PIN for this token can be had without surprising anybody: from a file, a descriptor,
  // or a person at a terminal.
  virtual bool HasPin(std::string_view token_name) = 0;
  // MayAsk says, before the first of them asks, which tokens may ask for a PIN in what follows;
  // `names` is called where that matters. Errors: kUsage where a PIN was given that names no token
  // and could be sent to more than one of them; those of `names`.
  using TokenNames = std::set<std::string, std::less<>>;
  virtual Status MayAsk(const std::function<Result<TokenNames>()>& names) {
    static_cast<void>(names);
    return Ok();
  }
  // ConfirmLoss says that a lost password cannot be recovered and has the person type that it was
  // understood; without a person it is said and taken as read. Errors: kUsage where it was refused.
  virtual Status ConfirmLoss() = 0;
};

// Progress: what a use case is doing, for a sign of life. All calls are cheap.
class Progress {
 public:
  virtual ~Progress() = default;
  virtual void Step(std::string_view what) = 0;  // "stretching the password"
  virtual void Pause() = 0;                      // before somebody is asked
  virtual void Note(std::string_view text) = 0;
  virtual void Warn(std::string_view text) = 0;
};

}  // namespace keyescrow::agent
