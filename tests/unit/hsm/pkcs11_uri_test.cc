#include "envelope/pkcs11_uri.h"

#include <gtest/gtest.h>

#include <string>

namespace keyescrow::envelope {
namespace {

TEST(Pkcs11Uri, DecodesEveryPathAttribute) {
  const auto uri = Pkcs11Uri::Parse(
      "pkcs11:token=ops%20token;manufacturer=SoftHSM%20project;serial=0a1b;model=SoftHSM%20v2;"
      "object=escrow%3bkey;id=%01%fF;type=private");
  ASSERT_TRUE(uri);
  EXPECT_EQ(uri->token, "ops token");
  EXPECT_EQ(uri->manufacturer, "SoftHSM project");
  EXPECT_EQ(uri->serial, "0a1b");
  EXPECT_EQ(uri->model, "SoftHSM v2");
  EXPECT_EQ(uri->object, "escrow;key");
  EXPECT_EQ(uri->id, "\x01\xff");
  EXPECT_EQ(uri->type, "private");
}

TEST(Pkcs11Uri, KeepsItsText) {
  EXPECT_EQ(Pkcs11Uri::Parse("pkcs11:token=a")->text(), "pkcs11:token=a");
}

TEST(Pkcs11Uri, AllowsAnEmptyValueAndAvailableCharacters) {
  EXPECT_EQ(Pkcs11Uri::Parse("pkcs11:serial=")->serial, "");
  EXPECT_EQ(Pkcs11Uri::Parse("pkcs11:token=:[]@!$'()*+,=&-._~")->token, ":[]@!$'()*+,=&-._~");
}

TEST(Pkcs11Uri, AllowsExactly512Bytes) {
  const std::string prefix = "pkcs11:token=";
  EXPECT_TRUE(Pkcs11Uri::Parse(prefix + std::string(512 - prefix.size(), 'a')));
  EXPECT_FALSE(Pkcs11Uri::Parse(prefix + std::string(513 - prefix.size(), 'a')));
}

class Pkcs11UriRefuses : public testing::TestWithParam<const char*> {};

TEST_P(Pkcs11UriRefuses, Text) { EXPECT_FALSE(Pkcs11Uri::Parse(GetParam())) << GetParam(); }

INSTANTIATE_TEST_SUITE_P(
    Grammar, Pkcs11UriRefuses,
    testing::Values("", "pkcs11:", "PKCS11:token=a", "pkcs11:token", "pkcs11:;token=a",
                    "pkcs11:token=a;", "pkcs11:token=a;;serial=b", "pkcs11:token=a;token=b",
                    "pkcs11:token=a;token=a", "pkcs11:=a", "pkcs11:slot-id=1",
                    "pkcs11:library-manufacturer=a", "pkcs11:library-version=3",
                    "pkcs11:slot-description=a", "pkcs11:x-vendor=a", "pkcs11:Token=a",
                    "pkcs11:token=a?pin-value=1234", "pkcs11:token=a?", "pkcs11:token=a/b",
                    "pkcs11:token=a#b", "pkcs11:token=a b", "pkcs11:token=a%2", "pkcs11:token=%zz",
                    "pkcs11:token=%", "pkcs11:token=a|b", "pkcs11:token=\"a\"", "pkcs11:token=é",
                    "pkcs11:token=a\n", " pkcs11:token=a", "pkcs11:token=a ", "token=a"));

TEST(PercentCodec, RoundTripsEveryByte) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  const std::string encoded = PercentEncodePkcs11(all);
  EXPECT_EQ(PercentDecodePkcs11(encoded, ""), all);
}

}  // namespace
}  // namespace keyescrow::envelope
