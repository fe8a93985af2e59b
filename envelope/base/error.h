// Error: what went wrong, by a stable code, and what the person should do about it.
//
// An Error cannot be built without an Action and a hint. The message names the cause, the hint the
// remedy; both are lower case without a full stop, as the command line prints them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace keyescrow {

// ErrorCode: stable names, listed in agent/docs/ERRORS.md and never reused.
enum class ErrorCode : std::uint16_t {
#define KEYESCROW_ERROR(enumerator, name, exit_code, meaning) enumerator,
#include "envelope/base/error_codes.def"
#undef KEYESCROW_ERROR
};

// Action: what the person (or the calling program) should do next.
enum class Action : std::uint8_t {
  kFixInput,
  kReauthenticate,
  kWaitForLockout,
  kRetry,
  kReconnect,
  kCheckSystemState,
  kWrongDevice,
  kCallOperator,
  kReportBug,
};

// Failure: the closed set of ways in which an envelope does not open (envelope/FORMAT.md).
enum class Failure : std::uint8_t { kNone, kFormat, kLimit, kSignature, kFactor, kUnwrap, kMac };

// Stable names, for JSON and documents.
std::string_view ErrorCodeName(ErrorCode code);  // e.g. "wrong_password"
std::string_view ErrorCodeMeaning(ErrorCode code);
int ErrorCodeExitStatus(ErrorCode code);        // the exit status of the command line
std::string_view ActionName(Action action);     // e.g. "reauthenticate"
std::string_view FailureName(Failure failure);  // "format" …; "" for kNone

class [[nodiscard]] Error {
 public:
  Error(ErrorCode code, Action action, std::string message, std::string hint)
      : code_(code), action_(action), message_(std::move(message)), hint_(std::move(hint)) {}

  ErrorCode code() const { return code_; }
  Action action() const { return action_; }
  Failure failure() const { return failure_; }
  const std::string& message() const { return message_; }
  const std::string& hint() const { return hint_; }
  // native_domain is "TPM_RC", "CKR", "SQLITE", "errno" or "" where no library's code is the cause.
  const std::string& native_domain() const { return native_domain_; }
  std::uint64_t native_code() const { return native_code_; }

  Error& SetFailure(Failure failure) & {
    failure_ = failure;
    return *this;
  }
  Error WithFailure(Failure failure) && {
    failure_ = failure;
    return std::move(*this);
  }
  // WithNative keeps the library's own code verbatim; it is shown, never interpreted again.
  Error WithNative(std::string domain, std::uint64_t code) && {
    native_domain_ = std::move(domain);
    native_code_ = code;
    return std::move(*this);
  }
  // WithContext puts "context: " before the message, on the way up.
  Error WithContext(std::string_view context) && {
    message_ = std::string(context) + ": " + message_;
    return std::move(*this);
  }
  Error WithHint(std::string hint) && {
    hint_ = std::move(hint);
    return std::move(*this);
  }

 private:
  ErrorCode code_;
  Action action_;
  Failure failure_ = Failure::kNone;
  std::string message_;
  std::string hint_;
  std::string native_domain_;
  std::uint64_t native_code_ = 0;
};

// ErrnoError builds the error for a failed system call: `message` gets ": strerror(error_number)".
Error ErrnoError(ErrorCode code, Action action, std::string message, std::string hint,
                 int error_number);

}  // namespace keyescrow
