#include "agent/audit/proof.h"

#include <gtest/gtest.h>

#include "envelope/base/base64url.h"
#include "tests/unit/audit/tree_fixture.h"

namespace keyescrow::agent::audit {
namespace {

struct Proven {
  SecretBytes seed = *SecretBytes::CopyOf(Bytes(32, 9));
  NoteKey key = NoteKey::Ed25519("log", *Ed25519PublicKey(seed));
  std::string entry = "3";
  TlogProof proof;

  Proven() {
    MemoryTree tree;
    tree.AppendMany(11);
    const std::string text = FormatCheckpoint({"log", 11, *TreeRoot(11, tree.Reader())});
    proof.extra = ToBytes(AsBytes(entry));
    proof.index = 3;
    proof.hashes = *InclusionProof(3, 11, tree.Reader());
    proof.checkpoint = text + "\n" + *SignLineEd25519(key, seed, text);
  }
};

TEST(TlogProof, RoundTripsWithAndWithoutExtra) {
  Proven p;
  for (const bool with_extra : {true, false}) {
    if (!with_extra) p.proof.extra.clear();
    const std::string text = FormatTlogProof(p.proof);
    const auto read = ParseTlogProof(text);
    ASSERT_TRUE(read) << text;
    EXPECT_EQ(FormatTlogProof(*read), text);
    EXPECT_EQ(text.starts_with("c2sp.org/tlog-proof@v1\nextra "), with_extra);
    EXPECT_TRUE(VerifyTlogProof(*read, AsBytes(p.entry), "log", {p.key}));
  }
}

TEST(TlogProof, EveryPartIsChecked) {
  Proven p;
  const auto fails = [&](const TlogProof& proof, std::string_view entry, std::string_view origin) {
    const auto result = VerifyTlogProof(proof, AsBytes(entry), origin, {p.key});
    return !result && result.error().code() == ErrorCode::kLogDamaged;
  };
  EXPECT_TRUE(fails(p.proof, "4", "log"));
  EXPECT_TRUE(fails(p.proof, p.entry, "another"));
  TlogProof other = p.proof;
  other.index = 4;
  EXPECT_TRUE(fails(other, p.entry, "log"));
  other = p.proof;
  other.hashes[0][0] ^= 1;
  EXPECT_TRUE(fails(other, p.entry, "log"));
  other = p.proof;
  other.checkpoint[4] = '9';
  EXPECT_TRUE(fails(other, p.entry, "log"));
  const auto unsigned_by_us = VerifyTlogProof(p.proof, AsBytes(p.entry), "log", {});
  EXPECT_EQ(unsigned_by_us.error().code(), ErrorCode::kLogDamaged);
}

// Whoever knows several logs' keys must not take one log's word for another's entry.
TEST(TlogProof, TheKeyThatSignedIsItsOwnLogs) {
  Proven p;
  ASSERT_TRUE(VerifyTlogProof(p.proof, AsBytes(p.entry), "", {p.key}));
  const std::string text =
      "other" + p.proof.checkpoint.substr(3, p.proof.checkpoint.find("\n\n") - 2);
  ASSERT_TRUE(text.starts_with("other\n11\n") && text.ends_with("\n")) << text;
  p.proof.checkpoint = text + "\n" + *SignLineEd25519(p.key, p.seed, text);
  for (const std::string_view origin : {"", "other"}) {
    const auto verified = VerifyTlogProof(p.proof, AsBytes(p.entry), origin, {p.key});
    ASSERT_FALSE(verified) << origin;
    EXPECT_EQ(verified.error().code(), ErrorCode::kLogDamaged);
  }
}

TEST(TlogProof, RefusesOtherShapes) {
  for (const std::string_view text :
       {"", "c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v2\nindex 0\n\nx\n",
        "c2sp.org/tlog-proof@v1\nindex 01\n\nx\n", "c2sp.org/tlog-proof@v1\nindex -1\n\nx\n",
        "c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n\nx\n", "c2sp.org/tlog-proof@v1\n\nx\n",
        "c2sp.org/tlog-proof@v1\nextra !\nindex 0\n\nx\n",
        "c2sp.org/tlog-proof@v1\nindex 0\nextra AAAA\n\nx\n",
        "c2sp.org/tlog-proof@v1\nindes 0\n\nx\n", "c2sp.org/tlog-proof@v1\nindex 0x\n\nx\n",
        "c2sp.org/tlog-proof@v1\nindex \n\nx\n", "c2sp.org/tlog-proof@v1\nextra \nindex 0\n\nx\n",
        "c2sp.org/tlog-proof@v1\nindex 18446744073709551616\n\nx\n",
        "c2sp.org/tlog-proof@v1\nindex 0\n!\n\nx\n"}) {
    EXPECT_FALSE(ParseTlogProof(text)) << text;
  }
  std::string text = "c2sp.org/tlog-proof@v1\nindex 0\n";
  for (int level = 0; level < 64; ++level) text += EncodeBase64(Bytes32{}) + "\n";
  EXPECT_TRUE(ParseTlogProof(text + "\nx\n"));
  EXPECT_FALSE(ParseTlogProof(text + EncodeBase64(Bytes32{}) + "\n\nx\n"));
}

}  // namespace
}  // namespace keyescrow::agent::audit
