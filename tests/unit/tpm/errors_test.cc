#include "tpm/errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <set>

namespace keyescrow::tpm {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Expected {
  std::uint32_t code;  // as the TPM sends it
  Context context;
  ErrorCode error;
  Action action;
};

// Every row of the table, by a code as a TPM or tpm2-abrmd sends it.
constexpr Expected kExpected[] = {
    {0x98e, Context::kPassword, ErrorCode::kTpmWrongAuth, Action::kReauthenticate},
    {0xc098e, Context::kPassword, ErrorCode::kTpmWrongAuth, Action::kReauthenticate},
    {0x98e, Context::kAgentKey, ErrorCode::kAgentKeyUnavailable, Action::kCheckSystemState},
    {0x9a2, Context::kSrk, ErrorCode::kTpmSrkUntrusted, Action::kWrongDevice},
    {0x9a2, Context::kOwner, ErrorCode::kTpmOwnerAuth, Action::kCallOperator},
    {0x9a2, Context::kAgentKey, ErrorCode::kAgentKeyUnavailable, Action::kCheckSystemState},
    {0x921, Context::kAny, ErrorCode::kTpmLockout, Action::kWaitForLockout},
    {0x99d, Context::kAny, ErrorCode::kTpmPcrMismatch, Action::kCheckSystemState},
    {0x1c4, Context::kPcrPolicy, ErrorCode::kTpmPcrMismatch, Action::kCheckSystemState},
    {0x128, Context::kAny, ErrorCode::kTpmPcrMismatch, Action::kRetry},
    {0x2db, Context::kAny, ErrorCode::kTpmPolicySignature, Action::kCheckSystemState},
    {0x1df, Context::kAny, ErrorCode::kTpmWrongDevice, Action::kWrongDevice},
    {0x1df, Context::kAgentKey, ErrorCode::kAgentKeyUnavailable, Action::kWrongDevice},
    {0x18b, Context::kAny, ErrorCode::kTpmReset, Action::kRetry},
    {0x18b, Context::kSrk, ErrorCode::kTpmWrongDevice, Action::kWrongDevice},
    {0x14c, Context::kOwner, ErrorCode::kTpmSrkUntrusted, Action::kCheckSystemState},
    {0x901, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry},
    {0x902, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry},
    {0x903, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry},
    {0x905, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry},
    {0x908, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry},
    {0x90a, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry},
    {0x920, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry},
    {0x922, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry},
    {0x923, Context::kAny, ErrorCode::kTpmBusy, Action::kRetry},
    {0x100, Context::kAny, ErrorCode::kTpmReset, Action::kCheckSystemState},
    {0x910, Context::kAny, ErrorCode::kTpmReset, Action::kRetry},
    {0x911, Context::kAny, ErrorCode::kTpmReset, Action::kRetry},
    {0x912, Context::kAny, ErrorCode::kTpmReset, Action::kRetry},
    {0x913, Context::kAny, ErrorCode::kTpmReset, Action::kRetry},
    {0x914, Context::kAny, ErrorCode::kTpmReset, Action::kRetry},
    {0x915, Context::kAny, ErrorCode::kTpmReset, Action::kRetry},
    {0x916, Context::kAny, ErrorCode::kTpmReset, Action::kRetry},
    {0x918, Context::kAny, ErrorCode::kTpmReset, Action::kRetry},
    {0x101, Context::kAny, ErrorCode::kTpmFailure, Action::kCallOperator},
    {0x9a2, Context::kAnchor, ErrorCode::kAnchorMissing, Action::kCheckSystemState},
    {0x98e, Context::kAnchor, ErrorCode::kAnchorMissing, Action::kCheckSystemState},
    {0x1df, Context::kAnchor, ErrorCode::kAnchorMissing, Action::kWrongDevice},
    {0x18b, Context::kAnchor, ErrorCode::kAnchorMissing, Action::kWrongDevice},
    {0x14a, Context::kAnchor, ErrorCode::kAnchorMissing, Action::kWrongDevice},
    {0x14b, Context::kAnchor, ErrorCode::kAnchorNoIndex, Action::kCheckSystemState},
    {0x14c, Context::kAnchor, ErrorCode::kAnchorNoIndex, Action::kCheckSystemState},
};

TEST(TpmErrors, EveryRowSaysWhatHappenedAndWhatToDo) {
  std::set<const ErrorRow*> seen;
  for (const Expected& expected : kExpected) {
    const Error error = ErrorFor(expected.code, expected.context, "TPM2_Unseal");
    EXPECT_EQ(error.code(), expected.error) << std::hex << expected.code;
    EXPECT_EQ(error.action(), expected.action) << std::hex << expected.code;
    EXPECT_EQ(error.native_domain(), "TPM_RC");
    EXPECT_EQ(error.native_code(), expected.code);
    for (const ErrorRow& row : ErrorTable()) {
      if (row.code == StripFormatBits(expected.code) &&
          (row.context == expected.context || row.context == Context::kAny) &&
          error.message() == row.message) {
        seen.insert(&row);
      }
    }
  }
  EXPECT_EQ(seen.size(), ErrorTable().size()) << "a row is not tested";
}

TEST(TpmErrors, TextsAreLowerCaseWithoutAFullStop) {
  for (const ErrorRow& row : ErrorTable()) {
    for (std::string_view text : {row.message, row.hint}) {
      ASSERT_FALSE(text.empty());
      EXPECT_NE(text.back(), '.') << text;
      EXPECT_FALSE(std::isupper(static_cast<unsigned char>(text[0])) != 0 &&
                   std::islower(static_cast<unsigned char>(text[1])) != 0)
          << text;
    }
  }
}

TEST(TpmErrors, NoRowStandsTwice) {
  std::set<std::pair<std::uint32_t, Context>> keys;
  for (const ErrorRow& row : ErrorTable()) {
    EXPECT_TRUE(keys.emplace(row.code, row.context).second) << std::hex << row.code;
    EXPECT_EQ(StripFormatBits(row.code), row.code);
  }
}

TEST(TpmErrors, AnUnknownCodeShowsItsHexAndCallsTheOperator) {
  for (std::uint32_t code : {0x143U, 0x2c2U, 0x1c4U, 0x98eU, 0x7fffffffU, 0xb0902U}) {
    const Error error = ErrorFor(code, Context::kAny, "TPM2_Load");
    EXPECT_EQ(error.code(), ErrorCode::kTpmFailure);
    EXPECT_EQ(error.action(), Action::kCallOperator);
    EXPECT_THAT(error.message(), HasSubstr("TPM2_Load"));
  }
  EXPECT_THAT(ErrorFor(0x2c2, Context::kAny, "TPM2_Load").message(), HasSubstr("0x2c2"));
}

TEST(TpmErrors, FormatBitsAreStripped) {
  EXPECT_EQ(StripFormatBits(0x98e), 0x8eU);
  EXPECT_EQ(StripFormatBits(0x1c4), 0x84U);
  EXPECT_EQ(StripFormatBits(0x1df), 0x9fU);
  EXPECT_EQ(StripFormatBits(0x2db), 0x9bU);
  EXPECT_EQ(StripFormatBits(0x921), 0x921U);
  EXPECT_EQ(StripFormatBits(0xc0902), 0x902U);
  EXPECT_EQ(StripFormatBits(0xa000a), 0xa000aU);
}

TEST(TpmErrors, WrongAuthTellsTheTriesIncludingThisOne) {
  const DaState before{.counter = 1, .max_tries = 5, .interval_s = 600};
  const Error error = WrongAuthError(before, 0x98e);
  EXPECT_THAT(error.message(), HasSubstr("2 of 5 tries used"));
  EXPECT_THAT(error.message(), HasSubstr("a bus fault can look the same"));
  const Error locking = WrongAuthError({.counter = 4, .max_tries = 5, .interval_s = 600}, 0x98e);
  EXPECT_THAT(locking.hint(), HasSubstr("locked now"));
}

TEST(TpmErrors, LockoutTellsWhenItEndsAndNeverPromisesWhatDoesNotHeal) {
  const Error heals = LockoutError({.counter = 3, .max_tries = 3, .interval_s = 1000});
  EXPECT_THAT(heals.hint(), HasSubstr("1000 s"));
  EXPECT_THAT(heals.hint(), HasSubstr("3000 s"));
  EXPECT_THAT(heals.hint(), HasSubstr("tpm2_dictionarylockout -c"));
  const DaState never{.counter = 3, .max_tries = 3, .interval_s = 0};
  for (const Error& error :
       {LockoutError(never), LastTryError(never), WrongAuthError(never, 0x98e)}) {
    EXPECT_THAT(error.hint(), HasSubstr("frees no try by waiting"));
    EXPECT_THAT(error.hint(), Not(HasSubstr("comes back")));
  }
  EXPECT_THAT(LastTryError(never).hint(), HasSubstr("--use-last-try"));
}

}  // namespace
}  // namespace keyescrow::tpm
