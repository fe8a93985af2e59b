#include "envelope/base/error.h"

#include <cerrno>
#include <cstring>

#include "envelope/base/bytes.h"

namespace keyescrow {
namespace {

struct CodeRow {
  std::string_view name;
  int exit_status;
  std::string_view meaning;
};

constexpr CodeRow kCodes[] = {
#define KEYESCROW_ERROR(enumerator, name, exit_code, meaning) {name, exit_code, meaning},
#include "envelope/base/error_codes.def"
#undef KEYESCROW_ERROR
};

const CodeRow& Row(ErrorCode code) { return kCodes[static_cast<std::size_t>(code)]; }

}  // namespace

std::string_view ErrorCodeName(ErrorCode code) { return Row(code).name; }
std::string_view ErrorCodeMeaning(ErrorCode code) { return Row(code).meaning; }
int ErrorCodeExitStatus(ErrorCode code) { return Row(code).exit_status; }

std::string_view ActionName(Action action) {
  switch (action) {
    case Action::kFixInput: return "fix_input";
    case Action::kReauthenticate: return "reauthenticate";
    case Action::kWaitForLockout: return "wait_for_lockout";
    case Action::kRetry: return "retry";
    case Action::kReconnect: return "reconnect";
    case Action::kCheckSystemState: return "check_system_state";
    case Action::kWrongDevice: return "wrong_device";
    case Action::kCallOperator: return "call_operator";
    case Action::kReportBug: return "report_bug";
  }
  return "report_bug";
}

std::string_view FailureName(Failure failure) {
  switch (failure) {
    case Failure::kNone: return "";
    case Failure::kFormat: return "format";
    case Failure::kLimit: return "limit";
    case Failure::kSignature: return "signature";
    case Failure::kFactor: return "factor";
    case Failure::kUnwrap: return "unwrap";
    case Failure::kMac: return "mac";
  }
  return "";
}

Error ErrnoError(ErrorCode code, Action action, std::string message, std::string hint,
                 int error_number) {
  if (error_number == EMFILE || error_number == ENFILE) {
    hint =
        "raise the limit on open files (ulimit -n, a service's LimitNOFILE=), or end what holds "
        "so many open";
  }
  message += ": ";
  message += strerrordesc_np(error_number) != nullptr ? strerrordesc_np(error_number) : "unknown";
  return Error(code, action, std::move(message), std::move(hint))
      .WithNative("errno", static_cast<std::uint64_t>(error_number));
}

std::string ToHex(ByteView bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (std::uint8_t byte : bytes) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

}  // namespace keyescrow
