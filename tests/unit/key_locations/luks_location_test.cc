#include "agent/key_locations/luks_location.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "agent/key_locations/luks_header.h"
#include "tests/unit/key_locations/scratch_folder.h"

namespace keyescrow::agent {
namespace {

// An image that cryptsetup formats with the least costs.
class LuksVolumeAt : public ScratchFolder {
 protected:
  void SetUp() override {
    Put("pass", "the passphrase");
    Put("image", "");
    ASSERT_EQ(truncate(At("image").c_str(), 20 << 20), 0);
    const std::string command =
        "cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "
        "--key-file " +
        At("pass") + " " + At("image");
    ASSERT_EQ(std::system(command.c_str()), 0);
  }

  std::unique_ptr<KeyLocation> Volume() const {
    return *ParseLocation("luks:" + At("image"), {At("pass")});
  }
  std::size_t NumKeyslots() const { return ReadLuksHeader(At("image"))->keyslots.size(); }

  static constexpr WriteOptions kRandom{.random_key = true};
  const SecretBytes one_ = Secret("the first key, of more than 32 bytes, made at random");
  const SecretBytes two_ = Secret("the second key, of more than 32 bytes, made at random");
};

TEST_F(LuksVolumeAt, IsWrittenBesideWhatOpensItAlready) {
  const auto volume = Volume();
  ASSERT_TRUE(volume->CheckWritable());
  const auto written = volume->Write(one_, kRandom);
  ASSERT_TRUE(written) << written.error().message();
  EXPECT_TRUE(written->written);
  EXPECT_EQ(written->keyslot, 1U);
  EXPECT_EQ(NumKeyslots(), 2U);
  const auto again = Volume()->Write(one_, {});
  ASSERT_TRUE(again);
  EXPECT_TRUE(again->already_same);
  EXPECT_EQ(again->keyslot, 1U);
  EXPECT_EQ(NumKeyslots(), 2U);
}

TEST_F(LuksVolumeAt, StretchesWhatMayBeAPassphrase) {
  ASSERT_TRUE(Volume()->Write(one_, kRandom));
  ASSERT_TRUE(Volume()->Write(Secret("a passphrase that somebody chose, and that is long"), {}));
  const auto header = ReadLuksHeader(At("image"));
  ASSERT_TRUE(header && header->FindKeyslot(1) && header->FindKeyslot(2));
  EXPECT_EQ(header->FindKeyslot(1)->kdf, "pbkdf2");
  EXPECT_EQ(header->FindKeyslot(2)->kdf, "argon2id");
}

TEST_F(LuksVolumeAt, GivesItsVolumeKeyWhichUnlocksItToo) {
  const auto key = Volume()->Read();
  ASSERT_TRUE(key);
  EXPECT_EQ(key->size(), 64U);
  Put("volume.key", Text(*key));
  const auto by_key = *ParseLocation("luks:" + At("image"), {At("volume.key")});
  EXPECT_TRUE(by_key->Read()->EqualsConstantTime(*key));
  const auto written = by_key->Write(*key, {});  // never the secret of a keyslot
  ASSERT_TRUE(written);
  EXPECT_TRUE(written->already_same);
  EXPECT_FALSE(written->keyslot);
  EXPECT_EQ(NumKeyslots(), 1U);
  WriteOptions other;
  other.volume_key = true;
  EXPECT_EQ(by_key->Write(one_, other).error().code(), ErrorCode::kDestinationOtherKey);
}

TEST_F(LuksVolumeAt, RetiresAnOldSecretOnceTheNewOneOpensIt) {
  const auto volume = Volume();
  ASSERT_TRUE(volume->Write(one_, kRandom));
  const Bytes32 hash = *KeyslotHash(At("image"), *ReadLuksHeader(At("image")), 1);
  const RetiredSecret old{1, hash};
  EXPECT_EQ(volume->Retire(old, two_).error().code(), ErrorCode::kDestinationOtherKey);
  EXPECT_EQ(volume->Retire(old, one_).error().code(), ErrorCode::kDestinationOtherKey);
  EXPECT_EQ(NumKeyslots(), 2U);
  ASSERT_TRUE(volume->Write(two_, kRandom));
  EXPECT_FALSE(*volume->Retire({1, Bytes32{}}, two_));  // not the one it was
  EXPECT_EQ(NumKeyslots(), 3U);
  EXPECT_TRUE(*volume->Retire(old, two_));
  EXPECT_FALSE(*volume->Retire(old, two_));
  EXPECT_EQ(NumKeyslots(), 2U);
  EXPECT_EQ(Volume()->Write(two_, {})->keyslot, 2U);
}

TEST_F(LuksVolumeAt, RetiresBesideAKeyslotThatIsAsItWas) {
  const auto volume = Volume();
  ASSERT_TRUE(volume->Write(one_, kRandom));
  ASSERT_TRUE(volume->Write(two_, kRandom));
  const auto keyslot = [this](unsigned number) {
    return RetiredSecret{number, *KeyslotHash(At("image"), *ReadLuksHeader(At("image")), number)};
  };
  const RetiredSecret old = keyslot(1);
  const RetiredSecret stays = keyslot(2);
  for (const RetiredSecret& other : {RetiredSecret{2, Bytes32{}}, old}) {
    EXPECT_EQ(volume->RetireBeside(old, other).error().code(), ErrorCode::kDestinationOtherKey);
  }
  EXPECT_EQ(*volume->FindKeyslot(one_), std::optional(1U));
  EXPECT_TRUE(*volume->RetireBeside(old, stays));
  EXPECT_FALSE(*volume->RetireBeside(old, stays));
  EXPECT_EQ(*volume->FindKeyslot(one_), std::nullopt);
  EXPECT_EQ(*volume->FindKeyslot(two_), std::optional(2U));
}

TEST_F(LuksVolumeAt, RefusesAWrongUnlockFile) {
  Put("other", "of another volume\n");
  const auto volume = *ParseLocation("luks:" + At("image"), {At("other")});
  EXPECT_EQ(volume->CheckWritable().error().code(), ErrorCode::kWrongPassword);
  EXPECT_EQ(volume->Write(one_, kRandom).error().code(), ErrorCode::kWrongPassword);
  EXPECT_EQ(NumKeyslots(), 1U);
  Put("size", std::string(64, 'k'));  // that of a volume key
  EXPECT_EQ((*ParseLocation("luks:" + At("image"), {At("size")}))->CheckWritable().error().code(),
            ErrorCode::kWrongPassword);
  Put("line", "the passphrase\n");
  EXPECT_TRUE((*ParseLocation("luks:" + At("image"), {At("line")}))->CheckWritable());
  EXPECT_EQ((*ParseLocation("luks:" + At("image")))->Read().error().code(),
            ErrorCode::kSecretSourceMissing);
}

}  // namespace
}  // namespace keyescrow::agent
