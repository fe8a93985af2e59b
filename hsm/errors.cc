#include "hsm/errors.h"

#include <fmt/format.h>

#include "hsm/cryptoki.h"

namespace keyescrow::hsm {
namespace {

using enum ErrorCode;
using enum Action;
using enum CkrPhase;

#define ROW(code, phase) code, phase, #code

// The texts shared by several rows.
constexpr std::string_view kUseOtherKey =
    "use an RSA key of 2048 bits or more, or a P-256 key, on this token";
constexpr std::string_view kStartAgain = "insert the token and start again";
constexpr std::string_view kCheckService =
    "check the reader, the network and the token's service (pcscd, the vendor's daemon)";
constexpr std::string_view kCheckModule =
    "check its configuration or service (SOFTHSM2_CONF, pkcsslotd, the TCTI)";
constexpr std::string_view kDamaged =
    "check that this is the token the envelope names; restore by another path or copy";
constexpr std::string_view kAskVendor =
    "repeat with --trace and send the code to the token's administrator or vendor";
constexpr std::string_view kUseSigningKey =
    "sign with a P-256 key that has CKA_SIGN: 'pkcs11-tool --keypairgen --key-type EC:prime256v1 "
    "--usage-sign' makes one";

constexpr CkrRow kRows[] = {
    // --- PIN and login
    {ROW(CKR_PIN_INCORRECT, kAny), kWrongPin, kReauthenticate,
     "the token rejected the PIN; one attempt was used; nothing was retried",
     "check which token is meant and type its user PIN again"},
    {ROW(CKR_PIN_LOCKED, kAny), kPinLocked, kWaitForLockout, "the PIN is locked",
     "the token's administrator must unblock it (a TPM: wait, or clear the lockout)"},
    {ROW(CKR_PIN_LEN_RANGE, kAny), kPinInvalid, kReauthenticate,
     "this token does not accept the PIN's length", "type the token's user PIN"},
    {ROW(CKR_PIN_INVALID, kAny), kPinInvalid, kReauthenticate,
     "this token does not accept the PIN's characters", "type the token's user PIN"},
    {ROW(CKR_PIN_TOO_WEAK, kAny), kPinInvalid, kReauthenticate, "the token calls the PIN too weak",
     "change the PIN with the vendor's tool"},
    {ROW(CKR_PIN_EXPIRED, kAny), kPinExpired, kCallOperator, "the PIN has expired",
     "change the PIN with the vendor's tool"},
    {ROW(CKR_USER_PIN_NOT_INITIALIZED, kAny), kPinExpired, kCallOperator,
     "the token's user PIN was never set", "first set the PIN with the vendor's tool"},
    {ROW(CKR_USER_ALREADY_LOGGED_IN, kAny), kTokenLoginState, kCheckSystemState,
     "the token was already logged in; this PIN was not checked; refused",
     "end the other program that uses the token, or remove and insert it, and start again"},
    {ROW(CKR_USER_ANOTHER_ALREADY_LOGGED_IN, kAny), kTokenLoginState, kCheckSystemState,
     "another user (the security officer) is logged in to the token; refused",
     "end the other program that uses the token, or remove and insert it, and start again"},
    {ROW(CKR_USER_TOO_MANY_TYPES, kAny), kTokenLoginState, kCheckSystemState,
     "another user is logged in to the token; refused",
     "end the other program that uses the token, or remove and insert it, and start again"},
    {ROW(CKR_USER_TYPE_INVALID, kAny), kTokenLoginState, kCallOperator,
     "the token does not know the kind of login that its key asks for", kAskVendor},
    {ROW(CKR_USER_NOT_LOGGED_IN, kAny), kTokenLoginState, kReauthenticate,
     "the key asks for the PIN at every use, or the login was lost", kStartAgain},
    // --- the token's presence
    {ROW(CKR_TOKEN_NOT_PRESENT, kAny), kTokenNotFound, kReconnect, "no token is in the slot",
     "insert it; 'keyescrow doctor --module SO' lists what is present"},
    {ROW(CKR_SLOT_ID_INVALID, kAny), kTokenNotFound, kReconnect, "the token's slot is gone",
     "insert the token; 'keyescrow doctor --module SO' lists what is present"},
    {ROW(CKR_TOKEN_NOT_RECOGNIZED, kAny), kTokenNotFound, kWrongDevice,
     "the module does not know this card", "use the module of the card's vendor (--module)"},
    {ROW(CKR_TOKEN_WRITE_PROTECTED, kAny), kTokenDevice, kCheckSystemState,
     "the token is write-protected", "take its write protection off, or use another token"},
    {ROW(CKR_DEVICE_REMOVED, kAny), kTokenRemoved, kReconnect,
     "the token was removed or reset in the middle", kStartAgain},
    {ROW(CKR_SESSION_HANDLE_INVALID, kAny), kTokenRemoved, kReconnect,
     "the token was removed or reset in the middle", kStartAgain},
    {ROW(CKR_SESSION_CLOSED, kAny), kTokenRemoved, kReconnect,
     "the token was removed or reset in the middle", kStartAgain},
    {ROW(CKR_DEVICE_ERROR, kAny), kTokenDevice, kCheckSystemState, "the token's service failed",
     kCheckService},
    {ROW(CKR_DEVICE_MEMORY, kAny), kTokenDevice, kCheckSystemState, "the token is full",
     "delete objects that are not needed with the vendor's tool"},
    {ROW(CKR_SESSION_COUNT, kAny), kTokenDevice, kRetry, "the token is busy: no session is left",
     "close other users of the token and start again"},
    {ROW(CKR_SESSION_READ_ONLY, kAny), kTokenDevice, kCheckSystemState,
     "the token gave a read-only session", "take its write protection off, or use another token"},
    // --- mechanisms
    {ROW(CKR_MECHANISM_INVALID, kAny), kTokenMechanism, kWrongDevice,
     "this token cannot do the operation", kUseOtherKey},
    {ROW(CKR_FUNCTION_NOT_SUPPORTED, kAny), kTokenMechanism, kWrongDevice,
     "this token cannot do the operation", kUseOtherKey},
    {ROW(CKR_MECHANISM_PARAM_INVALID, kAny), kTokenMechanism, kWrongDevice,
     "this token refuses the operation's parameters", kUseOtherKey},
    {ROW(CKR_ARGUMENTS_BAD, kAny), kTokenMechanism, kWrongDevice,
     "this token refuses the operation's parameters", kUseOtherKey},
    {ROW(CKR_ARGUMENTS_BAD, kInitialize), kModuleFailed, kCheckSystemState,
     "the module could not start: it refuses its arguments", kCheckModule},
    {ROW(CKR_CURVE_NOT_SUPPORTED, kAny), kTokenMechanism, kWrongDevice,
     "this token does not know the curve P-256", kUseOtherKey},
    {ROW(CKR_DOMAIN_PARAMS_INVALID, kAny), kTokenMechanism, kWrongDevice,
     "this token does not know the curve P-256", kUseOtherKey},
    // --- the key
    {ROW(CKR_KEY_HANDLE_INVALID, kAny), kTokenKeyNotFound, kWrongDevice,
     "the key vanished or was replaced while it was in use", kStartAgain},
    {ROW(CKR_OBJECT_HANDLE_INVALID, kAny), kTokenKeyNotFound, kWrongDevice,
     "the key vanished or was replaced while it was in use", kStartAgain},
    {ROW(CKR_KEY_FUNCTION_NOT_PERMITTED, kAny), kTokenKeyUsage, kWrongDevice,
     "the key may not decrypt or derive",
     "register a key with CKA_DECRYPT (RSA) or CKA_DERIVE (EC): 'keyescrow token keygen'"},
    {ROW(CKR_ACTION_PROHIBITED, kAny), kTokenKeyUsage, kWrongDevice,
     "the token's policy prohibits the operation",
     "register a key with CKA_DECRYPT (RSA) or CKA_DERIVE (EC): 'keyescrow token keygen'"},
    {ROW(CKR_KEY_TYPE_INCONSISTENT, kAny), kTokenKeyUsage, kWrongDevice,
     "the key is of the wrong kind", kUseOtherKey},
    {ROW(CKR_KEY_SIZE_RANGE, kAny), kTokenKeyUsage, kWrongDevice, "the key is of the wrong size",
     kUseOtherKey},
    {ROW(CKR_ATTRIBUTE_SENSITIVE, kAny), kTokenKeyUsage, kWrongDevice,
     "the token will not release the derived value", "use an RSA key on this token"},
    {ROW(CKR_KEY_UNEXTRACTABLE, kAny), kTokenKeyUsage, kWrongDevice,
     "the token will not release the derived value", "use an RSA key on this token"},
    {ROW(CKR_TEMPLATE_INCOMPLETE, kAny), kTokenMechanism, kCallOperator,
     "the token rejects our template: it wants more attributes", kAskVendor},
    {ROW(CKR_TEMPLATE_INCONSISTENT, kAny), kTokenMechanism, kCallOperator,
     "the token rejects our template: its attributes contradict each other", kAskVendor},
    {ROW(CKR_ATTRIBUTE_TYPE_INVALID, kAny), kTokenMechanism, kCallOperator,
     "the token rejects our template: it does not know an attribute", kAskVendor},
    {ROW(CKR_ATTRIBUTE_VALUE_INVALID, kAny), kTokenMechanism, kCallOperator,
     "the token rejects our template: it refuses an attribute's value", kAskVendor},
    {ROW(CKR_ATTRIBUTE_READ_ONLY, kAny), kTokenMechanism, kCallOperator,
     "the token rejects our template: an attribute is read-only", kAskVendor},
    // --- signing
    {ROW(CKR_KEY_FUNCTION_NOT_PERMITTED, kSigning), kTokenKeyUsage, kWrongDevice,
     "the key may not sign", kUseSigningKey},
    {ROW(CKR_ACTION_PROHIBITED, kSigning), kTokenKeyUsage, kWrongDevice,
     "the token's policy prohibits signing", kUseSigningKey},
    {ROW(CKR_KEY_TYPE_INCONSISTENT, kSigning), kTokenKeyUsage, kWrongDevice,
     "the key is of the wrong kind", kUseSigningKey},
    {ROW(CKR_KEY_SIZE_RANGE, kSigning), kTokenKeyUsage, kWrongDevice,
     "the key is of the wrong size", kUseSigningKey},
    {ROW(CKR_MECHANISM_INVALID, kSigning), kTokenMechanism, kWrongDevice,
     "this token cannot sign with ECDSA", kUseSigningKey},
    {ROW(CKR_FUNCTION_NOT_SUPPORTED, kSigning), kTokenMechanism, kWrongDevice,
     "this token cannot sign with ECDSA", kUseSigningKey},
    {ROW(CKR_MECHANISM_PARAM_INVALID, kSigning), kTokenMechanism, kWrongDevice,
     "this token refuses ECDSA as it is asked for", kUseSigningKey},
    {ROW(CKR_ARGUMENTS_BAD, kSigning), kTokenMechanism, kWrongDevice,
     "this token refuses ECDSA as it is asked for", kUseSigningKey},
    {ROW(CKR_DATA_INVALID, kSigning), kTokenMechanism, kWrongDevice,
     "this token does not sign a SHA-256 hash", kUseSigningKey},
    {ROW(CKR_DATA_LEN_RANGE, kSigning), kTokenMechanism, kWrongDevice,
     "this token does not sign a SHA-256 hash", kUseSigningKey},
    // --- the data
    {ROW(CKR_ENCRYPTED_DATA_INVALID, kAny), kTokenDataInvalid, kWrongDevice,
     "the envelope is damaged or was made for another key", kDamaged},
    {ROW(CKR_ENCRYPTED_DATA_LEN_RANGE, kAny), kTokenDataInvalid, kWrongDevice,
     "the envelope is damaged or was made for another key", kDamaged},
    {ROW(CKR_DATA_INVALID, kAny), kTokenDataInvalid, kWrongDevice,
     "the envelope is damaged or was made for another key", kDamaged},
    {ROW(CKR_DATA_LEN_RANGE, kAny), kTokenDataInvalid, kWrongDevice,
     "the envelope is damaged or was made for another key", kDamaged},
    {ROW(CKR_PUBLIC_KEY_INVALID, kAny), kTokenDataInvalid, kWrongDevice,
     "the envelope is damaged or was made for another key", kDamaged},
    {ROW(CKR_GENERAL_ERROR, kOperation), kTokenDataInvalid, kWrongDevice,
     "the envelope is damaged or was made for another key (or the module failed)", kDamaged},
    {ROW(CKR_FUNCTION_FAILED, kOperation), kTokenDataInvalid, kWrongDevice,
     "the envelope is damaged or was made for another key (or the module failed)", kDamaged},
    // --- the module
    {ROW(CKR_GENERAL_ERROR, kInitialize), kModuleFailed, kCheckSystemState,
     "the module could not start", kCheckModule},
    {ROW(CKR_HOST_MEMORY, kInitialize), kModuleFailed, kCheckSystemState,
     "the module could not start", kCheckModule},
    {ROW(CKR_FUNCTION_FAILED, kInitialize), kModuleFailed, kCheckSystemState,
     "the module could not start", kCheckModule},
    {ROW(CKR_DEVICE_ERROR, kInitialize), kModuleFailed, kCheckSystemState,
     "the module could not start: its device or service does not answer", kCheckModule},
    {ROW(CKR_TOKEN_NOT_PRESENT, kInitialize), kModuleFailed, kCheckSystemState,
     "the module could not start without its token", kCheckModule},
    {ROW(CKR_NEED_TO_CREATE_THREADS, kAny), kModuleFailed, kCheckSystemState,
     "the module could not start: it wants threads", kCheckModule},
    {ROW(CKR_CANT_LOCK, kAny), kModuleFailed, kCheckSystemState,
     "the module could not start: it cannot lock", kCheckModule},
    {ROW(CKR_CRYPTOKI_NOT_INITIALIZED, kAny), kModuleFailed, kCheckSystemState,
     "the module lost its state in the middle", kCheckModule},
    {ROW(CKR_FIPS_SELF_TEST_FAILED, kAny), kModuleFailed, kCallOperator,
     "the module's FIPS self-test failed", kAskVendor},
    {ROW(CKR_LIBRARY_LOAD_FAILED, kAny), kModuleFailed, kCheckSystemState,
     "the module could not load a library that it needs", kCheckModule},
    {ROW(CKR_GENERAL_ERROR, kAny), kTokenDevice, kCheckSystemState, "the module failed",
     kCheckService},
    {ROW(CKR_FUNCTION_FAILED, kAny), kTokenDevice, kCheckSystemState, "the module failed",
     kCheckService},
    {ROW(CKR_HOST_MEMORY, kAny), kModuleFailed, kCheckSystemState, "the module is out of memory",
     "free some memory and start again"},
    {ROW(CKR_BUFFER_TOO_SMALL, kAny), kTokenVendor, kCallOperator,
     "the token's answer is larger than its kind of key allows", kAskVendor},
    {ROW(CKR_OPERATION_ACTIVE, kAny), kTokenVendor, kCallOperator,
     "the token says that another operation is still active", kAskVendor},
    {ROW(CKR_OPERATION_NOT_INITIALIZED, kAny), kTokenVendor, kCallOperator,
     "the token lost the operation in the middle", kAskVendor},
    {ROW(CKR_FUNCTION_CANCELED, kAny), kTokenCancelled, kRetry, "cancelled at the reader",
     "start again and confirm at the reader"},
    {ROW(CKR_FUNCTION_REJECTED, kAny), kTokenCancelled, kRetry, "rejected at the reader",
     "start again and confirm at the reader"},
    {ROW(CKR_CANCEL, kAny), kTokenCancelled, kRetry, "cancelled at the reader",
     "start again and confirm at the reader"},
};

#undef ROW

CkrPhase PhaseOf(TokenCall call) {
  switch (call) {
    case TokenCall::kInitialize: return kInitialize;
    case TokenCall::kDecryptInit:
    case TokenCall::kDecrypt:
    case TokenCall::kDeriveKey: return kOperation;
    case TokenCall::kSignInit:
    case TokenCall::kSign: return kSigning;
    default: return kAny;
  }
}

const CkrRow* FindRow(std::uint64_t rv, CkrPhase phase) {
  const CkrRow* found = nullptr;
  for (const CkrRow& row : kRows) {
    if (row.rv != rv) continue;
    if (row.phase == phase) return &row;
    if (row.phase == kAny) found = &row;
  }
  return found;
}

}  // namespace

std::string_view TokenCallName(TokenCall call) {
  switch (call) {
    case TokenCall::kInitialize: return "C_Initialize";
    case TokenCall::kGetInfo: return "C_GetInfo";
    case TokenCall::kGetSlotList: return "C_GetSlotList";
    case TokenCall::kGetTokenInfo: return "C_GetTokenInfo";
    case TokenCall::kOpenSession: return "C_OpenSession";
    case TokenCall::kFindObjects: return "C_FindObjects";
    case TokenCall::kGetAttributeValue: return "C_GetAttributeValue";
    case TokenCall::kLogin: return "C_Login";
    case TokenCall::kContextLogin: return "C_Login for one use of the key";
    case TokenCall::kDecryptInit: return "C_DecryptInit";
    case TokenCall::kDecrypt: return "C_Decrypt";
    case TokenCall::kDeriveKey: return "C_DeriveKey";
    case TokenCall::kGenerateKeyPair: return "C_GenerateKeyPair";
    case TokenCall::kSignInit: return "C_SignInit";
    case TokenCall::kSign: return "C_Sign";
  }
  return "the module";
}

std::span<const CkrRow> CkrRows() { return kRows; }

Error CkrError(TokenCall call, std::uint64_t rv, const CkrContext& context) {
  const std::string detail = context.detail.empty() ? "" : "; " + context.detail;
  const CkrRow* row = FindRow(rv, PhaseOf(call));
  // One expression: assigning an Error to itself by WithNative's reference would empty it.
  Error error =
      (row != nullptr
           ? Error(row->code, row->action,
                   fmt::format("{}{} ({} from {})", row->message, detail, row->name,
                               TokenCallName(call)),
                   std::string(row->hint))
           : Error(call == TokenCall::kInitialize ? kModuleFailed : kTokenVendor, kCallOperator,
                   fmt::format("{} 0x{:08x} from {}{}",
                               rv >= CKR_VENDOR_DEFINED ? "vendor error" : "unexpected error", rv,
                               TokenCallName(call), detail),
                   std::string(kAskVendor)))
          .WithNative("CKR", rv);
  if (!context.token.empty()) return std::move(error).WithContext("token " + context.token);
  return error;
}

}  // namespace keyescrow::hsm
