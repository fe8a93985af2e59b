// The error table of PKCS#11: one row a code, so that each answer of a token has one text, one
// ErrorCode and one Action. A code that is not in the table shows its hex and says CallOperator.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "envelope/base/error.h"

namespace keyescrow::hsm {

// TokenCall: the module's function that answered. The numbers are part of the worker's protocol.
enum class TokenCall : std::uint8_t {
  kInitialize = 1,
  kGetInfo,
  kGetSlotList,
  kGetTokenInfo,
  kOpenSession,
  kFindObjects,
  kGetAttributeValue,
  kLogin,
  kContextLogin,
  kDecryptInit,
  kDecrypt,
  kDeriveKey,
  kGenerateKeyPair,
  kSignInit,
  kSign,
};
inline constexpr std::uint8_t kLastTokenCall = 15;
std::string_view TokenCallName(TokenCall call);  // "C_Login" …

// CkrPhase: some codes mean another thing while the module starts, when a key opens an envelope, or
// when it signs.
enum class CkrPhase : std::uint8_t { kAny, kInitialize, kOperation, kSigning };

struct CkrRow {
  std::uint64_t rv;
  CkrPhase phase;
  std::string_view name;  // "CKR_PIN_INCORRECT"
  ErrorCode code;
  Action action;
  std::string_view message;
  std::string_view hint;
};

std::span<const CkrRow> CkrRows();

struct CkrContext {
  std::string token;   // DescribeToken, or ""
  std::string detail;  // what the token allows or offers, or ""
};

// CkrError turns the answer of `call` into an Error: native domain "CKR", `rv` verbatim.
Error CkrError(TokenCall call, std::uint64_t rv, const CkrContext& context = {});

}  // namespace keyescrow::hsm
