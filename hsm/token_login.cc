#include "hsm/token_login.h"

#include <fmt/format.h>

#include <chrono>

#include "envelope/base/pause_point.h"
#include "envelope/pin_outcome.h"
#include "hsm/token_protocol.h"

namespace keyescrow::hsm {
namespace {

void TellAccepted(envelope::PinProvider& pins) {
  if (auto* outcome = dynamic_cast<envelope::PinOutcome*>(&pins)) outcome->Accepted();
}

// CheckLetsIn: `now` is what the slot of `token` holds at this moment.
Status CheckLetsIn(const TokenInfo& token, const TokenInfo& now, const LoginRules& rules) {
  if (now.serial != token.serial || now.label != token.label) {
    return Error(ErrorCode::kTokenRemoved, Action::kReconnect,
                 fmt::format("token {} was replaced by {}; no PIN was sent", DescribeToken(token),
                             DescribeToken(now)),
                 "insert the token and start again");
  }
  if (!now.login_required()) return Ok();
  return CheckTokenLetsLogIn(now, rules.use_last_try);
}

}  // namespace

Result<LoginOutcome> LogIn(TokenClient& client, const TokenInfo& token, const LoginRules& rules,
                           envelope::PinProvider& pins) {
  ASSIGN_OR_RETURN(TokenInfo now, client.ReadTokenLately(token));
  RETURN_IF_ERROR(CheckLetsIn(token, now, rules));
  LoginOutcome outcome;
  if (!now.login_required()) return outcome;
  const envelope::PinRequest request{rules.name, now.label, now.serial, now.pin_count_low(),
                                     now.final_try()};
  outcome.attempted = true;
  if (now.protected_path()) {
    outcome.on_reader = true;
    pins.OnReader(request);
    RETURN_IF_ERROR(client.Login(nullptr));
    TellAccepted(pins);
    return outcome;
  }
  const auto asked_at = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(outcome.pin, pins.AskPin(request));
  PausePoint("pin-read");
  if (std::chrono::steady_clock::now() - asked_at >= TokenClient::kFresh) {
    // While a person typed, another program may have used tries, or the token may have changed.
    ASSIGN_OR_RETURN(now, client.ReadToken(token.slot_id));
    RETURN_IF_ERROR(CheckLetsIn(token, now, rules));
  }
  RETURN_IF_ERROR(CheckPinLength(now, outcome.pin.size()));
  RETURN_IF_ERROR(client.Login(&outcome.pin));
  TellAccepted(pins);
  return outcome;
}

Status CheckTokenLetsLogIn(const TokenInfo& token, bool use_last_try) {
  if (token.locked()) {
    return Error(ErrorCode::kPinLocked, Action::kWaitForLockout,
                 fmt::format("token {}: the PIN is locked; no PIN was sent", DescribeToken(token)),
                 "the token's administrator must unblock it (a TPM: wait, or clear the lockout)");
  }
  if (token.final_try() && !use_last_try) {
    return Error(
        ErrorCode::kPinLastTry, Action::kCallOperator,
        fmt::format("token {}: one try is left before the PIN locks; it was not spent",
                    DescribeToken(token)),
        "be certain of the PIN, then repeat with --use-last-try; or restore by another path");
  }
  return Ok();
}

Status CheckPinLength(const TokenInfo& token, std::size_t size_bytes) {
  if (size_bytes == 0) {
    return Error(ErrorCode::kPinEmpty, Action::kReauthenticate,
                 fmt::format("token {}: the PIN is empty; nothing was sent", DescribeToken(token)),
                 "type the token's user PIN; an empty one would use up a try");
  }
  // A module that leaves the limits at 0, or at CK_UNAVAILABLE_INFORMATION, states none.
  const bool has_maximum = token.max_pin_length > 0 && token.max_pin_length <= kMaxPinBytes &&
                           token.max_pin_length >= token.min_pin_length;
  const std::size_t maximum = has_maximum ? token.max_pin_length : kMaxPinBytes;
  const std::size_t minimum = token.min_pin_length <= maximum ? token.min_pin_length : 0;
  if (size_bytes < minimum || size_bytes > maximum) {
    return Error(ErrorCode::kPinInvalid, Action::kReauthenticate,
                 fmt::format("token {}: this token does not accept the PIN's length ({}–{} bytes "
                             "allowed); nothing was sent",
                             DescribeToken(token), minimum, maximum),
                 "type the token's user PIN");
  }
  return Ok();
}

}  // namespace keyescrow::hsm
