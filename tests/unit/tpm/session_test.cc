#include "tpm/session.h"

#include <gtest/gtest.h>

#include <numeric>

#include "envelope/base/hash.h"
#include "tests/left_on_stack.h"
#include "tpm/errors.h"

namespace keyescrow::tpm {
namespace {

// Known answers computed from Part 1's formulae with Python's hmac and hashlib.
Bytes32 Counting() {
  Bytes32 bytes{};
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
  return bytes;
}
Bytes32 Filled(std::uint8_t value) {
  Bytes32 bytes{};
  bytes.fill(value);
  return bytes;
}
std::string Hex(const Result<SecretBytes>& secret) { return ToHex(secret.value().Expose()); }

TEST(TpmKdf, KdfAKnownAnswers) {
  const Bytes32 key = Counting();
  EXPECT_EQ(Hex(KdfA(key, "ATH", Filled(0xaa), Filled(0x55), 256)),
            "4d24fbc45b0cf0407a7206bc01deaa87609b65e6dceaf49b62c6366bb4fb6b06");
  EXPECT_EQ(Hex(KdfA(key, "STORAGE", Filled(0xaa), {}, 128)), "d9306240bfad69cf92d70d9d26cd17f9");
  EXPECT_EQ(Hex(KdfA(key, "CFB", Filled(0xaa), Filled(0x55), 512)),
            "98e04c0b69b78b706af14190691171b743a6bf02f5961b033783d7b2913c366d"
            "44282913db61d3db458ba4764804de3f7be04aecc81bd12369d903ca1cc95ec2");
}

TEST(TpmKdf, KdfALeavesNoKeyOnTheStack) {
  const Bytes32 key = Counting();
  const auto derived = KdfA(key, "CFB", Filled(0xaa), Filled(0x55), 512);
  ASSERT_TRUE(derived);
  const auto stack =
      StackAfter([&] { EXPECT_TRUE(KdfA(key, "CFB", Filled(0xaa), Filled(0x55), 512)); });
  ASSERT_FALSE(stack.empty());
  EXPECT_FALSE(HoldsPart(stack, derived->Expose()));
  EXPECT_TRUE(HoldsPart(StackAfter([&] { LeaveOnStack(derived->Expose()); }), derived->Expose()));
}

TEST(TpmKdf, KdfEKnownAnswer) {
  const auto shared = SecretBytes::CopyOf(Counting());
  EXPECT_EQ(Hex(KdfE(*shared, "SECRET", Filled(0xaa), Filled(0x55))),
            "89e7f1689e29588a01472cf2442f7ce99d98cf920e70012719db3301b871832b");
}

TEST(TpmKdf, AuthValuesLoseTheirTrailingZeros) {
  EXPECT_EQ(Hex(TrimAuthValue(*SecretBytes::CopyOf(Bytes{1, 0, 2, 0, 0}))), "010002");
  EXPECT_TRUE(TrimAuthValue(*SecretBytes::CopyOf(Bytes{0, 0}))->empty());
  EXPECT_TRUE(TrimAuthValue(SecretBytes())->empty());
}

TEST(TpmKdf, AnEccSecretIsSharedWithTheKeysHolder) {
  const auto holder = P256KeyPair::Generate();
  const auto secret = MakeEccSecret(holder->Public(), "SECRET");
  ASSERT_TRUE(secret);
  ASSERT_EQ(secret->encrypted.size(), 70U);
  EXPECT_EQ(ToHex(ByteView(secret->encrypted).first(4)), "00440020");
  const ByteView x = ByteView(secret->encrypted).subspan(4, 32);
  const ByteView y = ByteView(secret->encrypted).subspan(38, 32);
  const auto shared = holder->SharedX(*P256Point::FromXy(x, y));
  const auto seed = KdfE(*shared, "SECRET", x, holder->Public().x());
  EXPECT_TRUE(seed->EqualsConstantTime(secret->seed));
}

// Nonces that the test knows.
class FixedRandom : public RandomSource {
 public:
  Status Fill(std::span<std::uint8_t> bytes) override {
    std::fill(bytes.begin(), bytes.end(), std::uint8_t{0x22});
    return Ok();
  }
};

AuthSession MakeSession() {
  auto session = AuthSession::Make(0x03000000, *SecretBytes::CopyOf(Counting()), Filled(0x22),
                                   ToBytes(Filled(0x11)));
  Bytes auth(30, 0x33);
  auth.resize(32);  // trailing zeros
  EXPECT_TRUE(session->SetAuthValue(*SecretBytes::CopyOf(auth)));
  FixedRandom random;
  EXPECT_TRUE(session->BeginCommand(random));
  return std::move(*session);
}

TEST(TpmSession, CommandHmacKnownAnswer) {
  EXPECT_EQ(ToHex(*MakeSession().CommandHmac(Filled(0x44), 0x41)),
            "b638d10fc527b3eb94968a27d281fadae863cd2da45a042f8e6c8995789bc9f3");
}

TEST(TpmSession, AResponseIsAcceptedByItsHmacAlone) {
  // The known answer for rpHash 55…, nonceTPM 66…, attributes 40.
  AuthSession session = MakeSession();
  Bytes32 hmac{};
  const std::string text = "27d0d7ff60a24a6aad6223cffbf55167ad531d0b187539bda8229eca47579e46";
  for (std::size_t index = 0; index < 32; ++index) {
    hmac[index] = static_cast<std::uint8_t>(std::stoi(text.substr(index * 2, 2), nullptr, 16));
  }
  Bytes32 wrong = hmac;
  wrong[31] ^= 1;
  EXPECT_EQ(session.AcceptResponse(Filled(0x55), Filled(0x66), 0x40, wrong).error().code(),
            ErrorCode::kTpmResponse);
  EXPECT_FALSE(session.AcceptResponse(Filled(0x54), Filled(0x66), 0x40, hmac));
  EXPECT_FALSE(session.AcceptResponse(Filled(0x55), Filled(0x67), 0x40, hmac));
  EXPECT_FALSE(session.AcceptResponse(Filled(0x55), Filled(0x66), 0x41, hmac));
  EXPECT_FALSE(session.AcceptResponse(Filled(0x55), Filled(0x66), 0x40, {}));
  EXPECT_TRUE(session.AcceptResponse(Filled(0x55), Filled(0x66), 0x40, hmac));
}

TEST(TpmSession, EncryptionAndDecryptionUseOppositeNonces) {
  AuthSession session = MakeSession();
  auto data = SecretBytes::CopyOf(Counting());
  ASSERT_TRUE(session.EncryptFirstParameter(*data));
  EXPECT_NE(ToHex(data->Expose()), ToHex(Counting()));
  // The TPM's answer is encrypted with the nonces the other way round.
  EXPECT_NE(Hex(session.DecryptFirstParameter(data->Expose())), ToHex(Counting()));
}

}  // namespace
}  // namespace keyescrow::tpm
