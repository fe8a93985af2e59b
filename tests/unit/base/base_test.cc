#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "envelope/base/aes.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/base/ed25519.h"
#include "envelope/base/ed25519_pair.h"
#include "envelope/base/forward_clock.h"
#include "envelope/base/hash.h"
#include "envelope/base/nearest_word.h"
#include "envelope/base/p256.h"
#include "envelope/base/random.h"
#include "envelope/base/rsa.h"
#include "envelope/factor.h"
#include "tests/left_on_stack.h"

namespace keyescrow {
namespace {

Bytes FromHex(std::string_view hex) {
  Bytes bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(
        static_cast<std::uint8_t>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

TEST(ForwardClock, DoesNotGoBack) {
  struct Set final : Clock {
    std::int64_t NowUnixSeconds() override { return now; }
    std::int64_t now = -5;
  } source;
  ForwardClock clock(source);
  for (const auto& [set, told] : {std::pair{-5, -5}, {100, 100}, {40, 100}, {101, 101}}) {
    source.now = set;
    EXPECT_EQ(clock.NowUnixSeconds(), told);
  }
}

TEST(NearestWord, CountsSwapsAsOneEdit) {
  EXPECT_EQ(EditDistance("restore", "restore"), 0U);
  EXPECT_EQ(EditDistance("resotre", "Restore"), 1U);
  EXPECT_EQ(EditDistance("", "abc"), 3U);
  EXPECT_EQ(EditDistance(std::string(65, 'a'), "a"), 65U);
}

TEST(NearestWord, FindsMisspellingsAndBeginnings) {
  constexpr std::string_view kKnown[] = {"--password-file", "--pin-file", "--to", "restore"};
  EXPECT_EQ(NearestWord("--pasword-fiel", kKnown), "--password-file");
  EXPECT_EQ(NearestWord("--pas", kKnown), "--password-file");
  EXPECT_EQ(NearestWord("--pa", kKnown), "");
  EXPECT_EQ(NearestWord("rest", kKnown), "restore");
  EXPECT_EQ(NearestWord("", kKnown), "");
  EXPECT_EQ(DidYouMean("restroe", kKnown), ", did you mean 'restore'?");
}

TEST(Sha256, MatchesFips180Example) {
  EXPECT_EQ(ToHex(Sha256(AsBytes("abc"))),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(EqualConstantTime, HoldsAtOneLengthAlone) {
  const Bytes whole(32, 7);
  EXPECT_TRUE(EqualConstantTime(whole, Bytes(32, 7)));
  EXPECT_TRUE(EqualConstantTime({}, {}));
  for (const std::size_t size : {0U, 16U, 31U}) {
    EXPECT_FALSE(EqualConstantTime(whole, ByteView(whole).first(size))) << size;
    EXPECT_FALSE(EqualConstantTime(ByteView(whole).first(size), whole)) << size;
  }
}

TEST(Hmac, MatchesRfc4231Case2) {
  EXPECT_EQ(
      ToHex(HmacSha256(AsBytes("Jefe"), {AsBytes("what do ya want "), AsBytes("for nothing?")})),
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(
      ToHex(HmacSha512(AsBytes("Jefe"), {AsBytes("what do ya want for nothing?")})).substr(0, 64),
      "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554");
  EXPECT_EQ(ToHex(HmacSha256({}, {})),
            "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

TEST(Hkdf, MatchesAnIndependentComputation) {
  // python: hkdf-extract with an empty salt, expand with info "info", SHA-512, 96 bytes
  auto key = SecretBytes::CopyOf(AsBytes("input key"));
  ASSERT_TRUE(key);
  auto out = HkdfSha512(*key, "info", 96);
  ASSERT_TRUE(out);
  const Bytes64 prk = HmacSha512({}, {key->Expose()});
  const std::uint8_t one = 1, two = 2;
  const Bytes64 t1 = HmacSha512(prk, {AsBytes("info"), ByteView(&one, 1)});
  const Bytes64 t2 = HmacSha512(prk, {t1, AsBytes("info"), ByteView(&two, 1)});
  EXPECT_EQ(ToHex(out->Expose()), ToHex(t1) + ToHex(t2).substr(0, 64));
}

TEST(Base64Url, RefusesWhatDoesNotReencode) {
  EXPECT_EQ(EncodeBase64Url(FromHex("fbff")), "-_8");
  EXPECT_TRUE(DecodeBase64Url("-_8"));
  EXPECT_FALSE(DecodeBase64Url("-_9"));   // a bit set that no byte uses
  EXPECT_FALSE(DecodeBase64Url("-_8="));  // padding
  EXPECT_FALSE(DecodeBase64Url("A"));
  EXPECT_FALSE(DecodeBase64Url("+/8"));
  EXPECT_EQ(EncodeBase64(FromHex("fbff")), "+/8=");
  EXPECT_FALSE(DecodeBase64("+/8"));
  EXPECT_TRUE(DecodeBase64("+/8="));
}

TEST(Clock, ParsesOnlyValidUtc) {
  EXPECT_EQ(ParseUtc("1970-01-02T00:00:01Z"), 86401);
  EXPECT_EQ(FormatUtc(*ParseUtc("2024-02-29T23:59:59Z")), "2024-02-29T23:59:59Z");
  EXPECT_EQ(FormatUtc(-62167219200), "0000-01-01T00:00:00Z");
  EXPECT_EQ(FormatUtc(253402300799), "9999-12-31T23:59:59Z");
  EXPECT_EQ(FormatUtc(253402300800), "10000-01-01T00:00:00Z");
  for (std::int64_t time = -4'000'000'000; time < 8'000'000'000; time += 86399 * 17 + 3601) {
    ASSERT_EQ(ParseUtc(FormatUtc(time)), time);
  }
  EXPECT_FALSE(ParseUtc("2023-02-29T00:00:00Z"));
  EXPECT_FALSE(ParseUtc("2023-02-28T24:00:00Z"));
  EXPECT_FALSE(ParseUtc("2023-02-28T23:59:60Z"));
  EXPECT_FALSE(ParseUtc("2023-02-28 23:59:59Z"));
}

TEST(SecretBytes, ReusesWipedSlots) {
  const std::uint8_t* where = nullptr;
  {
    auto secret = SecretBytes::CopyOf(AsBytes("0123456789abcdef"));
    ASSERT_TRUE(secret);
    where = secret->Expose().data();
  }
  auto again = SecretBytes::Allocate(16);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->Expose().data(), where);
  EXPECT_EQ(ToHex(again->Expose()), std::string(32, '0'));
}

// The arena's pages stay mapped: a slot that was given back can be looked at. Its first bytes link
// it to the next free one.
bool IsWiped(const std::uint8_t* slot, std::size_t size_bytes) {
  return std::all_of(slot + sizeof(void*), slot + size_bytes, [](auto byte) { return byte == 0; });
}

TEST(SecretBytes, AreWipedWhereverTheyEnd) {
  const std::string text(64, 's');
  auto left = SecretBytes::CopyOf(AsBytes(text));
  auto right = SecretBytes::CopyOf(AsBytes(text));
  ASSERT_TRUE(left);
  ASSERT_TRUE(right);
  const std::uint8_t* const slots[] = {left->Expose().data(), right->Expose().data()};
  EXPECT_FALSE(IsWiped(slots[0], text.size()));
  *left = std::move(*right);  // what stood there ends here
  EXPECT_TRUE(IsWiped(slots[0], text.size()));
  EXPECT_FALSE(IsWiped(slots[1], text.size()));
  *left = SecretBytes();
  EXPECT_TRUE(IsWiped(slots[1], text.size()));
}

TEST(SecretBytes, TruncateWipesWhatItCutsOff) {
  auto secret = SecretBytes::CopyOf(AsBytes("0123456789abcdef"));
  ASSERT_TRUE(secret);
  const std::uint8_t* const bytes = secret->Expose().data();
  secret->Truncate(3);
  EXPECT_EQ(ToHex(ByteView(bytes, 16)), "303132" + std::string(26, '0'));
}

TEST(SecretBytes, AreEqualAtOneLengthAlone) {
  auto whole = SecretBytes::CopyOf(AsBytes("0123456789abcdef"));
  auto part = SecretBytes::CopyOf(AsBytes("0123456789abcdef"));
  ASSERT_TRUE(whole);
  ASSERT_TRUE(part);
  EXPECT_TRUE(whole->EqualsConstantTime(*part));
  part->Truncate(15);
  EXPECT_FALSE(whole->EqualsConstantTime(*part));
  EXPECT_FALSE(part->EqualsConstantTime(*whole));
}

TEST(SecretBytes, HoldsAMebibyte) {
  auto secret = SecretBytes::Allocate(1 << 20);
  ASSERT_TRUE(secret) << secret.error().message();
  secret->ExposeMutable()[(1 << 20) - 1] = 1;
  SecretBytes moved = std::move(*secret);
  EXPECT_EQ(moved.size(), 1U << 20);
  moved.Truncate(3);
  EXPECT_EQ(moved.size(), 3U);
}

TEST(P256, SignsVerifiesAndRoundTripsDer) {
  auto pair = P256KeyPair::Generate();
  ASSERT_TRUE(pair);
  const Bytes32 digest = Sha256(AsBytes("message"));
  auto signature = pair->SignEs256(digest);
  ASSERT_TRUE(signature);
  EXPECT_TRUE(VerifyEs256(pair->Public(), digest, *signature));
  EXPECT_FALSE(VerifyEs256(pair->Public(), Sha256(AsBytes("other")), *signature));
  EXPECT_FALSE(VerifyEs256(pair->Public(), digest, Bytes64{}));
  EXPECT_EQ(EcdsaSignatureFromDer(EcdsaSignatureToDer(*signature)), *signature);
}

TEST(P256, HoldsEachSignatureAgainstItsOwnKey) {
  auto left = P256KeyPair::Generate();
  auto right = P256KeyPair::Generate();
  ASSERT_TRUE(left);
  ASSERT_TRUE(right);
  const Bytes32 digest = Sha256(AsBytes("message"));
  for (int i = 0; i < 2; ++i) {  // the last key is kept between two calls
    for (const auto* pair : {&*left, &*right}) {
      auto signature = pair->SignEs256(digest);
      ASSERT_TRUE(signature);
      EXPECT_TRUE(VerifyEs256(pair->Public(), digest, *signature));
      EXPECT_FALSE(VerifyEs256((pair == &*left ? *right : *left).Public(), digest, *signature));
    }
  }
}

TEST(P256, TakesOneEncodingOfASignature) {
  EXPECT_TRUE(EcdsaSignatureFromDer(FromHex("3006020101020101")));
  for (const char* der : {"308106020101020101",       // a length in the long form
                          "300702810101020101",       // the same, within
                          "300702020001020101",       // a zero too many
                          "300602010102010100",       // a byte after the end
                          "3006020101020181",         // negative
                          "30800201010201010000"}) {  // no length
    EXPECT_FALSE(EcdsaSignatureFromDer(FromHex(der))) << der;
  }
}

TEST(P256, RestoresAPairFromItsScalar) {
  auto pair = P256KeyPair::Generate();
  ASSERT_TRUE(pair);
  auto scalar = pair->Scalar();
  ASSERT_TRUE(scalar);
  auto again = P256KeyPair::FromScalar(*scalar);
  ASSERT_TRUE(again);
  EXPECT_EQ(again->Public(), pair->Public());
  auto other = P256KeyPair::Generate();
  auto left = pair->SharedX(other->Public());
  auto right = other->SharedX(pair->Public());
  ASSERT_TRUE(left && right);
  EXPECT_TRUE(left->EqualsConstantTime(*right));
  auto zero = SecretBytes::Allocate(32);
  EXPECT_FALSE(P256KeyPair::FromScalar(*zero));
}

TEST(P256, LeavesNoSharedSecretOnTheStack) {
  auto pair = P256KeyPair::Generate();
  auto other = P256KeyPair::Generate();
  ASSERT_TRUE(pair && other);
  auto shared = pair->SharedX(other->Public());
  ASSERT_TRUE(shared);
  const auto stack = StackAfter([&] { EXPECT_TRUE(pair->SharedX(other->Public())); });
  ASSERT_FALSE(stack.empty());
  EXPECT_FALSE(HoldsPart(stack, shared->Expose()));
  EXPECT_TRUE(HoldsPart(StackAfter([&] { LeaveOnStack(shared->Expose()); }), shared->Expose()));
}

TEST(P256, RefusesPointsOffTheCurve) {
  auto pair = P256KeyPair::Generate();
  auto bytes = pair->Public().Uncompressed();
  bytes[64] ^= 1;
  EXPECT_FALSE(P256Point::FromUncompressed(bytes));
  EXPECT_TRUE(P256Point::FromSpki(pair->Public().Spki()));
}

TEST(Ed25519, MatchesRfc8032Test1) {
  auto seed = SecretBytes::CopyOf(
      FromHex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"));
  auto key = Ed25519PublicKey(*seed);
  ASSERT_TRUE(key);
  EXPECT_EQ(ToHex(*key), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  auto signature = Ed25519Sign(*seed, {});
  ASSERT_TRUE(signature);
  EXPECT_TRUE(Ed25519Verify(*key, {}, *signature));
  EXPECT_FALSE(Ed25519Verify(*key, AsBytes("x"), *signature));
  const auto pair = Ed25519Pair::FromSeed(*seed);
  ASSERT_TRUE(pair);
  EXPECT_EQ(pair->Public(), *key);
  EXPECT_TRUE(pair->IsOf(*seed));
  EXPECT_FALSE(pair->IsOf(*RandomSecret(SystemRandom(), 32)));
  EXPECT_EQ(*pair->Sign({}), *signature);  // the algorithm has no randomness
}

TEST(Tpm2AuthPolicy, MatchesPolicyAuthValueAlone) {
  // tpm2_policyauthvalue in a trial session
  EXPECT_EQ(ToHex(envelope::Tpm2AuthPolicy({}, std::nullopt, {})),
            "8fcd2169ab92694e0c633f1ab772842b8241bbc20288981fc7ac1eddc1fddb0e");
}

TEST(PcrSelection, IsStrict) {
  using envelope::ParsePcrSelection;
  EXPECT_EQ(envelope::FormatPcrSelection(*ParsePcrSelection("sha256:0,7,23")), "sha256:0,7,23");
  for (const char* bad : {"", "sha256:", "sha1:7", "sha256:7,0", "sha256:7,7", "sha256:24",
                          "sha256:07", "sha256:1,", "sha256: 1"}) {
    EXPECT_FALSE(ParsePcrSelection(bad)) << bad;
  }
}

}  // namespace
}  // namespace keyescrow
