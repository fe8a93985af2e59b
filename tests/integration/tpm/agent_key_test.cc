#include "tests/integration/tpm/tpm_test_base.h"

namespace keyescrow::tpm {
namespace {

using testing::ElementsAre;

class TpmAgentKeyTest : public TpmTest {
 protected:
  void SetUp() override {
    TpmTest::SetUp();
    auto tpm = Open();
    auto blob = TpmAgentKey::Create(*tpm->device(), auth_);
    ASSERT_TRUE(blob.has_value()) << blob.error().message();
    blob_ = *blob;
    log_->Reset();
  }
  SecretBytes Auth() { return std::move(*SecretBytes::CopyOf(auth_.Expose())); }

  AgentKeyBlob blob_;
};

TEST_F(TpmAgentKeyTest, SignsWhatTheEnvelopesVerifierAccepts) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto key, TpmAgentKey::Open(tpm->device(), blob_, Auth()));
  EXPECT_EQ(log_->count(), 0U) << "opening costs no command";
  for (std::uint8_t index = 0; index < 8; ++index) {
    const Bytes32 digest{index, 1, 2, 3};
    ASSERT_OK_AND_ASSIGN(auto signature, key->SignDigest(digest));
    EXPECT_TRUE(VerifyEs256(key->PublicKey(), digest, signature));
  }
  EXPECT_EQ(log_->count(), 2U + 8U);
  EXPECT_OK(key->Close());
  ExpectNothingLeft();
  EXPECT_FALSE(log_->Saw(auth_.Expose().first(8)));
}

TEST_F(TpmAgentKeyTest, ARestoreWithPcrsAndTwoSignaturesCostsTwelveCommands) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_, {7}));
  ExpectOpens(*tpm, record, &auth_);  // the first use after the boot
  ASSERT_OK_AND_ASSIGN(auto key, TpmAgentKey::Open(tpm->device(), blob_, Auth()));
  log_->Reset();
  ASSERT_TRUE(key->SignDigest(Bytes32{1}));  // the key stays loaded over the unseal
  ExpectOpens(*tpm, record, &auth_);
  key->NextIsLast();
  ASSERT_TRUE(key->SignDigest(Bytes32{2}));
  EXPECT_EQ(log_->count(), 12U);
  ExpectNothingLeft();
}

TEST_F(TpmAgentKeyTest, TheLastSignatureEndsItsOwnSession) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto key, TpmAgentKey::Open(tpm->device(), blob_, Auth()));
  key->NextIsLast();
  ASSERT_TRUE(key->SignDigest(Bytes32{1}));
  EXPECT_THAT(log_->command_codes(), ElementsAre(0x157, 0x176, 0x15d, 0x165));
  ExpectNothingLeft();
  ASSERT_TRUE(key->SignDigest(Bytes32{2})) << "a later signature loads it again";
}

TEST_F(TpmAgentKeyTest, WorksWithATransientStorageKeyInThreeSlots) {
  simulators::SwtpmFixture fresh;
  {
    auto tpm = Open(fresh, {});
    ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_, {7}));
    ASSERT_OK_AND_ASSIGN(auto blob, TpmAgentKey::Create(*tpm->device(), auth_));
    ASSERT_OK_AND_ASSIGN(auto key, TpmAgentKey::Open(tpm->device(), blob, Auth()));
    ASSERT_TRUE(key->SignDigest(Bytes32{1}));
    ExpectOpens(*tpm, record, &auth_);
    ASSERT_TRUE(key->SignDigest(Bytes32{2}));
  }
  EXPECT_THAT(fresh.TransientObjects(), testing::IsEmpty());
  EXPECT_THAT(fresh.LoadedSessions(), testing::IsEmpty());
}

TEST_F(TpmAgentKeyTest, AWrongAuthIsToldAndCountsNoTry) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto key, TpmAgentKey::Open(tpm->device(), blob_, std::move(wrong_auth_)));
  EXPECT_EQ(key->SignDigest(Bytes32{1}).error().code(), ErrorCode::kAgentKeyUnavailable);
  EXPECT_EQ(swtpm_.LockoutCounter(), 0U);
  ExpectNothingLeft();
}

TEST_F(TpmAgentKeyTest, AnotherTpmCannotLoadIt) {
  simulators::SwtpmFixture other;
  auto tpm = Open(other, {});
  ASSERT_OK_AND_ASSIGN(auto key, TpmAgentKey::Open(tpm->device(), blob_, Auth()));
  EXPECT_EQ(key->SignDigest(Bytes32{1}).error().code(), ErrorCode::kAgentKeyUnavailable);
  auto bad = blob_;
  bad.object_public[8] ^= 1;
  EXPECT_EQ(TpmAgentKey::Open(tpm->device(), bad, Auth()).error().code(),
            ErrorCode::kAgentKeyUnavailable);
}

TEST_F(TpmAgentKeyTest, AHeldKeySurvivesAResetOfTheTpm) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto key, TpmAgentKey::Open(tpm->device(), blob_, Auth()));
  ASSERT_TRUE(key->SignDigest(Bytes32{1}));
  swtpm_.PowerCycle();
  const auto signature = key->SignDigest(Bytes32{2});
  ASSERT_TRUE(signature.has_value()) << signature.error().message();
  EXPECT_TRUE(VerifyEs256(key->PublicKey(), Bytes32{2}, *signature));
  EXPECT_OK(key->Close());
  ExpectNothingLeft();
}

}  // namespace
}  // namespace keyescrow::tpm
