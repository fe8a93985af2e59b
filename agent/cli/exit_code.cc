#include "agent/cli/exit_code.h"

namespace keyescrow::agent {

int ExitStatus(const Error& error, bool signature_verified) {
  switch (error.failure()) {
    case Failure::kFormat:
    case Failure::kLimit:
    case Failure::kSignature:
    case Failure::kMac: return kExitDamaged;
    case Failure::kUnwrap: return signature_verified ? kExitWrongFactor : kExitDamaged;
    case Failure::kFactor: {
      // A token that a path needs and that is not registered is a device that is not there.
      if (error.code() == ErrorCode::kTokenNotRegistered) return kExitDeviceUnavailable;
      const int status = ErrorCodeExitStatus(error.code());
      switch (status) {
        case kExitDeviceUnavailable:
        case kExitLockedOut:
        case kExitWrongDevice:
        case kExitUsage:  // no source for the secret, a limit on locked memory: not a wrong factor
        case kExitBug: return status;
        default: return kExitWrongFactor;
      }
    }
    case Failure::kNone: break;
  }
  return ErrorCodeExitStatus(error.code());
}

std::string_view ExitMeaning(int status) {
  switch (status) {
    case kExitDone: return "done; complies";
    case kExitFindings: return "findings: does not comply, not proven, not verified";
    case kExitUsage: return "usage or configuration";
    case kExitWrongFactor: return "wrong password, PIN or factor";
    case kExitDamaged: return "envelope or log damaged, tampered, or not trusted";
    case kExitDeviceUnavailable:
      return "device unavailable: no TPM, no token, module missing, timeout";
    case kExitLockedOut: return "locked out: a PIN or the TPM; says when and how it ends";
    case kExitRefused: return "refused by policy";
    case kExitNotFound: return "not found, or not initialised";
    case kExitStoreUnavailable: return "store or event log unavailable";
    case kExitWrongDevice: return "wrong device: another TPM or token than the one it was made for";
    case kExitDestination: return "destination not writable or full";
    case kExitOtherKey: return "destination holds another key";
    case kExitBug: return "bug";
    default: return "";
  }
}

}  // namespace keyescrow::agent
