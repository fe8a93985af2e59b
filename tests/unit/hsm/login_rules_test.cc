#include <gtest/gtest.h>

#include "hsm/cryptoki.h"
#include "hsm/token_location.h"
#include "hsm/token_login.h"

namespace keyescrow::hsm {
namespace {

TokenInfo TokenWith(std::uint64_t flags, std::uint64_t minimum = 4, std::uint64_t maximum = 255) {
  TokenInfo token;
  token.label = "ops";
  token.serial = "1";
  token.flags = flags | CKF_TOKEN_INITIALIZED | CKF_LOGIN_REQUIRED;
  token.min_pin_length = minimum;
  token.max_pin_length = maximum;
  return token;
}

TEST(LoginRules, RefuseALockedTokenWhateverIsAsked) {
  for (const bool use_last_try : {false, true}) {
    const Status status =
        CheckTokenLetsLogIn(TokenWith(CKF_USER_PIN_LOCKED | CKF_USER_PIN_FINAL_TRY), use_last_try);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code(), ErrorCode::kPinLocked);
    EXPECT_EQ(status.error().action(), Action::kWaitForLockout);
  }
}

TEST(LoginRules, SpendTheLastTryOnlyWhenTold) {
  EXPECT_EQ(CheckTokenLetsLogIn(TokenWith(CKF_USER_PIN_FINAL_TRY), false).error().code(),
            ErrorCode::kPinLastTry);
  EXPECT_TRUE(CheckTokenLetsLogIn(TokenWith(CKF_USER_PIN_FINAL_TRY), true));
  EXPECT_TRUE(CheckTokenLetsLogIn(TokenWith(CKF_USER_PIN_COUNT_LOW), false));
}

TEST(LoginRules, CheckThePinsLengthAgainstTheTokens) {
  EXPECT_EQ(CheckPinLength(TokenWith(0), 0).error().code(), ErrorCode::kPinEmpty);
  EXPECT_EQ(CheckPinLength(TokenWith(0, 0, 0), 0).error().code(), ErrorCode::kPinEmpty);
  EXPECT_EQ(CheckPinLength(TokenWith(0), 3).error().code(), ErrorCode::kPinInvalid);
  EXPECT_TRUE(CheckPinLength(TokenWith(0), 4));
  EXPECT_TRUE(CheckPinLength(TokenWith(0), 255));
  EXPECT_EQ(CheckPinLength(TokenWith(0, 6, 8), 9).error().code(), ErrorCode::kPinInvalid);
  EXPECT_NE(CheckPinLength(TokenWith(0, 6, 8), 9).error().message().find("6–8"), std::string::npos);
}

TEST(LoginRules, IgnoreLimitsThatTheModuleDoesNotState) {
  EXPECT_TRUE(CheckPinLength(TokenWith(0, 0, 0), 8));
  EXPECT_TRUE(CheckPinLength(TokenWith(0, ~0ULL, ~0ULL), 8));
  EXPECT_TRUE(CheckPinLength(TokenWith(0, 300, 8), 8));
}

KeyRow RsaRow(std::uint8_t fill, Bytes id) {
  KeyRow row;
  row.key_type = CKK_RSA;
  row.modulus = Bytes(256, fill);
  row.exponent = {1, 0, 1};
  row.id = std::move(id);
  return row;
}

TEST(FindPrivateKey, PrefersThePublicHalfToTheId) {
  KeyRow right = RsaRow(0x81, {7});
  right.handle = 2;
  KeyRow wrong = RsaRow(0x83, {1});
  wrong.handle = 1;
  const Bytes spki = PublicKeyOf(right).spki;
  const auto found = FindPrivateKey({wrong, right}, spki, {Bytes{1}}, "ops");
  ASSERT_TRUE(found);
  EXPECT_EQ(found->handle, 2U);
  EXPECT_EQ(FindPrivateKey({wrong}, spki, {Bytes{1}}, "ops").error().code(),
            ErrorCode::kTokenKeyNotFound);
}

TEST(FindPrivateKey, UsesTheIdWhereNoPublicHalfIsShown) {
  KeyRow hidden;
  hidden.key_type = CKK_EC;
  hidden.id = {1};
  const Bytes spki(91, 0);
  EXPECT_TRUE(FindPrivateKey({hidden}, spki, {Bytes{1}}, "ops"));
  EXPECT_FALSE(FindPrivateKey({hidden}, spki, {Bytes{2}}, "ops"));
  EXPECT_FALSE(FindPrivateKey({hidden}, spki, {}, "ops"));
  EXPECT_TRUE(FindPrivateKey({hidden}, spki, {Bytes{2}, Bytes{1}}, "ops"));
  EXPECT_EQ(FindPrivateKey({hidden, hidden}, spki, {Bytes{1}}, "ops").error().code(),
            ErrorCode::kTokenKeyAmbiguous);
  hidden.key_type = CKK_RSA;
  EXPECT_FALSE(FindPrivateKey({hidden}, spki, {Bytes{1}}, "ops"));
}

}  // namespace
}  // namespace keyescrow::hsm
