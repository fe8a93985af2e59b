#include "agent/policy/signature.h"

#include <gtest/gtest.h>

#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"
#include "envelope/signing_key.h"

namespace keyescrow::agent::policy {
namespace {

using envelope::SigningKey;

constexpr char kText[] =
    "[policy]\nname = \"corp\"\nserial = 7\nmode = \"report\"\n[[rule]]\nname = \"r\"\nmatch = "
    "\"**\"\n";

class PolicySignature : public testing::Test {
 protected:
  Policy policy_ = *ParsePolicy(kText, "policy.toml");
  SigningKey alice_ = *SigningKey::GenerateEd25519(SystemRandom(), "alice");
  SigningKey bob_ = *SigningKey::GenerateEd25519(SystemRandom(), "bob");
  SigningKey mallory_ = *SigningKey::GenerateEd25519(SystemRandom(), "mallory");

  std::string Sign(const SigningKey& key, std::string_view note = {}) const {
    return AddSignature(policy_, note, *key.SignLine(SignedText(policy_)));
  }
  Signers Of(std::size_t threshold) const { return {threshold, {alice_.Public(), bob_.Public()}}; }
  ErrorCode CodeOf(std::string_view note, std::size_t threshold) const {
    const Status verified = VerifySignature(policy_, note, Of(threshold));
    EXPECT_FALSE(verified);
    return verified ? ErrorCode::kInternal : verified.error().code();
  }
};

TEST_F(PolicySignature, CoversNameSerialAndHashOfTheFile) {
  EXPECT_EQ(SignedText(policy_), "keyescrow-policy/1\ncorp\n7\n" +
                                     EncodeBase64(Sha256(AsBytes(std::string_view(kText)))) + "\n");
}

TEST_F(PolicySignature, CountsTheSignersThatCount) {
  const std::string one = Sign(alice_);
  EXPECT_TRUE(VerifySignature(policy_, one, Of(1)));
  EXPECT_EQ(CodeOf(one, 2), ErrorCode::kPolicySigners);
  EXPECT_TRUE(VerifySignature(policy_, Sign(bob_, one), Of(2)));
  EXPECT_EQ(CodeOf(Sign(mallory_), 1), ErrorCode::kPolicySigners);
  EXPECT_EQ(CodeOf(Sign(mallory_, one), 2), ErrorCode::kPolicySigners);
}

TEST_F(PolicySignature, TellsUnsignedFromForged) {
  EXPECT_EQ(CodeOf("", 1), ErrorCode::kPolicyUnsigned);
  EXPECT_EQ(CodeOf("no note", 1), ErrorCode::kPolicySignature);
  // Mallory signs under Alice's name and id.
  std::string forged = Sign(alice_);
  forged[forged.size() - 8] = forged[forged.size() - 8] == 'A' ? 'B' : 'A';
  EXPECT_EQ(CodeOf(forged, 1), ErrorCode::kPolicySignature);
}

TEST_F(PolicySignature, IsOfThisFileAlone) {
  const std::string note = Sign(alice_);
  const auto other = ParsePolicy(std::string(kText) + "# a comment\n", "policy.toml");
  ASSERT_TRUE(other);
  const Status verified = VerifySignature(*other, note, Of(1));
  ASSERT_FALSE(verified);
  EXPECT_EQ(verified.error().code(), ErrorCode::kPolicySignature);
  // Nobody signed the other one.
  EXPECT_TRUE(SignerNames(*other, note).empty());
  const SignerLines lines = ReadSignerLines(*other, note, Of(2).keys);
  EXPECT_TRUE(lines.verified.empty() && lines.unverified.empty());
  EXPECT_TRUE(SignerNames(policy_, "no note").empty());
}

// Who approved a policy is written into the log by these names.
TEST_F(PolicySignature, ALineUnderAnothersNameIsNotTheirs) {
  const std::string note = Sign(alice_);
  const std::string renamed = std::string(note).replace(note.rfind(" alice "), 7, " bob ");
  const SignerLines lines = ReadSignerLines(policy_, renamed, Of(2).keys);
  EXPECT_TRUE(lines.verified.empty());
  EXPECT_EQ(lines.unverified, std::vector<std::string>{"bob"});
  std::string other_id = note;  // the name and signature are right
  const std::size_t at = note.rfind(" alice ") + 7;
  other_id[at] = other_id[at] == 'A' ? 'B' : 'A';
  EXPECT_TRUE(ReadSignerLines(policy_, other_id, Of(2).keys).verified.empty());
  EXPECT_EQ(CodeOf(other_id, 1), ErrorCode::kPolicySigners);
}

TEST_F(PolicySignature, SigningAgainReplacesOnesOwnLine) {
  const std::string both = Sign(bob_, Sign(alice_));
  const std::string again = Sign(alice_, both);
  EXPECT_EQ(SignerNames(policy_, again), (std::vector<std::string>{"bob", "alice"}));
  EXPECT_TRUE(VerifySignature(policy_, again, Of(2)));
}

TEST_F(PolicySignature, TellsWhoseLinesVerifyFromWhatAnybodyWrites) {
  const std::vector<envelope::NoteKey> keys = Of(2).keys;
  const std::string note = Sign(mallory_, Sign(alice_));
  const std::string line = *bob_.SignLine(SignedText(policy_));
  std::string forged = line;  // Bob's name and id, another signature
  forged[forged.size() - 8] = forged[forged.size() - 8] == 'A' ? 'B' : 'A';
  const SignerLines lines = ReadSignerLines(policy_, note + forged, keys);
  EXPECT_EQ(lines.verified, std::vector<std::string>{"alice"});
  EXPECT_EQ(lines.unverified, (std::vector<std::string>{"mallory", "bob"}));
  const SignerLines twice = ReadSignerLines(policy_, note + line + line, keys);
  EXPECT_EQ(twice.verified, (std::vector<std::string>{"alice", "bob"}));
  EXPECT_EQ(twice.unverified, std::vector<std::string>{"mallory"});
  EXPECT_EQ(SignerNames(policy_, note + line + line),
            (std::vector<std::string>{"alice", "mallory", "bob"}));
}

TEST_F(PolicySignature, DropsSignaturesOfAnotherContent) {
  const auto other = ParsePolicy(std::string(kText) + "# a comment\n", "policy.toml");
  ASSERT_TRUE(other);
  const std::string note = AddSignature(*other, Sign(alice_), *bob_.SignLine(SignedText(*other)));
  EXPECT_EQ(SignerNames(*other, note), std::vector<std::string>{"bob"});
}

TEST_F(PolicySignature, SignersAreKeptAsText) {
  const auto read = ParseSigners(FormatSigners(Of(2)));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->threshold, 2U);
  ASSERT_EQ(read->keys.size(), 2U);
  EXPECT_EQ(read->keys[0].Vkey(), alice_.Public().Vkey());
  const std::string line = alice_.Public().Vkey() + "\n";
  for (const std::string& text :
       {std::string(), std::string("1"), std::string("1\n"), std::string("0\n"), std::string("x\n"),
        std::string("2\nalice\n"), "1\n" + line + "alice\n", "1\n" + line + "more", "1 \n" + line,
        "\n" + line, "-1\n" + line, "99999999999999999999\n" + line, "2\n" + line, "0\n" + line}) {
    EXPECT_FALSE(ParseSigners(text)) << text;
  }
}

TEST(SigningKey, SurvivesItsFile) {
  const auto key = SigningKey::GenerateEd25519(SystemRandom(), "alice");
  ASSERT_TRUE(key);
  const auto read = SigningKey::FromPem(*key->Pem(), "alice");
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->Public().Vkey(), key->Public().Vkey());
  EXPECT_EQ(*read->SignLine("text\n"), *key->SignLine("text\n"));
}

TEST(SigningKey, RefusesWhatIsNoKey) {
  for (const std::string_view text : {"",
                                      "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE "
                                      "KEY-----\n"}) {
    const auto read = SigningKey::FromPem(*SecretBytes::CopyOf(AsBytes(text)), "alice");
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code(), ErrorCode::kSigningKey);
  }
}

}  // namespace
}  // namespace keyescrow::agent::policy
