#include "agent/audit/note.h"

#include <gtest/gtest.h>

#include "agent/audit/checkpoint.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent::audit {
namespace {

class KeyPairSigner final : public envelope::Signer {
 public:
  const P256Point& PublicKey() const override { return key_.Public(); }
  Result<Bytes64> SignDigest(const Bytes32& digest) override { return key_.SignEs256(digest); }

 private:
  P256KeyPair key_ = *P256KeyPair::Generate();
};

struct Signed {
  SecretBytes seed = *SecretBytes::CopyOf(Bytes(32, 7));
  KeyPairSigner signer;
  NoteKey ed25519 = NoteKey::Ed25519("keyescrow.log/h/t", *Ed25519PublicKey(seed));
  NoteKey p256 = NoteKey::P256("keyescrow.log/h/t", signer.PublicKey());
  std::string text = "keyescrow.log/h/t\n1\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
  std::string note =
      text + "\n" + *SignLineEd25519(ed25519, seed, text) + *SignLineP256(p256, signer, text);
};

TEST(Note, BothLinesVerify) {
  Signed s;
  const auto note = ParseNote(s.note);
  ASSERT_TRUE(note);
  EXPECT_EQ(note->text, s.text);
  const auto verified = VerifyNote(*note, {s.ed25519, s.p256});
  ASSERT_TRUE(verified);
  EXPECT_EQ(*verified, (std::vector<bool>{true, true}));
}

TEST(Note, UnknownKeysAreIgnoredAndKnownOnesMustVerify) {
  Signed s;
  Signed other;
  const auto note = ParseNote(s.note);
  EXPECT_EQ(*VerifyNote(*note, {other.p256}), std::vector<bool>{false});
  auto changed = *note;
  changed.text[0] = 'K';
  EXPECT_EQ(VerifyNote(changed, {s.ed25519}).error().code(), ErrorCode::kLogDamaged);
  EXPECT_EQ(VerifyNote(changed, {s.p256}).error().code(), ErrorCode::kLogDamaged);
  // The same name under another key is another key.
  NoteKey renamed = s.ed25519;
  renamed.name = "somebody";
  EXPECT_EQ(*VerifyNote(*note, {renamed}), std::vector<bool>{false});
}

TEST(Note, SplitsAtTheLastBlankLine) {
  Signed s;
  const std::string text = "a\n\nb\n";
  const std::string bytes = text + "\n" + *SignLineEd25519(s.ed25519, s.seed, text);
  const auto note = ParseNote(bytes);
  ASSERT_TRUE(note);
  EXPECT_EQ(note->text, text);
  EXPECT_TRUE((*VerifyNote(*note, {s.ed25519}))[0]);
}

TEST(Note, RefusesHostileBytes) {
  Signed s;
  const std::string line = *SignLineEd25519(s.ed25519, s.seed, "a\n");
  const std::string hostile[] = {
      "",
      "a\n",
      "a\n\n",                                    // no signature
      "a\n" + line,                               // no blank line
      "a\n\n" + line.substr(0, line.size() - 1),  // no newline at the end
      "a\n\n- x AAAAAAAA\n",                      // a hyphen
      "a\n\n\xE2\x80\x94 x\n",                    // no signature in the line
      "a\n\n\xE2\x80\x94 x+y AAAAAAAA\n",         // a plus sign in the name
      "a\n\n\xE2\x80\x94  AAAAAAAA\n",            // no name
      "a\n\n\xE2\x80\x94 x\xC2\xA0y AAAAAAAA\n",  // a space that looks like none
      "a\n\n\xE2\x80\x94 x AAAAAA==\n",           // the key id alone
      "a\n\n\xE2\x80\x94 x AAAAAAA\n",            // not base64
      "a\r\n\n" + line,                           // a control character
      "a\t\n\n" + line,
      std::string("a\0\n\n", 4) + line,
      "\xFF\n\n" + line,          // not UTF-8
      "\xC0\xAF\n\n" + line,      // overlong
      "\xED\xA0\x80\n\n" + line,  // a surrogate
      std::string(kMaxNoteBytes, 'a') + "\n\n" + line,
  };
  for (const std::string& bytes : hostile) {
    const auto note = ParseNote(bytes);
    ASSERT_FALSE(note) << bytes.substr(0, 60);
    EXPECT_EQ(note.error().code(), ErrorCode::kLogDamaged);
  }
  std::string many = "a\n\n";
  for (std::size_t i = 0; i <= kMaxNoteSignatures; ++i) many += line;
  EXPECT_FALSE(ParseNote(many));
}

TEST(NoteKey, ASignatureOfAnotherSizeIsNone) {
  Signed s;
  const std::string line = *SignLineEd25519(s.ed25519, s.seed, "a\n");
  const auto note = ParseNote("a\n\n" + line);
  ASSERT_TRUE(note);
  Bytes signature = note->signatures[0].signature;
  ASSERT_TRUE(s.ed25519.Verify("a\n", signature));
  signature.push_back(0);
  EXPECT_FALSE(s.ed25519.Verify("a\n", signature));
}

TEST(NoteKey, VkeysRoundTrip) {
  Signed s;
  for (const NoteKey& key : {s.ed25519, s.p256}) {
    const auto read = NoteKey::FromVkey(key.Vkey());
    ASSERT_TRUE(read) << key.Vkey();
    EXPECT_EQ(read->name, key.name);
    EXPECT_EQ(read->id, key.id);
  }
  // From the documentation of golang.org/x/mod/sumdb/note.
  const auto peter =
      NoteKey::FromVkey("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
  ASSERT_TRUE(peter);
  const auto note = ParseNote(
      "If you think cryptography is the answer to your problem,\n"
      "then you don't know what your problem is.\n"
      "\n"
      "— PeterNeumann "
      "x08go/ZJkuBS9UG/"
      "SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n");
  ASSERT_TRUE(note);
  EXPECT_EQ(*VerifyNote(*note, {*peter}), std::vector<bool>{true});
  EXPECT_FALSE(
      NoteKey::FromVkey("PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"));
  EXPECT_FALSE(
      NoteKey::FromVkey("Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"));
  EXPECT_FALSE(NoteKey::FromVkey("PeterNeumann"));
  EXPECT_FALSE(NoteKey::FromVkey("PeterNeumann+c74f20a3"));
  EXPECT_FALSE(NoteKey::FromVkey("PeterNeumann+c74f20a3+"));
  EXPECT_FALSE(NoteKey::FromVkey("PeterNeumann+c74f20a3+!"));
  for (const char* name : {"a b", "", "a\nb", "a\x01", "\xFF"}) {  // each with its right id
    EXPECT_FALSE(NoteKey::FromVkey(NoteKey::Ed25519(name, Bytes32{1}).Vkey())) << name;
  }
}

TEST(Checkpoint, RoundTripsAndRefusesOtherNumbers) {
  const Checkpoint checkpoint{LogOrigin("db1", "thumb"), 12345, Bytes32{1, 2, 3}};
  const std::string text = FormatCheckpoint(checkpoint);
  const auto read = ParseCheckpoint(text);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->origin, "keyescrow.log/db1/thumb");
  EXPECT_EQ(read->size, 12345u);
  EXPECT_EQ(read->root, checkpoint.root);
  const std::string root = EncodeBase64(checkpoint.root);
  EXPECT_TRUE(ParseCheckpoint("o\n0\n" + root + "\nextension\n"));
  for (const std::string& bad :
       {"\n1\n" + root + "\n", "o\n01\n" + root + "\n", "o\n-1\n" + root + "\n",
        "o\n\n" + root + "\n", "o\n18446744073709551616\n" + root + "\n", "o\n1\n" + root,
        std::string("o\n1\nAAAA\n"), "o\n1\n" + root + "\n\n", "o\n1 \n" + root + "\n"}) {
    EXPECT_FALSE(ParseCheckpoint(bad)) << bad;
  }
}

}  // namespace
}  // namespace keyescrow::agent::audit
