#include "agent/audit/verify.h"

#include <gtest/gtest.h>

#include "agent/audit/event.h"
#include "tests/unit/audit/tree_fixture.h"

namespace keyescrow::agent::audit {
namespace {

class KeyPairSigner final : public envelope::Signer {
 public:
  const P256Point& PublicKey() const override { return key_.Public(); }
  Result<Bytes64> SignDigest(const Bytes32& digest) override { return key_.SignEs256(digest); }

 private:
  P256KeyPair key_ = *P256KeyPair::Generate();
};

// A log of 300 entries, a checkpoint after each; the agent key is away from 101 to 200.
struct Log {
  SecretBytes seed = *SecretBytes::CopyOf(Bytes(32, 3));
  KeyPairSigner signer;
  NoteKey ed25519 = NoteKey::Ed25519("log", *Ed25519PublicKey(seed));
  NoteKey p256 = NoteKey::P256("log", signer.PublicKey());
  MemoryTree tree;
  std::vector<std::string> lines;
  std::vector<std::string> notes;

  Log() {
    for (std::uint64_t i = 0; i < 300; ++i) {
      Event event;
      event.source = "log";
      event.source_seq = i;
      if (i > 0) event.prev_checkpoint = CheckpointHash(NoteText(notes.back()));
      lines.push_back(*SerializeEvent(event));
      tree.Append(LeafHash(AsBytes(lines.back())));
      notes.push_back(MakeNote(i + 1, i < 100 || i >= 200));
    }
  }
  std::string MakeNote(std::uint64_t size, bool with_p256) {
    const std::string text = FormatCheckpoint({"log", size, *TreeRoot(size, tree.Reader())});
    return text + "\n" + *SignLineEd25519(ed25519, seed, text) +
           (with_p256 ? *SignLineP256(p256, signer, text) : "");
  }
  LogReport Verify(const Checkpoint* since = nullptr) {
    LogVerifier verifier("log", {ed25519, p256}, tree.Reader());
    if (since != nullptr) verifier.SinceCheckpoint(*since);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      verifier.Entry(i, AsBytes(lines[i]), tree.leaves[i]);
      if (i < notes.size()) verifier.Checkpoint(i + 1, notes[i]);
    }
    return *verifier.Finish();
  }
};

bool Has(const LogReport& report, LogFault fault) {
  for (const LogFinding& finding : report.findings) {
    if (finding.fault == fault) return true;
  }
  return false;
}

TEST(LogVerifier, ARunWithoutTheAgentKeyIsAFindingUntilTheKeySignsAgain) {
  Log log;
  const LogReport whole = log.Verify();
  EXPECT_TRUE(whole.Intact());
  EXPECT_EQ(whole.num_entries, 300u);
  EXPECT_EQ(whole.num_missing_p256, 100u);
  EXPECT_TRUE(whole.findings.empty());

  log.lines.resize(200);
  log.notes.resize(200);
  MemoryTree tree;
  for (const std::string& line : log.lines) tree.Append(LeafHash(AsBytes(line)));
  log.tree = std::move(tree);
  const LogReport report = log.Verify();
  EXPECT_TRUE(report.Intact());
  ASSERT_EQ(report.findings.size(), 1u);
  EXPECT_EQ(report.findings[0].fault, LogFault::kMissingP256);
  EXPECT_EQ(report.findings[0].position, 101u);
}

TEST(LogVerifier, FindsWhatWasTamperedWith) {
  {
    Log log;
    log.lines[7][10] ^= 1;
    const LogReport report = log.Verify();
    EXPECT_FALSE(report.Intact());
    EXPECT_TRUE(Has(report, LogFault::kLeafHash));
    EXPECT_TRUE(Has(report, LogFault::kRoot));
    EXPECT_TRUE(Has(report, LogFault::kTile));
  }
  {
    Log log;
    log.tree.leaves[7][0] ^= 1;
    EXPECT_TRUE(Has(log.Verify(), LogFault::kLeafHash));
  }
  {
    Log log;
    log.tree.tiles[{0, 0}][7 * 32] ^= 1;
    EXPECT_TRUE(Has(log.Verify(), LogFault::kTile));
  }
  {
    Log log;
    log.notes[7] = log.notes[8];
    EXPECT_TRUE(Has(log.Verify(), LogFault::kCheckpointFormat));
  }
  {
    Log log;
    std::string& note = log.notes[7];
    note[note.size() - 5] = note[note.size() - 5] == 'A' ? 'B' : 'A';
    EXPECT_FALSE(log.Verify().Intact());
  }
  {
    Log log;
    log.notes[7] = std::string(NoteText(log.notes[7])) + "\n" +
                   *SignLineP256(log.p256, log.signer, NoteText(log.notes[7]));
    EXPECT_TRUE(Has(log.Verify(), LogFault::kSignature));
  }
  {
    Log log;
    log.notes.pop_back();
    EXPECT_TRUE(Has(log.Verify(), LogFault::kUncovered));
  }
}

TEST(LogVerifier, AnOlderCheckpointShowsACutOrARewrittenLog) {
  Log log;
  Checkpoint since = *ParseCheckpoint(NoteText(log.notes[249]));
  EXPECT_TRUE(log.Verify(&since).Intact());
  since.root[0] ^= 1;
  EXPECT_TRUE(Has(log.Verify(&since), LogFault::kSinceMismatch));
  since.size = 301;
  EXPECT_TRUE(Has(log.Verify(&since), LogFault::kLogCut));
}

}  // namespace
}  // namespace keyescrow::agent::audit
