#include "agent/audit/drill_proof.h"

#include <gtest/gtest.h>

#include "envelope/base/ed25519.h"

namespace keyescrow::agent::audit {
namespace {

const SecretBytes& Seed() {
  static const SecretBytes kSeed = *SecretBytes::CopyOf(Bytes(32, 5));
  return kSeed;
}

envelope::Header Header() {
  envelope::Header header;
  header.envelope_id = "AAECAwQFBgcICQoLDA0ODw";
  header.key_name = "prod/db";
  header.key_version = 3;
  header.revision = 2;
  header.paths.resize(2);
  header.paths[0].id = "tpm";
  header.paths[1].id = "token-ops";
  header.paths[1].drill_key = *Ed25519PublicKey(Seed());
  return header;
}

Event Proof() {
  Event event;
  event.source = "keyescrow.log/db1/abc";
  event.source_seq = 41;
  event.type = EventType::kDrillPassed;
  event.host = "db1";
  event.key = EventKey{"prod/db", 3};
  event.envelope = EventEnvelope{"AAECAwQFBgcICQoLDA0ODw", 2, Bytes32{9}};
  event.paths = {{"token-ops", {{"pkcs11-rsa", "ops", Bytes32{7}, ""}}}};
  event.drill = EventDrill{41, Bytes32{1}, 1'795'600'800, Bytes32{2}, {}};
  event.drill->signature = *envelope::SignDrill(*DrillStatementOf(event), Seed());
  return event;
}

TEST(DrillProof, ALineOfTheLogProvesItsPath) {
  const auto line = SerializeEvent(Proof());
  ASSERT_TRUE(line);
  const auto read = ParseEvent(*line);
  ASSERT_TRUE(read) << *line;
  EXPECT_EQ(*read, Proof());
  EXPECT_TRUE(VerifyDrillProof(*read, Header(), Bytes32{9}));
  EXPECT_TRUE(VerifyDrillProof(*read, Header().paths[1].drill_key));
}

TEST(DrillProof, WhatIsNotOfThisEnvelopeIsRefused) {
  const auto refused = [](auto change) {
    Event event = Proof();
    envelope::Header header = Header();
    change(event, header);
    const Status verified = VerifyDrillProof(event, header, Bytes32{9});
    return !verified && verified.error().code() == ErrorCode::kLogDamaged;
  };
  EXPECT_FALSE(VerifyDrillProof(Proof(), Header(), Bytes32{8})) << "other bytes than it is about";
  EXPECT_TRUE(refused([](auto& e, auto&) { e.drill.reset(); }));
  EXPECT_TRUE(refused([](auto& e, auto&) { e.envelope.reset(); }));
  EXPECT_TRUE(refused([](auto& e, auto&) { e.paths.push_back(e.paths[0]); }));
  EXPECT_TRUE(refused([](auto& e, auto&) { e.outcome = Outcome::kFailure; }));
  EXPECT_TRUE(refused([](auto& e, auto&) { e.key->version = 2; }));
  EXPECT_TRUE(refused([](auto& e, auto&) { e.key.reset(); }));
  EXPECT_TRUE(refused([](auto& e, auto&) { e.envelope->revision = 1; }));
  EXPECT_TRUE(refused([](auto& e, auto&) { e.envelope->sha256[0] ^= 1; }));
  EXPECT_TRUE(refused([](auto& e, auto&) { e.source = "keyescrow.log/db2/abc"; }));
  EXPECT_TRUE(refused([](auto& e, auto&) { e.paths[0].id = "tpm"; }));
  EXPECT_TRUE(refused([](auto& e, auto&) { e.paths[0].id = "gone"; }));
  EXPECT_TRUE(refused([](auto& e, auto&) { e.drill->challenge.reset(); }));
  EXPECT_TRUE(refused([](auto&, auto& h) { h.envelope_id = "BAECAwQFBgcICQoLDA0ODw"; }));
  EXPECT_TRUE(refused([](auto&, auto& h) { std::swap(h.paths[0].id, h.paths[1].id); }));
}

TEST(DrillProof, IsNeverLeftOutOfALongLine) {
  Event event = Proof();
  for (int i = 0; i < 20; ++i) event.paths[0].factors.push_back(event.paths[0].factors[0]);
  event.reason = std::string(512, '\x01');  // six bytes each, once escaped
  event.ticket = std::string(128, '\x01');
  event.approvers = std::vector<std::string>(8, std::string(64, '\x01'));
  const auto line = SerializeEvent(event);
  ASSERT_TRUE(line);
  EXPECT_LE(line->size(), kMaxEventBytes);
  const auto read = ParseEvent(*line);
  ASSERT_TRUE(read);
  EXPECT_TRUE(read->truncated);
  EXPECT_TRUE(VerifyDrillProof(*read, Header(), Bytes32{9}));
}

TEST(DrillProof, ADrillIsOfOnePathOfAnEnvelope) {
  Event event = Proof();
  event.paths.clear();
  EXPECT_EQ(SerializeEvent(event).error().code(), ErrorCode::kInternal);
  event = Proof();
  event.envelope.reset();
  EXPECT_EQ(SerializeEvent(event).error().code(), ErrorCode::kInternal);
  const std::string line = *SerializeEvent(Proof());
  const auto with = [&](std::string_view from, std::string_view to) {
    std::string changed = line;
    const std::size_t at = changed.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return changed.replace(at, from.size(), to);
  };
  for (const std::string& bad :
       {with("\"drill\":{\"size\":41", "\"drill\":{\"size\":\"41\""), with("\"size\":41,", ""),
        with("2026-11-25T10", "2026-11-25T25"), with("\"signature\":\"", "\"signature\":\"A"),
        with("\"challenge\":\"Ag", "\"challenge\":\""),
        with("\"drill\":{", "\"drill\":{\"x\":1,")}) {
    const auto read = ParseEvent(bad);
    ASSERT_FALSE(read) << bad;
    EXPECT_EQ(read.error().code(), ErrorCode::kLogDamaged) << bad;
  }
}

}  // namespace
}  // namespace keyescrow::agent::audit
