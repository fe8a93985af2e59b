#include "hsm/errors.h"

#include <gtest/gtest.h>

#include <cctype>
#include <set>

#include "hsm/cryptoki.h"

namespace keyescrow::hsm {
namespace {

TokenCall CallIn(CkrPhase phase) {
  switch (phase) {
    case CkrPhase::kInitialize: return TokenCall::kInitialize;
    case CkrPhase::kOperation: return TokenCall::kDecrypt;
    case CkrPhase::kSigning: return TokenCall::kSign;
    case CkrPhase::kAny: return TokenCall::kLogin;
  }
  return TokenCall::kLogin;
}

TEST(CkrTable, GivesEachRowItsCodeActionAndTexts) {
  for (const CkrRow& row : CkrRows()) {
    const Error error = CkrError(CallIn(row.phase), row.rv);
    EXPECT_EQ(error.code(), row.code) << row.name;
    EXPECT_EQ(error.action(), row.action) << row.name;
    EXPECT_TRUE(error.message().starts_with(row.message)) << row.name;
    EXPECT_EQ(error.hint(), row.hint) << row.name;
    EXPECT_EQ(error.native_domain(), "CKR") << row.name;
    EXPECT_EQ(error.native_code(), row.rv) << row.name;
    EXPECT_NE(error.message().find(row.name), std::string::npos) << row.name;
  }
}

TEST(CkrTable, HasEachCodeOncePerPhase) {
  std::set<std::pair<std::uint64_t, CkrPhase>> seen;
  for (const CkrRow& row : CkrRows()) {
    EXPECT_TRUE(seen.emplace(row.rv, row.phase).second) << row.name;
  }
}

TEST(CkrTable, WritesTextsAsTheCommandLinePrintsThem) {
  for (const CkrRow& row : CkrRows()) {
    for (const std::string_view text : {row.message, row.hint}) {
      ASSERT_FALSE(text.empty()) << row.name;
      EXPECT_FALSE(text.ends_with('.')) << row.name;
      const bool upper = std::isupper(static_cast<unsigned char>(text[0])) != 0 &&
                         std::isupper(static_cast<unsigned char>(text[1])) == 0;
      EXPECT_FALSE(upper) << row.name;
    }
  }
}

struct Case {
  TokenCall call;
  CK_RV rv;
  ErrorCode code;
  Action action;
};

class CkrCase : public testing::TestWithParam<Case> {};

TEST_P(CkrCase, MapsToItsCode) {
  const Error error = CkrError(GetParam().call, GetParam().rv);
  EXPECT_EQ(error.code(), GetParam().code) << error.message();
  EXPECT_EQ(error.action(), GetParam().action) << error.message();
}

// The rows whose meaning decides what a person does next, written out a second time.
INSTANTIATE_TEST_SUITE_P(
    Documented, CkrCase,
    testing::Values(
        Case{TokenCall::kLogin, CKR_PIN_INCORRECT, ErrorCode::kWrongPin, Action::kReauthenticate},
        Case{TokenCall::kLogin, CKR_PIN_LOCKED, ErrorCode::kPinLocked, Action::kWaitForLockout},
        Case{TokenCall::kLogin, CKR_PIN_LEN_RANGE, ErrorCode::kPinInvalid, Action::kReauthenticate},
        Case{TokenCall::kLogin, CKR_PIN_INVALID, ErrorCode::kPinInvalid, Action::kReauthenticate},
        Case{TokenCall::kLogin, CKR_PIN_EXPIRED, ErrorCode::kPinExpired, Action::kCallOperator},
        Case{TokenCall::kLogin, CKR_USER_PIN_NOT_INITIALIZED, ErrorCode::kPinExpired,
             Action::kCallOperator},
        Case{TokenCall::kLogin, CKR_USER_ALREADY_LOGGED_IN, ErrorCode::kTokenLoginState,
             Action::kCheckSystemState},
        Case{TokenCall::kDecrypt, CKR_USER_NOT_LOGGED_IN, ErrorCode::kTokenLoginState,
             Action::kReauthenticate},
        Case{TokenCall::kOpenSession, CKR_TOKEN_NOT_PRESENT, ErrorCode::kTokenNotFound,
             Action::kReconnect},
        Case{TokenCall::kOpenSession, CKR_TOKEN_NOT_RECOGNIZED, ErrorCode::kTokenNotFound,
             Action::kWrongDevice},
        Case{TokenCall::kDecrypt, CKR_DEVICE_REMOVED, ErrorCode::kTokenRemoved, Action::kReconnect},
        Case{TokenCall::kDecrypt, CKR_SESSION_HANDLE_INVALID, ErrorCode::kTokenRemoved,
             Action::kReconnect},
        Case{TokenCall::kDecrypt, CKR_SESSION_CLOSED, ErrorCode::kTokenRemoved, Action::kReconnect},
        Case{TokenCall::kDecrypt, CKR_DEVICE_ERROR, ErrorCode::kTokenDevice,
             Action::kCheckSystemState},
        Case{TokenCall::kGenerateKeyPair, CKR_DEVICE_MEMORY, ErrorCode::kTokenDevice,
             Action::kCheckSystemState},
        Case{TokenCall::kOpenSession, CKR_SESSION_COUNT, ErrorCode::kTokenDevice, Action::kRetry},
        Case{TokenCall::kDecryptInit, CKR_MECHANISM_INVALID, ErrorCode::kTokenMechanism,
             Action::kWrongDevice},
        Case{TokenCall::kDecryptInit, CKR_ARGUMENTS_BAD, ErrorCode::kTokenMechanism,
             Action::kWrongDevice},
        Case{TokenCall::kInitialize, CKR_ARGUMENTS_BAD, ErrorCode::kModuleFailed,
             Action::kCheckSystemState},
        Case{TokenCall::kDecryptInit, CKR_KEY_HANDLE_INVALID, ErrorCode::kTokenKeyNotFound,
             Action::kWrongDevice},
        Case{TokenCall::kDecryptInit, CKR_KEY_FUNCTION_NOT_PERMITTED, ErrorCode::kTokenKeyUsage,
             Action::kWrongDevice},
        Case{TokenCall::kDecryptInit, CKR_KEY_TYPE_INCONSISTENT, ErrorCode::kTokenKeyUsage,
             Action::kWrongDevice},
        Case{TokenCall::kGetAttributeValue, CKR_ATTRIBUTE_SENSITIVE, ErrorCode::kTokenKeyUsage,
             Action::kWrongDevice},
        Case{TokenCall::kDecrypt, CKR_ENCRYPTED_DATA_INVALID, ErrorCode::kTokenDataInvalid,
             Action::kWrongDevice},
        Case{TokenCall::kDecrypt, CKR_GENERAL_ERROR, ErrorCode::kTokenDataInvalid,
             Action::kWrongDevice},
        Case{TokenCall::kInitialize, CKR_GENERAL_ERROR, ErrorCode::kModuleFailed,
             Action::kCheckSystemState},
        Case{TokenCall::kLogin, CKR_GENERAL_ERROR, ErrorCode::kTokenDevice,
             Action::kCheckSystemState},
        Case{TokenCall::kInitialize, CKR_HOST_MEMORY, ErrorCode::kModuleFailed,
             Action::kCheckSystemState},
        Case{TokenCall::kLogin, CKR_FUNCTION_CANCELED, ErrorCode::kTokenCancelled, Action::kRetry},
        Case{TokenCall::kLogin, CKR_FUNCTION_REJECTED, ErrorCode::kTokenCancelled,
             Action::kRetry}));

TEST(CkrError, ShowsAnUnknownCodesHexAndCallsTheOperator) {
  const Error vendor = CkrError(TokenCall::kDecrypt, 0x80000abc);
  EXPECT_EQ(vendor.code(), ErrorCode::kTokenVendor);
  EXPECT_EQ(vendor.action(), Action::kCallOperator);
  EXPECT_NE(vendor.message().find("vendor error 0x80000abc"), std::string::npos);
  const Error unknown = CkrError(TokenCall::kDecrypt, 0x7777);
  EXPECT_EQ(unknown.action(), Action::kCallOperator);
  EXPECT_NE(unknown.message().find("0x00007777"), std::string::npos);
}

TEST(CkrError, NamesTheTokenAndWhatItOffers) {
  const Error error = CkrError(TokenCall::kDecryptInit, CKR_MECHANISM_INVALID,
                               {"\"ops\" (serial 1)", "it offers ECDSA"});
  EXPECT_EQ(error.message(),
            "token \"ops\" (serial 1): this token cannot do the operation; it offers ECDSA "
            "(CKR_MECHANISM_INVALID from C_DecryptInit)");
}

}  // namespace
}  // namespace keyescrow::hsm
