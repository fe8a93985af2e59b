#include "envelope/path_expression.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace keyescrow::envelope {
namespace {

using testing::HasSubstr;

std::string Canonical(std::string_view text) {
  auto expression = ParsePathExpression(text);
  return expression ? FormatPathExpression(*expression) : "error: " + expression.error().message();
}

std::string IdOf(std::string_view text) {
  auto option = ParsePathOption(text);
  return option ? option->id : "error: " + option.error().message();
}

void ExpectRefused(std::string_view text, std::string_view cause) {
  auto option = ParsePathOption(text);
  ASSERT_FALSE(option) << text;
  EXPECT_EQ(option.error().code(), ErrorCode::kInvalidPath);
  EXPECT_EQ(option.error().action(), Action::kFixInput);
  EXPECT_THAT(option.error().message(), HasSubstr(std::string(cause))) << text;
  EXPECT_FALSE(option.error().hint().empty());
}

TEST(PathExpression, OrdersFactorsAsTheFormatDoes) {
  EXPECT_EQ(Canonical("password & token:ops"), "token:ops & password");
  EXPECT_EQ(Canonical("tpm&password"), "password & tpm");
  EXPECT_EQ(Canonical(" tpm:db1 & token:b & password & token:a "),
            "token:a & token:b & password & tpm:db1");
  EXPECT_EQ(Canonical("password & 2 of (token:carol, token:alice,token:bob)"),
            "2 of (token:alice, token:bob, token:carol) & password");
  EXPECT_EQ(Canonical("2of(token:a,token:b)"), "error: column 1: unknown factor '2of'");
  EXPECT_EQ(Canonical("recovery-key:security-team"), "recovery-key:security-team");
}

TEST(PathExpression, CanonicalTextParsesToAnEqualExpression) {
  for (const char* text : {"password", "tpm", "tpm:db1", "token:a & password & tpm",
                           "3 of (token:c, token:a, token:b) & tpm", "recovery-key:x"}) {
    auto first = ParsePathExpression(text);
    ASSERT_TRUE(first) << text;
    auto second = ParsePathExpression(FormatPathExpression(*first));
    ASSERT_TRUE(second);
    EXPECT_EQ(*first, *second);
  }
  EXPECT_EQ(*ParsePathExpression("token:b & token:a"), *ParsePathExpression("token:a & token:b"));
}

TEST(PathExpression, KnowsHardwareAndPortability) {
  EXPECT_FALSE(ParsePathExpression("password")->HasHardware());
  EXPECT_FALSE(ParsePathExpression("recovery-key:x")->HasHardware());
  EXPECT_TRUE(ParsePathExpression("password & 2 of (token:a, token:b)")->HasHardware());
  EXPECT_TRUE(ParsePathExpression("password & tpm")->NeedsTpm());
  EXPECT_FALSE(ParsePathExpression("password & token:ops")->NeedsTpm());
}

TEST(PathExpression, RefusesWhatTheFormatHasNoPlaceFor) {
  ExpectRefused("", "column 1: a factor is missing");
  ExpectRefused("password &", "column 11: a factor is missing");
  ExpectRefused("password & & tpm", "column 12: expected a factor, found '&'");
  ExpectRefused("password tpm", "column 10: expected '&'");
  ExpectRefused("password & password", "column 12: this kind of factor stands twice");
  ExpectRefused("tpm & tpm:db1", "stands twice");
  ExpectRefused("token:a & token:a", "token 'a' stands twice");
  ExpectRefused("token:a & 2 of (token:a, token:b)", "token 'a' stands twice");
  ExpectRefused("2 of (token:a, token:b) & token:b", "token 'b' stands twice");
  ExpectRefused("2 of (token:a, token:a)", "token 'a' stands twice");
  ExpectRefused("token:a & token:b & token:c & token:d & token:e", "more than 4 factors");
  ExpectRefused("recovery-key:x & password", "stands alone");
  ExpectRefused("password & recovery-key:x", "stands alone");
  ExpectRefused("token", "needs a name");
  ExpectRefused("token:", "is missing");
  ExpectRefused("token :a", "needs a name");
  ExpectRefused("password:x", "no name");
  ExpectRefused("token:a\xc3\xa9", "found 'byte 0xc3'");
  ExpectRefused("token:" + std::string(65, 'a'), "65 characters");
  ExpectRefused(std::string(5000, 'a'), "longer than 4096");
}

TEST(PathExpression, RefusesThresholdsOutOfRange) {
  ExpectRefused("1 of (token:a, token:b)", "is not a threshold");
  ExpectRefused("3 of (token:a, token:b)", "is not a threshold");
  ExpectRefused("4294967298 of (token:a, token:b)", "is not a threshold");
  ExpectRefused("02 of (token:a, token:b)", "column 1: the number 02 begins with a zero");
  ExpectRefused("00 of (token:a, token:b)", "begins with a zero");
  ExpectRefused("2 of (token:a)", "two members or more");
  ExpectRefused("2 of (token:a, password)", "shares go to tokens alone");
  ExpectRefused("2 of (token:a, token:b", "expected ',' or ')'");
  ExpectRefused("2 token:a", "column 3: expected 'of'");
  std::string many = "2 of (token:m0";
  for (int i = 1; i < 17; ++i) many += ", token:m" + std::to_string(i);
  ExpectRefused(many + ")", "more than 16 members");
}

TEST(PathExpression, NamesTheNearestKnownWord) {
  ExpectRefused("pasword & tpm", "column 1: unknown factor 'pasword', did you mean 'password'?");
  ExpectRefused("off=password & tokn:ops",
                "column 16: unknown factor 'tokn', did you mean 'token'?");
  ExpectRefused("TPM", "did you mean 'tpm'?");
  ExpectRefused("recovery_key:x", "did you mean 'recovery-key'?");
  ExpectRefused("yubikey", "unknown factor 'yubikey'");
}

TEST(PathId, NamesTheFactorsButThePassword) {
  EXPECT_EQ(IdOf("password"), "password");
  EXPECT_EQ(IdOf("password & token:ops"), "token-ops");
  EXPECT_EQ(IdOf("password & tpm"), "tpm");
  EXPECT_EQ(IdOf("tpm:db1"), "tpm-db1");
  EXPECT_EQ(IdOf("password & 2 of (token:a, token:b, token:c)"), "2of3");
  EXPECT_EQ(IdOf("token:a & tpm"), "token-a-tpm");
  EXPECT_EQ(IdOf("recovery-key:x"), "recovery-key-x");
}

TEST(PathId, CutsLongIdsInAStableWay) {
  // printf %s recovery-key-security-team | sha256sum
  EXPECT_EQ(IdOf("recovery-key:security-team"), "recovery-ke-0c2e");
  EXPECT_NE(IdOf("recovery-key:security-team"), IdOf("recovery-key:security-temp"));
  EXPECT_TRUE(IsPathId(IdOf("token:" + std::string(64, 'a'))));
  EXPECT_EQ(IdOf("token:0123456789"), "token-0123456789");  // exactly 16
}

TEST(PathOption, TakesAnIdBeforeTheExpression) {
  auto option = ParsePathOption("office = password & token:ops");
  ASSERT_TRUE(option);
  EXPECT_EQ(option->id, "office");
  EXPECT_EQ(FormatPathExpression(option->expression), "token:ops & password");
  ExpectRefused("=password", "not an id");
  ExpectRefused("a b=password", "not an id");
  ExpectRefused("seventeen-letters=password", "not an id");
  ExpectRefused("a=tpm=password", "column 6: expected '&' or the end, found '='");
}

TEST(PathOptions, WantDistinctIds) {
  const std::string distinct[] = {"password & tpm", "password & token:ops"};
  auto options = ParsePathOptions(distinct);
  ASSERT_TRUE(options);
  EXPECT_EQ(options->size(), 2u);

  const std::string same[] = {"2 of (token:a, token:b)", "2 of (token:c, token:d)"};
  auto refused = ParsePathOptions(same);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("two paths have the id '2of2'"));
  EXPECT_THAT(refused.error().hint(), HasSubstr("ID="));
  EXPECT_FALSE(ParsePathOptions({}));
}

}  // namespace
}  // namespace keyescrow::envelope
