#include "envelope/shares.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>

#include "envelope/base/p256.h"

namespace keyescrow::envelope {
namespace {

Bytes FromHex(const std::string& hex) {
  Bytes bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

SecretBytes Secret(const Bytes& bytes) { return SecretBytes::CopyOf(bytes).value(); }

// FixedRandom hands out what it was given, in order.
class FixedRandom final : public RandomSource {
 public:
  explicit FixedRandom(Bytes stream) : stream_(std::move(stream)) {}
  Status Fill(std::span<std::uint8_t> bytes) override {
    EXPECT_LE(used_ + bytes.size(), stream_.size());
    std::copy_n(stream_.begin() + static_cast<std::ptrdiff_t>(used_), bytes.size(), bytes.begin());
    used_ += bytes.size();
    return Ok();
  }
  bool spent() const { return used_ == stream_.size(); }

 private:
  Bytes stream_;
  std::size_t used_ = 0;
};

std::vector<Share> Pick(const std::vector<Share>& shares, const std::vector<std::size_t>& which) {
  std::vector<Share> picked;
  for (std::size_t index : which) {
    picked.push_back({shares[index].index, Secret(ToBytes(shares[index].bytes.Expose()))});
  }
  return picked;
}

// The answers are those of tests/vectors/generate.py, whose field is the second decoder's.
TEST(Shares, SplitGivesTheKnownAnswers) {
  std::ifstream file(KEYESCROW_SOURCE_DIR "/tests/vectors/known_answers.json");
  const auto answers = nlohmann::json::parse(file);
  std::size_t num_checked = 0;
  for (const auto& [name, known] : answers["vectors"].items()) {
    if (!known.contains("shares")) continue;
    const auto& dealt = known["shares"];
    Bytes stream;
    for (const auto& coefficient : dealt["coefficients"]) {
      const Bytes bytes = FromHex(coefficient);
      stream.insert(stream.end(), bytes.begin(), bytes.end());
    }
    const std::size_t num_shares = dealt["shares"].size();
    FixedRandom random(stream);
    const Bytes secret = FromHex(dealt["secret"]);
    const auto shares = SplitSecret(Secret(secret), dealt["threshold"].get<std::uint32_t>(),
                                    static_cast<std::uint32_t>(num_shares), random);
    ASSERT_TRUE(shares) << name;
    EXPECT_TRUE(random.spent()) << name;
    ASSERT_EQ(shares->size(), num_shares) << name;
    const std::string binding = known["binding"];
    for (std::size_t i = 0; i < num_shares; ++i) {
      const Share& share = (*shares)[i];
      EXPECT_EQ(share.index, i + 1);
      EXPECT_EQ(ToHex(share.bytes.Expose()), dealt["shares"][i]) << name;
      EXPECT_EQ(ToHex(ShareCommitment(binding, share.index, share.bytes)), dealt["commitments"][i])
          << name;
    }
    ++num_checked;
  }
  EXPECT_GE(num_checked, 3U);
}

TEST(Shares, AnyThresholdOfThemGiveTheSecretAndOneLessDoesNot) {
  const Bytes secret = ToBytes(RandomSecret(SystemRandom(), 32)->Expose());
  for (std::uint32_t num_shares = 2; num_shares <= 5; ++num_shares) {
    for (std::uint32_t threshold = 2; threshold <= num_shares; ++threshold) {
      const auto shares = SplitSecret(Secret(secret), threshold, num_shares, SystemRandom());
      ASSERT_TRUE(shares);
      for (unsigned subset = 1; subset < 1U << num_shares; ++subset) {
        std::vector<std::size_t> which;
        for (std::size_t i = 0; i < num_shares; ++i) {
          if ((subset >> i & 1U) != 0) which.push_back(i);
        }
        const bool enough = which.size() >= threshold;
        const auto combined = CombineShares(Pick(*shares, which));
        ASSERT_TRUE(combined);
        EXPECT_EQ(ToBytes(combined->Expose()) == secret, enough)
            << threshold << " of " << num_shares << ", subset " << subset;
        std::ranges::reverse(which);
        EXPECT_TRUE(CombineShares(Pick(*shares, which))->EqualsConstantTime(*combined));
      }
    }
  }
}

// Every byte value and every index: the field is that of gfcombine (package libgfshare-bin).
TEST(Shares, GfcombineJoinsThem) {
  char folder[] = "/tmp/keyescrow-shares-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  Bytes every_byte(256);
  std::iota(every_byte.begin(), every_byte.end(), std::uint8_t{0});
  const auto shares = SplitSecret(Secret(every_byte), 3, 16, SystemRandom());
  ASSERT_TRUE(shares);
  for (const Share& share : *shares) {
    char name[64];
    std::snprintf(name, sizeof name, "%s/s.%03u", folder, share.index);
    std::ofstream file(name, std::ios::binary);
    const ByteView bytes = share.bytes.Expose();
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  for (const char* which : {"001 002 003", "003 009 014", "016 015 001", "007 008 011 016"}) {
    std::string command = std::string("cd ") + folder + " && rm -f out && gfcombine -o out";
    std::stringstream words(which);
    for (std::string word; words >> word;) command += " s." + word;
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
    std::ifstream file(std::string(folder) + "/out", std::ios::binary);
    const std::string joined{std::istreambuf_iterator<char>(file), {}};
    EXPECT_EQ(ToBytes(AsBytes(joined)), every_byte) << which;
  }
  std::filesystem::remove_all(folder);
}

// Ecdh: a P-256 token in this process.
struct SoftToken {
  P256KeyPair pair = P256KeyPair::Generate().value();
  TokenKey Key(const std::string& name) const {
    const auto spki = pair.Public().Spki();
    return {name, Bytes(spki.begin(), spki.end()), "pkcs11:token=" + name};
  }
  SecretBytes Open(const ShareMember& member) const {
    const auto& record = std::get<Pkcs11EcdhRecord>(member.factor);
    const auto shared = pair.SharedX(*P256Point::FromUncompressed(record.epk)).value();
    return EcdhSecret(shared, record).value();
  }
};

TEST(Shares, EnrolledSharesOpenAndEachIsFresh) {
  const SoftToken tokens[3];
  const std::vector<TokenKey> keys = {tokens[0].Key("alice"), tokens[1].Key("bob"),
                                      tokens[2].Key("carol")};
  const auto first = EnrollShares("k|1|id|2of3", 2, keys, SystemRandom());
  const auto second = EnrollShares("k|1|id|2of3", 2, keys, SystemRandom());
  ASSERT_TRUE(first && second);
  EXPECT_FALSE(first->secret.EqualsConstantTime(second->secret));
  std::vector<Share> shares;
  for (std::size_t i = 0; i < 3; ++i) {
    const ShareMember& member = first->record.members[i];
    EXPECT_EQ(member.index, i + 1);
    EXPECT_EQ(member.name, keys[i].token);
    const auto& mine = std::get<Pkcs11EcdhRecord>(member.factor);
    const auto& other = std::get<Pkcs11EcdhRecord>(second->record.members[i].factor);
    EXPECT_NE(mine.epk, other.epk);
    EXPECT_NE(mine.mask, other.mask);
    EXPECT_NE(member.commitment, second->record.members[i].commitment);
    auto share = OpenShare(member, "k|1|id|2of3", tokens[i].Open(member));
    ASSERT_TRUE(share);
    shares.push_back(std::move(*share));
  }
  EXPECT_TRUE(CombineShares(Pick(shares, {0, 2}))->EqualsConstantTime(first->secret));
}

TEST(Shares, RefusesWhatWasNotCommittedTo) {
  const SoftToken tokens[2];
  const std::vector<TokenKey> keys = {tokens[0].Key("alice"), tokens[1].Key("bob")};
  const auto enrolled = EnrollShares("k|1|id|2of2", 2, keys, SystemRandom());
  ASSERT_TRUE(enrolled);
  ShareMember member = enrolled->record.members[0];
  const SecretBytes given = tokens[0].Open(member);
  ASSERT_TRUE(OpenShare(member, "k|1|id|2of2", given));
  const auto refused = [&](const ShareMember& changed, std::string_view binding,
                           const SecretBytes& secret) {
    const auto share = OpenShare(changed, binding, secret);
    return !share && share.error().code() == ErrorCode::kFactorBad &&
           share.error().failure() == Failure::kFactor &&
           share.error().message().find("alice") != std::string::npos;
  };
  EXPECT_TRUE(refused(member, "k|2|id|2of2", given));  // another version's
  EXPECT_TRUE(refused(member, "k|1|id|2of2", tokens[1].Open(enrolled->record.members[1])));
  EXPECT_TRUE(refused(member, "k|1|id|2of2", Secret(Bytes(31, 7))));
  EXPECT_TRUE(refused(member, "k|1|id|2of2", Secret(Bytes(33, 7))));
  ShareMember moved = member;
  moved.index = 2;
  EXPECT_TRUE(refused(moved, "k|1|id|2of2", given));
  ShareMember masked = member;
  (*std::get<Pkcs11EcdhRecord>(masked.factor).mask)[31] ^= 1;
  EXPECT_TRUE(refused(masked, "k|1|id|2of2", given));
}

}  // namespace
}  // namespace keyescrow::envelope
