#include "agent/key_locations/luks_header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "envelope/base/hash.h"
#include "tests/unit/key_locations/scratch_folder.h"

namespace keyescrow::agent {
namespace {

using testing::HasSubstr;

constexpr std::size_t kSize = 16384;

std::string Slot(unsigned id, unsigned offset, const std::string& salt = "c2FsdA==") {
  return "\"" + std::to_string(id) +
         R"(":{"type":"luks2","key_size":64,"priority":1,"area":{"type":"raw","offset":")" +
         std::to_string(offset) + R"(","size":"258048"},"kdf":{"type":"argon2id","salt":")" + salt +
         "\"}}";
}

std::string Json(const std::string& slots, const std::string& bound = "\"0\"",
                 const std::string& config = R"("json_size":"12288","keyslots_size":"1048576")",
                 const std::string& tokens = "") {
  return R"({"keyslots":{)" + slots + R"(},"tokens":{)" + tokens +
         R"(},"segments":{"0":{"type":"crypt","offset":"16777216"}},"digests":{"0":{"type":"pbkdf2",)"
         R"("keyslots":[)" +
         bound + R"(],"segments":["0"],"digest":"AAAA"}},"config":{)" + config + "}}";
}

void PutText(Bytes& bytes, std::size_t at, std::string_view text) {
  std::copy(text.begin(), text.end(), bytes.begin() + static_cast<std::ptrdiff_t>(at));
}

Bytes Header(const std::string& json, std::uint8_t sequence = 3, bool secondary = false) {
  Bytes bytes(kSize);
  PutText(bytes, 0, secondary ? "SKUL\xBA\xBE" : "LUKS\xBA\xBE");
  bytes[7] = 2;
  bytes[14] = kSize >> 8;
  bytes[23] = sequence;
  PutText(bytes, 72, "sha256");
  PutText(bytes, 168, "3ce1a7b0-58c5-4c6c-b5c1-0d2a7a2f4a11");
  if (secondary) bytes[262] = kSize >> 8;
  PutText(bytes, 4096, json);
  const Bytes32 sum = Sha256(bytes);
  std::copy(sum.begin(), sum.end(), bytes.begin() + 448);
  return bytes;
}

Bytes Joined(Bytes first, const Bytes& second) {
  first.insert(first.end(), second.begin(), second.end());
  first.resize(1u << 21);
  return first;
}

std::string Message(const Result<LuksHeader>& header) {
  return header ? "" : header.error().message();
}

TEST(LuksHeader, IsRead) {
  const auto header = ParseLuksHeader(Header(
      Json(Slot(0, 32768) + "," + Slot(7, 290816), "\"0\"",
           R"("keyslots_size":"1048576","requirements":{"mandatory":["online-reencrypt-v2"]})",
           R"("1":{"type":"clevis","keyslots":["0"]})")));
  ASSERT_TRUE(header) << header.error().message();
  EXPECT_EQ(header->uuid, "3ce1a7b0-58c5-4c6c-b5c1-0d2a7a2f4a11");
  EXPECT_EQ(header->volume_key_bytes, 64U);
  ASSERT_EQ(header->keyslots.size(), 2U);
  EXPECT_TRUE(header->keyslots[0].opens_volume);
  EXPECT_EQ(header->keyslots[1].id, 7U);
  EXPECT_FALSE(header->keyslots[1].opens_volume);  // no digest names it
  EXPECT_EQ(header->keyslots[0].kdf, "argon2id");
  ASSERT_EQ(header->tokens.size(), 1U);
  EXPECT_THAT(header->tokens[0].json, HasSubstr("clevis"));
  EXPECT_EQ(header->requirements, std::vector<std::string>{"online-reencrypt-v2"});
}

TEST(LuksHeader, WhatIsNoneIsToldApart) {
  const Bytes good = Header(Json(Slot(0, 32768)));
  Bytes old = good;
  old[7] = 1;
  Bytes flipped = good;
  flipped[5000] ^= 1;
  Bytes elsewhere = good;
  elsewhere[263] = 1;
  EXPECT_THAT(Message(ParseLuksHeader(Bytes(kSize))), HasSubstr("no LUKS volume"));
  EXPECT_THAT(Message(ParseLuksHeader(old)), HasSubstr("LUKS1"));
  EXPECT_THAT(Message(ParseLuksHeader(flipped)), HasSubstr("checksum"));
  EXPECT_THAT(Message(ParseLuksHeader(elsewhere)), HasSubstr("elsewhere"));
  EXPECT_THAT(Message(ParseLuksHeader(ByteView(good).first(kSize - 1))), HasSubstr("cut short"));
  EXPECT_THAT(Message(ParseLuksHeader(ByteView(good).first(100))), HasSubstr("too short"));
  EXPECT_THAT(Message(ParseLuksHeader(Header("{"))), HasSubstr("does not parse"));
  EXPECT_THAT(Message(ParseLuksHeader(Header(std::string(200, '[')))), HasSubstr("too deep"));
  EXPECT_THAT(Message(ParseLuksHeader(Header(R"({"keyslots":{}})"))), HasSubstr("no tokens"));
  EXPECT_THAT(Message(ParseLuksHeader(Header(Json(R"("32":{})")))), HasSubstr("is none"));
  EXPECT_THAT(Message(ParseLuksHeader(Header(Json(R"("0":{"area":{"offset":"-1"}})")))),
              HasSubstr("no area"));
  EXPECT_EQ(ParseLuksHeader(old).error().code(), ErrorCode::kInvalidLocation);
}

class LuksImage : public ScratchFolder {
 protected:
  std::string Image(const Bytes& bytes) const {
    return Put("image", std::string(AsText(ByteView(bytes))));
  }
};

TEST_F(LuksImage, TheNewerOfTheTwoThatIsWhole) {
  const Bytes one = Header(Json(Slot(0, 32768)), 3);
  const Bytes two = Header(Json(Slot(0, 32768) + "," + Slot(1, 290816), R"("0","1")"), 4, true);
  Bytes torn = two;
  torn[6000] ^= 1;
  const auto slots = [&](const Bytes& image) -> std::size_t {
    const auto header = ReadLuksHeader(Image(image));
    return header ? header->keyslots.size() : 0;
  };
  EXPECT_EQ(slots(Joined(one, two)), 2U);
  EXPECT_EQ(slots(Joined(one, torn)), 1U);
  EXPECT_EQ(slots(Joined(Bytes(kSize), two)), 2U);  // found behind a first one that is lost
  EXPECT_EQ(slots(Joined(Bytes(kSize), torn)), 0U);
}

TEST_F(LuksImage, AKeyslotsHashIsOfThatKeyslotAlone) {
  const auto hash = [&](const std::string& slots, unsigned at, const std::string& bound) {
    Bytes image = Joined(Header(Json(slots, bound)), {});
    if (at != 0) image[at] ^= 1;
    const auto header = ReadLuksHeader(Image(image));
    return *KeyslotHash(At("image"), *header, 0);
  };
  const std::string zero = Slot(0, 32768), one = Slot(1, 290816);
  std::string ignored = zero;
  ignored.replace(ignored.find("\"priority\":1"), 12, "\"priority\":2");
  const Bytes32 good = hash(zero + "," + one, 0, R"("0","1")");
  EXPECT_EQ(hash(zero, 0, R"("0")"), good);       // another keyslot was removed
  EXPECT_EQ(hash(ignored, 0, R"("0")"), good);    // the order of tries
  EXPECT_EQ(hash(zero, 290816, R"("0")"), good);  // the other one's area
  EXPECT_NE(hash(zero, 32768, R"("0")"), good);   // its own area
  EXPECT_NE(hash(zero, 32768 + 258047, R"("0")"), good);
  EXPECT_NE(hash(Slot(0, 32768, "AAAA"), 0, R"("0")"), good);  // another passphrase
  EXPECT_NE(hash(zero, 0, ""), good);                          // it no longer opens the volume
}

TEST(LuksHeader, KnowsWhetherAnotherKeyslotFits) {
  const auto room = [](const std::string& slots, const char* size) {
    const std::string config = std::string(R"("keyslots_size":")") + size + "\"";
    return ParseLuksHeader(Header(Json(slots, R"("0")", config)))->HasRoom();
  };
  EXPECT_TRUE(room(Slot(0, 32768), "1048576"));
  EXPECT_FALSE(room(Slot(0, 32768) + "," + Slot(1, 290816), "524288"));
  EXPECT_TRUE(room(Slot(0, 290816), "524288"));  // before it
  EXPECT_FALSE(room(Slot(0, 32768), "262144"));
}

}  // namespace
}  // namespace keyescrow::agent
