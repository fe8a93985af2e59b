#include "tpm/errors.h"

#include <fmt/format.h>

namespace keyescrow::tpm {
namespace {

constexpr std::string_view kOtherPath = "use a path without tpm";
constexpr std::string_view kPcrHint =
    "if the firmware or boot chain was changed on purpose, restore by another path and seal anew; "
    "if not, find out what changed";
constexpr std::string_view kSlotsHint =
    "use device:/dev/tpmrm0 or tpm2-abrmd, or close the program that holds the TPM's slots";
constexpr std::string_view kResetHint = "run the command again";
constexpr std::string_view kBusyHint = "try again in a moment";
constexpr std::string_view kAnchorHint =
    "find out who did it; if only the index was removed, 'keyescrow audit anchor --new' makes "
    "another; "
    "if the TPM was cleared or replaced, 'keyescrow init --state DIR' makes a new agent";
constexpr std::string_view kOperatorHint =
    "use a path without tpm, and keep this code for the operator";

// clang-format off
constexpr ErrorRow kTable[] = {
    // authorisation
    {0x08e, Context::kPassword, ErrorCode::kTpmWrongAuth, Action::kReauthenticate, "password refused by the TPM (a bus fault can look the same)", "type the password again; every refused try counts towards the TPM's lockout"},
    {0x0a2, Context::kAny, ErrorCode::kTpmSrkUntrusted, Action::kWrongDevice, "the TPM refused a session that only its own storage key can open", "the storage key or the bus is not to be trusted: use a path without tpm and inspect the machine"},
    {0x0a2, Context::kOwner, ErrorCode::kTpmOwnerAuth, Action::kCallOperator, "the TPM's owner hierarchy has a password", "'keyescrow doctor' says how its owner makes the storage key; the log's counter cannot be made under that password; or use a path without tpm"},
    {0x0a2, Context::kAgentKey, ErrorCode::kAgentKeyUnavailable, Action::kCheckSystemState, "the TPM refused the agent key's auth value", "the file with the agent key's auth value does not belong to this key: restore the state from its backup"},
    {0x08e, Context::kAgentKey, ErrorCode::kAgentKeyUnavailable, Action::kCheckSystemState, "the TPM refused the agent key's auth value", "the file with the agent key's auth value does not belong to this key: restore the state from its backup"},
    {0x0a2, Context::kAnchor, ErrorCode::kAnchorMissing, Action::kCheckSystemState, "the TPM refused the auth value of the log's counter: somebody made the index anew, or the file with the value is another's", kAnchorHint},
    {0x08e, Context::kAnchor, ErrorCode::kAnchorMissing, Action::kCheckSystemState, "the TPM refused the auth value of the log's counter: somebody made the index anew, or the file with the value is another's", kAnchorHint},
    {0x921, Context::kAny, ErrorCode::kTpmLockout, Action::kWaitForLockout, "the TPM's dictionary-attack protection is locked, even for the right password", "wait, or have the holder of lockoutAuth run 'tpm2_dictionarylockout -c'; or use a path without tpm"},
    // policy
    {0x09d, Context::kAny, ErrorCode::kTpmPcrMismatch, Action::kCheckSystemState, "the object's policy is not met: a PCR it is bound to has changed", kPcrHint},
    {0x084, Context::kPcrPolicy, ErrorCode::kTpmPcrMismatch, Action::kCheckSystemState, "a PCR that the object is bound to has changed", kPcrHint},
    {0x128, Context::kAny, ErrorCode::kTpmPcrMismatch, Action::kRetry, "a PCR was extended in the middle of the command", kBusyHint},
    {0x09b, Context::kAny, ErrorCode::kTpmPolicySignature, Action::kCheckSystemState, "the PCR policy is not signed by the pinned key for the present PCRs", "get a policy signed for this boot, or use another path"},
    // whose object
    {0x09f, Context::kAny, ErrorCode::kTpmWrongDevice, Action::kWrongDevice, "the object was sealed by another TPM, or this one was cleared or replaced", "use a portable path (one without tpm)"},
    {0x09f, Context::kAgentKey, ErrorCode::kAgentKeyUnavailable, Action::kWrongDevice, "the agent key was made by another TPM, or this one was cleared or replaced", "initialise the agent anew and have its new key trusted"},
    {0x08b, Context::kAny, ErrorCode::kTpmReset, Action::kRetry, "the TPM no longer holds an object or session of ours", kResetHint},
    {0x08b, Context::kSrk, ErrorCode::kTpmWrongDevice, Action::kWrongDevice, "the TPM has no storage key where it was pinned", "the TPM was cleared or replaced: use a portable path (one without tpm)"},
    {0x14c, Context::kAny, ErrorCode::kTpmSrkUntrusted, Action::kCheckSystemState, "another key is stored at 0x81000001", "it is left alone; the storage key is made anew by each command"},
    {0x09f, Context::kAnchor, ErrorCode::kAnchorMissing, Action::kWrongDevice, "the attestation key was made by another TPM, or this one was cleared or replaced", kAnchorHint},
    {0x08b, Context::kAnchor, ErrorCode::kAnchorMissing, Action::kWrongDevice, "the TPM has no counter where the log's was made: it was cleared or replaced, or somebody removed the index", kAnchorHint},
    {0x14a, Context::kAnchor, ErrorCode::kAnchorMissing, Action::kWrongDevice, "the TPM's counter was never counted up: somebody made the index anew", kAnchorHint},
    {0x14b, Context::kAnchor, ErrorCode::kAnchorNoIndex, Action::kCheckSystemState, "the TPM's memory has no room for the log's counter", "'tpm2_getcap handles-nv-index' lists what is there; have its owner remove what nobody needs"},
    {0x14c, Context::kAnchor, ErrorCode::kAnchorNoIndex, Action::kCheckSystemState, "the index for the log's counter is taken", "'tpm2_nvundefine' removes those of agents that are gone"},
    // slots
    {0x901, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry, "the TPM has no free session context", kSlotsHint},
    {0x902, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry, "the TPM has no free object slot", kSlotsHint},
    {0x903, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry, "the TPM has no free session slot", kSlotsHint},
    {0x905, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry, "the TPM has no free session handle", kSlotsHint},
    // retried within the deadline; these rows tell that it was not enough
    {0x908, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry, "the TPM stays busy (yielded)", kBusyHint},
    {0x90a, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry, "the TPM still tests itself", kBusyHint},
    {0x920, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry, "the TPM limits how often it writes its memory", kBusyHint},
    {0x922, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry, "the TPM stays busy (asks to retry)", kBusyHint},
    {0x923, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry, "the TPM cannot write its memory now", kBusyHint},
    // reset under us
    {0x100, Context::kAny, ErrorCode::kTpmReset, Action::kCheckSystemState, "the TPM was not started by the firmware", "restart the machine; on a simulator send TPM2_Startup"},
    {0x910, Context::kAny, ErrorCode::kTpmReset, Action::kRetry, "the TPM was reset in the middle", kResetHint},
    {0x911, Context::kAny, ErrorCode::kTpmReset, Action::kRetry, "the TPM was reset in the middle", kResetHint},
    {0x912, Context::kAny, ErrorCode::kTpmReset, Action::kRetry, "the TPM was reset in the middle", kResetHint},
    {0x913, Context::kAny, ErrorCode::kTpmReset, Action::kRetry, "the TPM was reset in the middle", kResetHint},
    {0x914, Context::kAny, ErrorCode::kTpmReset, Action::kRetry, "the TPM was reset in the middle", kResetHint},
    {0x915, Context::kAny, ErrorCode::kTpmReset, Action::kRetry, "the TPM was reset in the middle", kResetHint},
    {0x916, Context::kAny, ErrorCode::kTpmReset, Action::kRetry, "the TPM was reset in the middle", kResetHint},
    {0x918, Context::kAny, ErrorCode::kTpmReset, Action::kRetry, "the TPM lost a session in the middle", kResetHint},
    {0x101, Context::kAny, ErrorCode::kTpmFailure, Action::kCallOperator, "the TPM is in failure mode", "power the machine off and on; if it stays, replace the TPM and restore by a path without tpm"},
};
// clang-format on

// WaitText says when lockout ends, and never that a TPM heals which does not.
std::string WaitText(const DaState& state) {
  if (state.interval_s == 0) return "this TPM frees no try by waiting";
  return fmt::format("one try comes back every {} s of powered-on time, all of them in {} s",
                     state.interval_s,
                     static_cast<std::uint64_t>(state.counter) * state.interval_s);
}

constexpr std::string_view kClear =
    "the holder of lockoutAuth can run 'tpm2_dictionarylockout -c'; or use a path without tpm";

}  // namespace

std::span<const ErrorRow> ErrorTable() { return kTable; }

std::uint32_t StripFormatBits(std::uint32_t response_code) {
  constexpr std::uint32_t kResourceManagerTpmLayer = 0xc0000;  // tpm2-abrmd forwards the TPM's code
  if ((response_code & 0xff0000) == kResourceManagerTpmLayer) response_code &= 0xffff;
  if (response_code > 0xffff || (response_code & 0x80) == 0) return response_code;
  return response_code & 0xbf;
}

Error ErrorFor(std::uint32_t response_code, Context context, std::string_view command) {
  const std::uint32_t code = StripFormatBits(response_code);
  const ErrorRow* best = nullptr;
  for (const ErrorRow& row : kTable) {
    if (row.code != code) continue;
    if (row.context == context) {
      best = &row;
      break;
    }
    if (row.context == Context::kAny) best = &row;
  }
  if (best == nullptr) {
    return Error(ErrorCode::kTpmFailure, Action::kCallOperator,
                 fmt::format("{} failed with 0x{:x}", command, response_code),
                 std::string(kOperatorHint))
        .WithNative("TPM_RC", response_code);
  }
  return Error(best->error, best->action, std::string(best->message), std::string(best->hint))
      .WithNative("TPM_RC", response_code);
}

Error ResponseError(std::string message) {
  return Error(ErrorCode::kTpmResponse, Action::kCallOperator, std::move(message),
               fmt::format("try again once; if it stays, something on the bus changes what the "
                           "TPM says: {}",
                           kOtherPath));
}

Error WrongAuthError(const DaState& before, std::uint32_t response_code) {
  DaState after = before;
  const std::uint32_t used = ++after.counter;
  return Error(ErrorCode::kTpmWrongAuth, Action::kReauthenticate,
               fmt::format("password refused; {} of {} tries used (a bus fault can look the same)",
                           used, before.max_tries),
               used >= before.max_tries
                   ? fmt::format("the TPM is locked now: {}; {}", WaitText(after), kClear)
                   : fmt::format("type the password again; {}", WaitText(after)))
      .WithNative("TPM_RC", response_code);
}

Error LockoutError(const DaState& state) {
  return Error(ErrorCode::kTpmLockout, Action::kWaitForLockout,
               fmt::format("the TPM is locked after {} refused tries of {}, even for the right "
                           "password; no try was spent",
                           state.counter, state.max_tries),
               fmt::format("{}; {}", WaitText(state), kClear));
}

Error LastTryError(const DaState& state) {
  return Error(
      ErrorCode::kTpmLastTry, Action::kWaitForLockout,
      fmt::format("{} of the TPM's {} tries are used: one more refusal locks it", state.counter,
                  state.max_tries),
      fmt::format("to spend the last try add --use-last-try; {}; {}", WaitText(state), kClear));
}

}  // namespace keyescrow::tpm
