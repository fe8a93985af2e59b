// LogIn: the rules of a login, since tokens count failures: looked at first, sent once, never
// again.
#pragma once

#include <string>

#include "envelope/base/result.h"
#include "envelope/factor.h"
#include "hsm/token_client.h"
#include "hsm/token_info.h"

namespace keyescrow::hsm {

struct LoginRules {
  std::string name;           // the token's registered name, for the PIN request
  bool use_last_try = false;  // spend the last try before the token locks
};

struct LoginOutcome {
  SecretBytes pin;         // kept for keys that ask for it at every use; empty at a PIN pad
  bool on_reader = false;  // the PIN is typed on the reader's pad
  bool attempted = false;  // false: the token needs no login
};

// LogIn reads the token's flags again unless they were read a moment ago, refuses a locked token
// and (without use_last_try) a final try, asks for the PIN, does so again where that took a while,
// refuses an empty one or one of a length that the token does not take, and calls C_Login once.
// Errors: kPinLocked, kPinLastTry, kPinEmpty, kPinInvalid, kTokenRemoved where another token is in
// the slot now, the PIN provider's, by CKR.
Result<LoginOutcome> LogIn(TokenClient& client, const TokenInfo& token, const LoginRules& rules,
                           envelope::PinProvider& pins);

// CheckPinRules is the part of LogIn that needs no token: what `token` says of its PIN.
Status CheckTokenLetsLogIn(const TokenInfo& token, bool use_last_try);
Status CheckPinLength(const TokenInfo& token, std::size_t size_bytes);

}  // namespace keyescrow::hsm
