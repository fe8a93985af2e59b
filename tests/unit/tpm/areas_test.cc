#include <gtest/gtest.h>

#include "envelope/base/p256.h"
#include "envelope/factor.h"
#include "tpm/agent_key.h"
#include "tpm/seal.h"
#include "tpm/srk.h"
#include "tpm/tpm_factor.h"

namespace keyescrow::tpm {
namespace {

Bytes SrkPublic(const P256Point& point) {
  Bytes bytes = {0x00, 0x5a, 0x00, 0x23, 0x00, 0x0b, 0x00, 0x03, 0x04, 0x72, 0x00, 0x00,
                 0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x00, 0x03, 0x00, 0x10};
  for (const Bytes32* coordinate : {&point.x(), &point.y()}) {
    bytes.push_back(0);
    bytes.push_back(32);
    bytes.insert(bytes.end(), coordinate->begin(), coordinate->end());
  }
  return bytes;
}

TEST(TpmAreas, TheSrkTemplateIsTheFormatsByteForByte) {
  EXPECT_EQ(ToHex(SrkTemplate()), "001a0023000b00030472000000060080004300100003001000000000");
}

TEST(TpmAreas, AnSrkOfAnyOtherKindIsRefused) {
  const auto pair = P256KeyPair::Generate();
  const Bytes good = SrkPublic(pair->Public());
  ASSERT_EQ(good.size(), 92U);
  const auto parsed = ParseSrkPublic(good);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(*parsed, pair->Public());
  for (std::size_t index = 0; index < good.size(); ++index) {
    Bytes bad = good;
    bad[index] ^= 1;
    EXPECT_FALSE(ParseSrkPublic(bad)) << index;  // a changed coordinate is off the curve
  }
  Bytes longer = good;
  longer.push_back(0);
  EXPECT_FALSE(ParseSrkPublic(longer));
  EXPECT_FALSE(ParseSrkPublic(ByteView(good).first(91)));
  EXPECT_FALSE(ParseSrkPublic({}));
}

TEST(TpmAreas, SealedObjectsHaveTheFormatsAttributes) {
  const Bytes32 policy{7};
  const Bytes32 unique{9};
  const auto area = [&](bool portable, bool has_auth) {
    return ToHex(ByteView(SealedArea(portable, has_auth, policy, unique)).first(12));
  };
  EXPECT_EQ(area(false, true), "004e0008000b000000120020");
  EXPECT_EQ(area(false, false), "004e0008000b000004120020");
  EXPECT_EQ(area(true, true), "004e0008000b000000000020");
  EXPECT_EQ(area(true, false), "004e0008000b000004000020");
  EXPECT_EQ(SealedArea(false, true, policy, unique).size(), 80U);
}

TEST(TpmAreas, PolicyDigestsAreTheFormats) {
  Bytes32 digest{};
  for (std::size_t index = 0; index < 32; ++index) {
    digest[index] = static_cast<std::uint8_t>(index);
  }
  EXPECT_EQ(ToHex(envelope::Tpm2AuthPolicy({}, {}, {})),
            "8fcd2169ab92694e0c633f1ab772842b8241bbc20288981fc7ac1eddc1fddb0e");
  EXPECT_EQ(ToHex(envelope::Tpm2AuthPolicy({0, 7}, digest, {})),
            "1e7df0f10ea57523d3f47936e6bfeca17395f483657ec1d74beaaa02990d9e44");
}

TEST(TpmWrap, RefusesPcrsAndForeignParents) {
  const auto pair = P256KeyPair::Generate();
  const auto secret = RandomSecret(SystemRandom(), 32);
  const envelope::SealRequest request{
      .secret = &*secret, .auth_value = nullptr, .host = "db1", .pcrs = {7}};
  EXPECT_EQ(WrapForParent(SrkPublic(pair->Public()), request, SystemRandom()).error().code(),
            ErrorCode::kUsage);
  EXPECT_EQ(WrapForParent(Bytes(92), request, SystemRandom()).error().code(),
            ErrorCode::kTpmSrkUntrusted);
}

}  // namespace
}  // namespace keyescrow::tpm
