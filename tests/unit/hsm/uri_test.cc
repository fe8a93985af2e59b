#include "hsm/uri.h"

#include <gtest/gtest.h>

namespace keyescrow::hsm {
namespace {

TEST(ParseUri, TakesPathAttributes) {
  const auto uri = ParseUri("pkcs11:token=ops;id=%01;type=private");
  ASSERT_TRUE(uri);
  EXPECT_EQ(uri->token, "ops");
}

struct Refused {
  const char* text;
  const char* reason;
};
class ParseUriRefuses : public testing::TestWithParam<Refused> {};

TEST_P(ParseUriRefuses, AndSaysWhy) {
  const auto uri = ParseCommandLineUri(GetParam().text);
  ASSERT_FALSE(uri) << GetParam().text;
  EXPECT_EQ(uri.error().code(), ErrorCode::kInvalidUri);
  EXPECT_EQ(uri.error().action(), Action::kFixInput);
  EXPECT_NE(uri.error().message().find(GetParam().reason), std::string::npos)
      << uri.error().message();
}

INSTANTIATE_TEST_SUITE_P(
    Texts, ParseUriRefuses,
    testing::Values(Refused{"token=ops", "pkcs11:"}, Refused{"pkcs11:", "empty attribute"},
                    Refused{"pkcs11:token=a;;id=b", "empty attribute"},
                    Refused{"pkcs11:token", "no value"},
                    Refused{"pkcs11:slot-id=3", "'slot-id' is refused"},
                    Refused{"pkcs11:library-version=3", "'library-version' is refused"},
                    Refused{"pkcs11:x-vendor=3", "not known"},
                    Refused{"pkcs11:token=a;token=b", "'token' stands twice"},
                    Refused{"pkcs11:token=a b", "%XX"}, Refused{"pkcs11:token=a%4", "%XX"},
                    Refused{"pkcs11:type=secret", "'type'"},
                    Refused{"pkcs11:token=a?pin-value=1234", "'pin-value' is refused"},
                    Refused{"pkcs11:token=a?module-name=x", "'module-name' is refused"},
                    Refused{"pkcs11:token=a?", "not known"},
                    Refused{"pkcs11:token=a?x=y", "not known"},
                    Refused{"pkcs11:token=a?pin-source=/a&pin-source=/b", "stands twice"},
                    Refused{"pkcs11:token=a?pin-source=/a&pin-value=1", "'pin-value' is refused"},
                    Refused{"pkcs11:token=a?module-path=", "empty"},
                    Refused{"pkcs11:token=a?module-path=/x%00y", "empty or"},
                    Refused{"pkcs11:token=a?module-path=/x y", "%XX"}));

TEST(ParseUri, RefusesAQuery) {
  const auto uri = ParseUri("pkcs11:token=a?module-path=/x");
  ASSERT_FALSE(uri);
  EXPECT_NE(uri.error().message().find("no query"), std::string::npos);
}

TEST(ParseUri, NeverRepeatsAPinInItsMessage) {
  const auto uri = ParseCommandLineUri("pkcs11:token=a?pin-value=31337");
  ASSERT_FALSE(uri);
  EXPECT_EQ((uri.error().message() + uri.error().hint()).find("31337"), std::string::npos);
}

TEST(ParseCommandLineUri, TakesModulePathAndPinSource) {
  const auto uri =
      ParseCommandLineUri("pkcs11:token=ops?module-path=/usr/lib/x.so&pin-source=file:/run/pin");
  ASSERT_TRUE(uri);
  EXPECT_EQ(uri->path, "pkcs11:token=ops");
  EXPECT_EQ(uri->module_path, "/usr/lib/x.so");
  EXPECT_EQ(uri->pin_source, "file:/run/pin");
}

TEST(UriMatches, ComparesOnlyWhatTheUriNames) {
  TokenInfo token;
  token.label = "ops";
  token.serial = "1";
  TokenKey key;
  key.id = {1};
  key.label = "escrow";
  EXPECT_TRUE(UriMatchesToken(*ParseUri("pkcs11:token=ops"), token));
  EXPECT_FALSE(UriMatchesToken(*ParseUri("pkcs11:token=ops;serial=2"), token));
  EXPECT_FALSE(UriMatchesToken(*ParseUri("pkcs11:model=x"), token));
  EXPECT_TRUE(UriMatchesKey(*ParseUri("pkcs11:id=%01;object=escrow"), key));
  EXPECT_FALSE(UriMatchesKey(*ParseUri("pkcs11:id=%02"), key));
}

TEST(TokenUri, ParsesBackAndMatches) {
  TokenInfo token;
  token.label = "ops; token/1";
  token.serial = "0a=1";
  token.manufacturer = "SoftHSM project";
  token.model = "SoftHSM v2";
  TokenKey key;
  key.id = {0, 255};
  key.label = std::string(400, ';');  // too long to fit: left out
  const std::string text = TokenUri(token, key);
  EXPECT_LE(text.size(), envelope::Pkcs11Uri::kMaxSizeBytes);
  const auto uri = ParseUri(text);
  ASSERT_TRUE(uri) << text;
  EXPECT_TRUE(UriMatchesToken(*uri, token));
  EXPECT_TRUE(UriMatchesKey(*uri, key));
  EXPECT_FALSE(uri->object);
}

TEST(DescribeToken, ShowsNoControlCharacter) {
  TokenInfo token;
  token.label = "a\x1b[31m\"b";
  token.serial = "1";
  EXPECT_EQ(DescribeToken(token), "\"a?[31m?b\" (serial 1)");
}

}  // namespace
}  // namespace keyescrow::hsm
