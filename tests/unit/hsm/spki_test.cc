#include "hsm/spki.h"

#include <gtest/gtest.h>

#include "envelope/base/p256.h"
#include "envelope/base/rsa.h"

namespace keyescrow::hsm {
namespace {

Bytes Modulus(std::size_t size, std::uint8_t first) {
  Bytes modulus(size, 0xa5);
  modulus.front() = first;
  return modulus;
}

TEST(RsaSpki, AgreesWithTheLibraryForEverySizeAndLeadingBit) {
  const Bytes exponent = {1, 0, 1};
  for (const std::size_t size : {256U, 257U, 384U, 512U, 1024U}) {
    for (const unsigned first : {0x80U, 0xffU, 0x7fU, 0x01U}) {
      const Bytes modulus = Modulus(size, static_cast<std::uint8_t>(first));
      const auto spki = RsaSpki(modulus, exponent);
      const auto key = RsaPublicKey::FromModulus(modulus, exponent);
      ASSERT_EQ(spki.has_value(), key.has_value()) << size << " " << first;
      if (spki) {
        EXPECT_EQ(*spki, key->Spki());
        EXPECT_TRUE(RsaPublicKey::FromSpki(*spki));
      }
    }
  }
}

TEST(RsaSpki, DropsLeadingZeros) {
  Bytes padded = Modulus(256, 0x80);
  const auto plain = RsaSpki(padded, Bytes{1, 0, 1});
  padded.insert(padded.begin(), 2, 0);
  EXPECT_EQ(RsaSpki(padded, Bytes{0, 1, 0, 1}), plain);
}

TEST(RsaSpki, RefusesShortModuliAndBadExponents) {
  EXPECT_FALSE(RsaSpki(Modulus(128, 0x80), Bytes{1, 0, 1}));
  EXPECT_FALSE(RsaSpki(Modulus(1025, 0x80), Bytes{1, 0, 1}));
  EXPECT_FALSE(RsaSpki(Modulus(256, 0x80), Bytes{1}));
  EXPECT_FALSE(RsaSpki(Modulus(256, 0x80), Bytes{4}));
  EXPECT_FALSE(RsaSpki(Modulus(256, 0x80), {}));
  EXPECT_FALSE(RsaSpki({}, Bytes{3}));
}

TEST(EcP256Spki, TakesDerAndRawPoints) {
  const Bytes params = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
  const auto pair = P256KeyPair::Generate();
  const auto raw = pair->Public().Uncompressed();
  const auto expected = pair->Public().Spki();
  const auto from_raw = EcP256Spki(params, raw);
  ASSERT_TRUE(from_raw);
  EXPECT_TRUE(std::equal(from_raw->begin(), from_raw->end(), expected.begin(), expected.end()));
  Bytes der = {0x04, 0x41};
  der.insert(der.end(), raw.begin(), raw.end());
  EXPECT_EQ(EcP256Spki(params, der), from_raw);
}

TEST(EcP256Spki, RefusesOtherCurvesAndForms) {
  const Bytes params = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
  Bytes point(65, 4);
  EXPECT_TRUE(EcP256Spki(params, point));
  EXPECT_FALSE(EcP256Spki(Bytes{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22}, point));
  EXPECT_FALSE(EcP256Spki({}, point));
  point[0] = 2;
  EXPECT_FALSE(EcP256Spki(params, point));
  EXPECT_FALSE(EcP256Spki(params, Bytes(64, 4)));
}

}  // namespace
}  // namespace keyescrow::hsm
