#include "agent/audit/challenge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"
#include "envelope/base/p256.h"

namespace keyescrow::agent::audit {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::string_view kUri = "pkcs11:token=ops;object=escrow";

Challenge Full() {
  Challenge challenge;
  challenge.nonce = Bytes32{1, 2, 3};
  challenge.created = 1'795'600'800;
  challenge.origin = "keyescrow.log/db1/abc";
  challenge.drawn = {{"prod/db", 3, "token-ops"}, {"prod/web", 0, ""}};
  const auto key = P256KeyPair::Generate();
  const auto wrapped =
      WrapNonce({"ops", ToBytes(key->Public().Spki()), std::string(kUri)}, SystemRandom());
  challenge.tokens.push_back(wrapped->record);
  return challenge;
}

TEST(Challenge, RoundTrips) {
  const auto file = FormatChallenge(Full());
  ASSERT_TRUE(file);
  const auto read = ParseChallenge(*file);
  ASSERT_TRUE(read) << *file;
  EXPECT_EQ(read->nonce, (Bytes32{1, 2, 3}));
  EXPECT_EQ(read->created, 1'795'600'800);
  EXPECT_EQ(read->origin, "keyescrow.log/db1/abc");
  EXPECT_EQ(read->drawn, Full().drawn);
  ASSERT_EQ(read->tokens.size(), 1u);
  EXPECT_EQ(*FormatChallenge(*read), *file);
}

TEST(Challenge, TheFileIsTheDocumentedOne) {
  Challenge challenge;
  challenge.created = 1'795'600'800;
  challenge.drawn = {{"prod/db", 3, "token-ops"}};
  EXPECT_EQ(*FormatChallenge(challenge),
            R"({"schema":"keyescrow/challenge/1",)"
            R"("challenge":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",)"
            R"("created":"2026-11-25T10:00:00Z",)"
            R"("drawn":[{"key":"prod/db","version":3,"path":"token-ops"}]})"
            "\n");
}

TEST(Challenge, AnythingElseIsRefused) {
  const std::string file = *FormatChallenge(Full());
  const auto with = [&](std::string_view from, std::string_view to) {
    std::string changed = file;
    const std::size_t at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return changed.replace(at, from.size(), to);
  };
  for (const std::string& bad : {std::string(),
                                 std::string("{}"),
                                 with("challenge/1", "challenge/2"),
                                 with("\"challenge\":\"AQ", "\"challenge\":\""),
                                 with("2026-11-25", "2026-11-31"),
                                 with("{\"schema\"", "{\"x\":1,\"schema\""),
                                 with("prod/web", "prod//web"),
                                 with("\"version\":3", "\"version\":0"),
                                 with("\"path\":\"token-ops\"", "\"path\":\"\""),
                                 with("\"path\":\"token-ops\"", "\"path\":\"token ops\""),
                                 with("pkcs11-ecdh", "pkcs11-rsa"),
                                 with("pkcs11:token", "token"),
                                 with("\"origin\":\"keyescrow", "\"origin\":\"\",\"x\":\""),
                                 with("keyescrow.log", "keyescrow\x7flog"),
                                 with("keyescrow.log", "keyescrow\\\"log"),
                                 with("keyescrow.log", "keyescrow\\\\log"),
                                 with("keyescrow.log", std::string(300, 'o')),
                                 with("keyescrow.log/db1/abc", ""),
                                 file + "\n",
                                 std::string(kMaxChallengeBytes + 1, ' ')}) {
    const auto read = ParseChallenge(bad);
    ASSERT_FALSE(read) << bad;
    EXPECT_EQ(read.error().code(), ErrorCode::kUsage) << bad;
  }
}

// A name that would end its text and begin another member.
TEST(Challenge, NoNameWritesAnotherMember) {
  for (const DrawnPath& drawn : {DrawnPath{"prod/db\",\"path\":\"tpm", 0, ""},
                                 DrawnPath{"prod/db", 3, "tpm\"},{\"key\":\"prod/web"}}) {
    Challenge challenge;
    challenge.drawn = {drawn};
    const auto file = FormatChallenge(challenge);
    ASSERT_FALSE(file) << *file;
    EXPECT_EQ(file.error().code(), ErrorCode::kUsage);
  }
}

TEST(Challenge, NoneIsLargerThanItMayBe) {
  Challenge challenge;
  challenge.drawn.resize(30000,
                         {std::string(60, 'p') + "/" + std::string(60, 'd'), 3, "token-ops"});
  const auto file = FormatChallenge(challenge);
  ASSERT_FALSE(file) << file->size();
  EXPECT_NE(file.error().message().find("larger than 3 MiB"), std::string::npos)
      << file.error().message();
}

// One line feed ends it, and none is missed.
TEST(Challenge, MayLackItsLineFeed) {
  std::string file = *FormatChallenge(Full());
  file.pop_back();
  EXPECT_TRUE(ParseChallenge(file));
}

TEST(Challenge, AnAnswerIsTheLabelledHashOfTheNonce) {
  const auto nonce = SecretBytes::CopyOf(Bytes(32, 0x44));
  // printf 'keyescrow1|challenge|' | cat - <(head -c 32 /dev/zero | tr '\0' D) | sha256sum
  Bytes labelled = ToBytes(AsBytes("keyescrow1|challenge|"));
  labelled.insert(labelled.end(), 32, 0x44);
  EXPECT_EQ(*AnswerNonce(*nonce), Sha256(labelled));
}

TEST(Challenge, TheKeyOfTheTokenAlonePassesItsNonce) {
  const auto key = P256KeyPair::Generate();
  const auto wrapped =
      WrapNonce({"ops", ToBytes(key->Public().Spki()), std::string(kUri)}, SystemRandom());
  ASSERT_TRUE(wrapped);
  const auto& record = std::get<envelope::Pkcs11EcdhRecord>(wrapped->record);
  const auto answer_of = [&](const P256KeyPair& pair) {
    const auto shared = pair.SharedX(*P256Point::FromUncompressed(record.epk));
    return *AnswerNonce(*envelope::EcdhSecret(*shared, record));
  };
  EXPECT_EQ(answer_of(*key), wrapped->expected.answer);
  EXPECT_NE(answer_of(*P256KeyPair::Generate()), wrapped->expected.answer);
  EXPECT_EQ(wrapped->expected.key_sha256, Sha256(key->Public().Spki()));
  EXPECT_FALSE(WrapNonce({"ops", Bytes(91, 4), std::string(kUri)}, SystemRandom()));
}

TEST(TokenAnswers, EveryExpectedOneMustBeGiven) {
  const TokenAnswers expected{Bytes32{9}, {{Bytes32{1}, Bytes32{2}}, {Bytes32{3}, Bytes32{4}}}};
  const auto given = ParseTokenAnswers(FormatTokenAnswers(expected));
  ASSERT_TRUE(given);
  EXPECT_THAT(AnswerFaults(expected, *given), IsEmpty());
  TokenAnswers wrong = *given;
  wrong.answers[1].answer[31] ^= 1;
  EXPECT_THAT(AnswerFaults(expected, wrong), ElementsAre(HasSubstr("gave a wrong answer")));
  wrong.answers.erase(wrong.answers.begin());
  EXPECT_THAT(AnswerFaults(expected, wrong),
              ElementsAre(HasSubstr("gave no answer"), HasSubstr("gave a wrong answer")));
  wrong = *given;
  wrong.nonce[0] ^= 1;
  EXPECT_THAT(AnswerFaults(expected, wrong), ElementsAre(HasSubstr("another challenge")));
  for (const std::string_view bad : {"", "{}", R"({"schema":"keyescrow/challenge-answers/1"})"}) {
    EXPECT_EQ(ParseTokenAnswers(bad).error().code(), ErrorCode::kUsage) << bad;
  }
}

}  // namespace
}  // namespace keyescrow::agent::audit
