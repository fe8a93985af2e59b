#include "hsm/token_signer.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "envelope/base/hash.h"
#include "hsm/cryptoki.h"
#include "tests/integration/hsm/harness.h"

namespace keyescrow::hsm {
namespace {

using simulators::FixedPin;
using simulators::SoftHsmFixture;

class TokenSignerTest : public testing::Test {
 protected:
  void SetUp() override {
    fixture_.AddToken("carol", kPin);
    spki_ = fixture_.GenerateSigningP256("carol", kPin, 1);
    descriptors_ = NumOpenDescriptors();
  }
  void TearDown() override { ExpectNothingLeft(descriptors_); }

  TokenSpec ByUri(const std::string& uri) const {
    TokenSpec spec = SpecFor({}, uri);
    spec.name = "carol";
    return spec;
  }
  // SignOnce opens the key and signs one digest, which must then verify.
  Result<Bytes64> SignOnce(const TokenSpec& spec) {
    ASSIGN_OR_RETURN(const auto signer, TokenSigner::Open(spec, pins_));
    const Bytes32 digest = Sha256(AsBytes("text"));
    auto signature = signer->SignDigest(digest);
    if (signature) {
      EXPECT_TRUE(VerifyEs256(*P256Point::FromSpki(spki_), digest, *signature));
    }
    return signature;
  }

  SoftHsmFixture fixture_;
  Bytes spki_;
  FixedPin pins_{kPin};
  std::size_t descriptors_ = 0;
};

TEST_F(TokenSignerTest, ShowsItsKeyWithoutAPinAndSignsWithOneLogin) {
  for (const TokenSpec& spec : {ByUri("pkcs11:token=carol"), SpecFor(spki_)}) {
    pins_.num_asked = 0;
    const auto signer = TokenSigner::Open(spec, pins_);
    ASSERT_TRUE(signer) << signer.error().message();
    EXPECT_EQ((*signer)->PublicKey(), *P256Point::FromSpki(spki_));
    EXPECT_TRUE((*signer)->token().software());
    EXPECT_EQ(pins_.num_asked, 0);
    for (const char* text : {"one", "two"}) {
      const Bytes32 digest = Sha256(AsBytes(text));
      const auto signature = (*signer)->SignDigest(digest);
      ASSERT_TRUE(signature) << signature.error().message();
      EXPECT_TRUE(VerifyEs256((*signer)->PublicKey(), digest, *signature));
    }
    EXPECT_EQ(pins_.num_asked, 1);
    EXPECT_EQ(pins_.last.token_name, spec.name);
  }
}

TEST_F(TokenSignerTest, RefusesWhatCannotSignOrIsNotTheOnlyOne) {
  const Bytes deriving = fixture_.GenerateP256("carol", kPin, 2);
  const Bytes rsa = fixture_.GenerateRsa("carol", kPin, 3);
  struct {
    TokenSpec spec;
    ErrorCode code;
  } const cases[] = {
      {SpecFor(deriving), ErrorCode::kTokenKeyUsage},
      {SpecFor(rsa), ErrorCode::kTokenKeyUsage},
      {ByUri("pkcs11:token=carol"), ErrorCode::kTokenKeyAmbiguous},
      {ByUri("pkcs11:token=carol;id=%03"), ErrorCode::kTokenKeyNotFound},
      {ByUri("pkcs11:token=dave"), ErrorCode::kTokenNotFound},
  };
  for (const auto& one : cases) {
    const auto signature = SignOnce(one.spec);
    ASSERT_FALSE(signature);
    EXPECT_EQ(signature.error().code(), one.code) << signature.error().message();
    EXPECT_FALSE(signature.error().hint().empty());
  }
  EXPECT_TRUE(SignOnce(ByUri("pkcs11:token=carol;object=policy")));
}

TEST_F(TokenSignerTest, SignsByAKeyWhosePublicHalfIsThereMoreThanOnce) {
  for (std::uint8_t id = 2; id < 8; ++id) fixture_.CopyPublicKey("carol", kPin, 1, id);
  for (const TokenSpec& spec : {ByUri("pkcs11:token=carol"), SpecFor(spki_)}) {
    const auto signature = SignOnce(spec);
    EXPECT_TRUE(signature) << signature.error().message();
  }
}

TEST_F(TokenSignerTest, SendsAWrongPinOnce) {
  FixedPin wrong("999999");
  const Faults faults(fixture_, "");
  const auto signer = TokenSigner::Open(Faults::Through(ByUri("pkcs11:token=carol")), wrong);
  ASSERT_TRUE(signer);
  for (int use = 0; use < 2; ++use) {
    const auto signature = (*signer)->SignDigest(Bytes32{});
    ASSERT_FALSE(signature);
    EXPECT_EQ(signature.error().code(), ErrorCode::kWrongPin);
  }
  EXPECT_EQ(wrong.num_asked, 1);
  EXPECT_EQ(faults.NumCalls("C_Login"), 1);
}

// A module that crashes, hangs, lies or fails at any call of a signature: no signature that does
// not verify, no second login, nothing left.
TEST_F(TokenSignerTest, AHostileModuleYieldsNoSignature) {
  struct {
    const char* rules;
    ErrorCode code;
  } const cases[] = {
      {"C_Sign@1=crash", ErrorCode::kModuleFailed},
      {"C_Sign@1=garbage", ErrorCode::kModuleFailed},
      {"C_SignInit@1=exit", ErrorCode::kModuleFailed},
      {"C_Sign@1=fill", ErrorCode::kTokenVendor},
      {"C_Sign@1=short", ErrorCode::kTokenVendor},
      {"C_Sign@1=hang", ErrorCode::kTokenTimeout},
      {"C_SignInit@1=rv:68", ErrorCode::kTokenKeyUsage},   // CKR_KEY_FUNCTION_NOT_PERMITTED
      {"C_SignInit@1=rv:70", ErrorCode::kTokenMechanism},  // CKR_MECHANISM_INVALID
      {"C_Sign@1=rv:21", ErrorCode::kTokenMechanism},      // CKR_DATA_LEN_RANGE
      {"C_Sign@1=rv:6", ErrorCode::kTokenDevice},          // CKR_FUNCTION_FAILED
      {"C_Sign@1=rv:32", ErrorCode::kTokenRemoved},        // CKR_DEVICE_REMOVED
      {"C_Login@1=rv:32", ErrorCode::kTokenRemoved},
  };
  for (const auto& one : cases) {
    std::filesystem::remove(fixture_.folder() + "/trace");
    const Faults faults(fixture_, one.rules);
    TokenWorkerOptions options;
    options.operation_deadline = std::chrono::milliseconds(1500);
    {
      const auto signer = TokenSigner::Open(Faults::Through(SpecFor(spki_)), pins_, options);
      ASSERT_TRUE(signer) << one.rules;
      for (int use = 0; use < 2; ++use) {  // what failed once is not tried again
        const auto signature = (*signer)->SignDigest(Bytes32{});
        ASSERT_FALSE(signature) << one.rules;
        EXPECT_EQ(signature.error().code(), one.code)
            << one.rules << ": " << signature.error().message();
      }
    }
    EXPECT_EQ(faults.NumCalls("C_Login"), 1) << one.rules;
    EXPECT_LE(faults.NumCalls("C_Sign"), 1) << one.rules;
    ExpectNothingLeft(descriptors_);
  }
}

TEST_F(TokenSignerTest, AKeyThatAlwaysAuthenticatesGetsItsPinAtEachSignature) {
  spki_ = fixture_.GenerateAlwaysAuthenticating("carol", kPin, 2, true);
  const Faults faults(fixture_, "");
  const auto signer = TokenSigner::Open(Faults::Through(SpecFor(spki_)), pins_);
  ASSERT_TRUE(signer);
  for (int use = 0; use < 2; ++use) {
    const auto signature = (*signer)->SignDigest(Bytes32{});
    ASSERT_TRUE(signature) << signature.error().message();
  }
  EXPECT_EQ(pins_.num_asked, 1);
  EXPECT_EQ(faults.NumCalls("C_Login"), 3);
}

}  // namespace
}  // namespace keyescrow::hsm
