#include "agent/audit/anchor.h"

#include <gtest/gtest.h>

#include "envelope/base/hash.h"

namespace keyescrow::agent::audit {
namespace {

using envelope::AnchorKey;

constexpr std::uint32_t kIndex = 0x0180'4b45;
constexpr std::string_view kOrigin = "keyescrow.log/db1/abc";

// SoftwareTpm makes what a TPM makes: it shows which bytes the checks accept. That a real TPM's
// bytes are these is shown by tests/integration/tpm.
class SoftwareTpm {
 public:
  SoftwareTpm() : key_(std::move(*P256KeyPair::Generate())) {
    public_ = envelope::AttestationTemplate();
    public_.resize(public_.size() - 4);  // two empty coordinates
    for (const Bytes32& coordinate : {key_.Public().x(), key_.Public().y()}) {
      public_.push_back(0);
      public_.push_back(32);
      public_.insert(public_.end(), coordinate.begin(), coordinate.end());
    }
    public_[1] = static_cast<std::uint8_t>(public_.size() - 2);
  }

  AnchorKey Key() const { return {public_, kIndex}; }

  static void Append(Bytes& out, std::uint64_t value, int num_bytes) {
    for (int shift = 8 * (num_bytes - 1); shift >= 0; shift -= 8) {
      out.push_back(static_cast<std::uint8_t>(value >> shift));
    }
  }
  static void AppendSized(Bytes& out, ByteView bytes) {
    Append(out, bytes.size(), 2);
    out.insert(out.end(), bytes.begin(), bytes.end());
  }
  // TPMS_ATTEST of TPM2_NV_Certify: TPM 2.0 Part 2, 10.12.12.
  static Bytes Attest(std::uint64_t counter, const Bytes32& checkpoint) {
    Bytes attest;
    Append(attest, 0xff544347, 4);
    Append(attest, 0x8014, 2);
    AppendSized(attest, Bytes(34, 1));  // qualifiedSigner
    AppendSized(attest, checkpoint);
    Append(attest, 123456, 8);
    Append(attest, 7, 4);
    Append(attest, 2, 4);
    Append(attest, 1, 1);
    Append(attest, 0x2000, 8);
    AppendSized(attest, envelope::AnchorIndexName(kIndex, kOrigin, true));
    Append(attest, 0, 2);
    Bytes contents;
    Append(contents, counter, 8);
    AppendSized(attest, contents);
    return attest;
  }
  Event Anchor(std::uint64_t counter, const Bytes32& checkpoint) const {
    return Signed(counter, checkpoint, Attest(counter, checkpoint));
  }
  Event Signed(std::uint64_t counter, const Bytes32& checkpoint, Bytes attest) const {
    Event event = Base(EventType::kAnchorTpm, Outcome::kSuccess, counter);
    event.prev_checkpoint = checkpoint;
    event.anchor->signature = *key_.SignEs256(Sha256(attest));
    event.anchor->attest = std::move(attest);
    return event;
  }
  Event Base(EventType type, Outcome outcome, std::uint64_t counter) const {
    Event event;
    event.source = kOrigin;
    event.host = "db1";
    event.type = type;
    event.outcome = outcome;
    event.anchor = EventAnchor{counter, kIndex, public_, {}, {}};
    return event;
  }

 private:
  P256KeyPair key_;
  Bytes public_;
};

TEST(Anchor, AnEntryOfFullSizeFitsAndRoundTrips) {
  SoftwareTpm tpm;
  Event event = tpm.Anchor(UINT64_MAX, Bytes32{5});
  event.actor = Actor{1000, 1001, std::string(64, 'a'), 4242, std::string(256, 'e')};
  event.boot_id = "5b1c3c5e-0000-4000-8000-000000000000";
  event.source = std::string(192, 's');
  const auto line = SerializeEvent(event);
  ASSERT_TRUE(line);
  EXPECT_LE(line->size(), kMaxEventBytes);
  const auto read = ParseEvent(*line);
  ASSERT_TRUE(read) << *line;
  EXPECT_EQ(*read, event);
}

TEST(Anchor, WhatTheTpmCertifiedIsReadAndChecked) {
  SoftwareTpm tpm;
  const auto facts = CheckAnchor(tpm.Anchor(42, Bytes32{5}), {tpm.Key()});
  ASSERT_TRUE(facts) << facts.error().message();
  EXPECT_EQ(facts->counter, 42U);
  EXPECT_EQ(facts->checkpoint_hash, Bytes32{5});
  EXPECT_EQ(facts->clock_ms, 123456U);
  EXPECT_EQ(facts->num_resets, 7U);
  EXPECT_EQ(facts->num_restarts, 2U);
  EXPECT_TRUE(facts->clock_safe);
}

TEST(Anchor, WhatIsNotTheTpmsIsRefused) {
  SoftwareTpm tpm;
  SoftwareTpm other;
  const Event good = tpm.Anchor(42, Bytes32{5});
  const std::vector<AnchorKey> keys = {tpm.Key()};
  const auto refused = [&](const Event& event) {
    const auto facts = CheckAnchor(event, keys);
    return !facts && facts.error().code() == ErrorCode::kAnchorInvalid;
  };
  ASSERT_FALSE(refused(good));
  Event event = good;
  event.prev_checkpoint = Bytes32{6};
  EXPECT_TRUE(refused(event)) << "another checkpoint";
  event = good;
  event.prev_checkpoint.reset();
  EXPECT_TRUE(refused(event));
  event = good;
  event.anchor->counter = 43;
  EXPECT_TRUE(refused(event)) << "another counter than the certified one";
  event = good;
  event.source = "keyescrow.log/db1/abd";
  EXPECT_TRUE(refused(event)) << "the counter of another log";
  event = good;
  event.source = kStatelessSource;
  EXPECT_TRUE(refused(event));
  event = good;
  event.outcome = Outcome::kPending;
  EXPECT_TRUE(refused(event));
  event = good;
  event.type = EventType::kAnchorMismatch;
  EXPECT_TRUE(refused(event)) << "an entry that certifies nothing";
  event = good;
  event.anchor->index ^= 1;
  EXPECT_TRUE(refused(event)) << "an index that is not known";
  event = good;
  (*event.anchor->signature)[40] ^= 1;
  EXPECT_TRUE(refused(event));
  event.anchor->signature.reset();
  EXPECT_TRUE(refused(event));
  EXPECT_TRUE(refused(other.Anchor(42, Bytes32{5}))) << "a key that nobody named";
  event = other.Anchor(42, Bytes32{5});
  event.anchor->key = tpm.Key().attestation_public;
  EXPECT_TRUE(refused(event)) << "signed by another key";
  // A key without restricted signs anything that looks like an attestation.
  for (const std::size_t attribute_byte : {6U, 7U, 8U, 9U}) {
    AnchorKey weak = tpm.Key();
    weak.attestation_public[attribute_byte] ^= 0x01;
    event = good;
    event.anchor->key = weak.attestation_public;
    EXPECT_FALSE(CheckAnchor(event, {weak})) << attribute_byte;
  }
}

TEST(Anchor, NoByteOfTheAttestationCanBeAnother) {
  SoftwareTpm tpm;
  const Bytes attest = SoftwareTpm::Attest(42, Bytes32{5});
  const std::vector<AnchorKey> keys = {tpm.Key()};
  // Signed by the right key, as an unrestricted key would: the structure itself must hold. Free are
  // the signer's qualified name, the clock, its counts and the firmware's version.
  for (std::size_t at = 0; at < attest.size(); ++at) {
    Bytes changed = attest;
    changed[at] ^= 0x80;
    const bool is_free = (at >= 8 && at < 42) || (at >= 76 && at < 92) || (at >= 93 && at < 101);
    EXPECT_EQ(CheckAnchor(tpm.Signed(42, Bytes32{5}, changed), keys).has_value(), is_free) << at;
  }
  for (std::size_t size = 0; size < attest.size(); ++size) {
    const Bytes cut(attest.begin(), attest.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_FALSE(CheckAnchor(tpm.Signed(42, Bytes32{5}, cut), keys)) << size;
  }
  Bytes longer = attest;
  longer.push_back(0);
  EXPECT_FALSE(CheckAnchor(tpm.Signed(42, Bytes32{5}, longer), keys));
}

TEST(AnchorTrail, CountersRiseByOne) {
  SoftwareTpm tpm;
  AnchorTrail trail({tpm.Key()});
  EXPECT_FALSE(trail.Add(tpm.Base(EventType::kAnchorTpm, Outcome::kPending, 8)));
  EXPECT_EQ(trail.state().intent, 8U);
  EXPECT_FALSE(trail.Add(tpm.Anchor(8, Bytes32{1})));
  EXPECT_FALSE(trail.Add(Event()));
  EXPECT_FALSE(trail.Add(tpm.Base(EventType::kAnchorTpm, Outcome::kPending, 9)));
  EXPECT_FALSE(trail.Add(tpm.Anchor(9, Bytes32{2})));
  EXPECT_EQ(trail.num_checked(), 2U);
  EXPECT_FALSE(trail.state().intent);
  EXPECT_TRUE(trail.Add(tpm.Anchor(9, Bytes32{3}))) << "twice";
  EXPECT_TRUE(trail.Add(tpm.Anchor(11, Bytes32{3}))) << "a step left out";
  EXPECT_TRUE(trail.Add(tpm.Anchor(10, Bytes32{3}))) << "back";
  // What is imported, failed, or of another type, says nothing of the counter.
  Event imported = tpm.Anchor(40, Bytes32{4});
  imported.source = kStatelessSource;
  EXPECT_FALSE(trail.Add(imported));
  EXPECT_FALSE(trail.Add(tpm.Base(EventType::kAnchorTpm, Outcome::kFailure, 40)));
  EXPECT_FALSE(trail.Add(tpm.Base(EventType::kAuditExported, Outcome::kSuccess, 40)));
  EXPECT_EQ(trail.state().counter, 10U);
  EXPECT_EQ(trail.num_checked(), 5U);
  EXPECT_FALSE(trail.Add(tpm.Anchor(11, Bytes32{5})));
  AnchorTrail without({});
  EXPECT_FALSE(without.Add(tpm.Anchor(8, Bytes32{1})));
  EXPECT_EQ(without.num_checked(), 0U);
  EXPECT_EQ(without.num_unchecked(), 1U);
}

TEST(AnchorTrail, AMismatchIsToldAndStaysOpenUntilItIsSettled) {
  SoftwareTpm tpm;
  AnchorTrail trail({tpm.Key()});
  EXPECT_FALSE(trail.Add(tpm.Anchor(8, Bytes32{1})));
  Event mismatch = tpm.Base(EventType::kAnchorMismatch, Outcome::kFailure, 12);
  mismatch.reason = "an older store";
  EXPECT_FALSE(trail.Add(tpm.Base(EventType::kAnchorTpm, Outcome::kPending, 9)));
  EXPECT_TRUE(trail.Add(mismatch));
  EXPECT_TRUE(trail.state().mismatch_open);
  EXPECT_FALSE(trail.Add(tpm.Base(EventType::kAnchorMismatch, Outcome::kSuccess, 12)));
  EXPECT_FALSE(trail.state().mismatch_open);
  EXPECT_FALSE(trail.state().intent) << "of before it was settled";
  EXPECT_FALSE(trail.Add(tpm.Anchor(13, Bytes32{2}))) << "it goes on from where it was found";
  SoftwareTpm other;
  EXPECT_TRUE(trail.Add(other.Anchor(1, Bytes32{3}))) << "a key that is not known";
}

TEST(JudgeCounter, KnowsACrashFromARollback) {
  AnchorState state;
  EXPECT_EQ(JudgeCounter(state, 5, 5), CounterVerdict::kRight) << "never anchored";
  EXPECT_EQ(JudgeCounter(state, 5, 6), CounterVerdict::kStoreWentBack);
  EXPECT_EQ(JudgeCounter(state, 5, 4), CounterVerdict::kCounterWentBack);
  state.counter = 8;
  EXPECT_EQ(JudgeCounter(state, 5, 8), CounterVerdict::kRight);
  EXPECT_EQ(JudgeCounter(state, 5, 9), CounterVerdict::kStoreWentBack);
  EXPECT_EQ(JudgeCounter(state, 5, 7), CounterVerdict::kCounterWentBack);
  state.intent = 9;
  EXPECT_EQ(JudgeCounter(state, 5, 8), CounterVerdict::kRedoIncrement);
  EXPECT_EQ(JudgeCounter(state, 5, 9), CounterVerdict::kRedoCertify);
  EXPECT_EQ(JudgeCounter(state, 5, 10), CounterVerdict::kStoreWentBack);
  EXPECT_EQ(JudgeCounter(state, 5, 7), CounterVerdict::kCounterWentBack);
}

}  // namespace
}  // namespace keyescrow::agent::audit
