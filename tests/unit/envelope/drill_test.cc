#include "envelope/drill.h"

#include <gtest/gtest.h>

#include <numeric>

#include "envelope/base/base64url.h"
#include "envelope/base/ed25519.h"

namespace keyescrow::envelope {
namespace {

// The answers are those of Python's cryptography over the text below, seed 00 01 … 1f.
constexpr std::string_view kText =
    "keyescrow-drill/1\n"
    "AAECAwQFBgcICQoLDA0ODw\n"
    "token-ops\n"
    "ERERERERERERERERERERERERERERERERERERERERERE\n"
    "keyescrow.log/db1/abc\n"
    "41\n"
    "IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI=\n"
    "-\n"
    "2026-11-25T10:00:00Z\n";
constexpr std::string_view kSignature =
    "cmQl-goanQrsXGtliA6CxZEOVQa10zo705qALyDB6A1tekCLY8g7dahHZ5EXYKerSG_NaCzQxPx9MLKWumICBw";
constexpr std::string_view kChallengedSignature =
    "n6PRed5BOYbq2N6QyDkBvPW4fc0pQnpNcRlOWRwsYyvZsWnBX6EO3eHNh3-rpMESb26BJ3uKf9He3HOqCSZRCw";

template <std::size_t kSize>
std::array<std::uint8_t, kSize> Filled(std::uint8_t value) {
  std::array<std::uint8_t, kSize> bytes;
  bytes.fill(value);
  return bytes;
}

DrillStatement Statement() {
  DrillStatement statement;
  statement.envelope_id = "AAECAwQFBgcICQoLDA0ODw";
  statement.path_id = "token-ops";
  statement.envelope_hash = Filled<32>(0x11);
  statement.checkpoint = {"keyescrow.log/db1/abc", 41, Filled<32>(0x22)};
  statement.time = 1795600800;
  return statement;
}

SecretBytes Seed() {
  Bytes bytes(32);
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
  return *SecretBytes::CopyOf(bytes);
}

TEST(Drill, TheStatementIsTheDocumentedOne) {
  EXPECT_EQ(*FormatDrillStatement(Statement()), kText);
  const auto read = ParseDrillStatement(kText);
  ASSERT_TRUE(read);
  EXPECT_EQ(*read, Statement());
}

TEST(Drill, SignaturesAreTheKnownOnes) {
  EXPECT_EQ(EncodeBase64Url(*SignDrill(Statement(), Seed())), kSignature);
  DrillStatement challenged = Statement();
  challenged.challenge = Filled<32>(0x33);
  EXPECT_EQ(EncodeBase64Url(*SignDrill(challenged, Seed())), kChallengedSignature);
  EXPECT_EQ(*ParseDrillStatement(*FormatDrillStatement(challenged)), challenged);
}

TEST(Drill, EveryMemberIsSigned) {
  const Bytes64 signature = *SignDrill(Statement(), Seed());
  const Bytes32 key = *Ed25519PublicKey(Seed());
  EXPECT_TRUE(VerifyDrill(Statement(), signature, key));
  const auto refused = [&](auto change) {
    DrillStatement other = Statement();
    change(other);
    const Status verified = VerifyDrill(other, signature, key);
    return !verified && verified.error().code() == ErrorCode::kLogDamaged;
  };
  EXPECT_TRUE(refused([](auto& s) { s.envelope_id = "BAECAwQFBgcICQoLDA0ODw"; }));
  EXPECT_TRUE(refused([](auto& s) { s.path_id = "token-opt"; }));
  EXPECT_TRUE(refused([](auto& s) { s.envelope_hash[31] ^= 1; }));
  EXPECT_TRUE(refused([](auto& s) { s.checkpoint.origin += "d"; }));
  EXPECT_TRUE(refused([](auto& s) { s.checkpoint.size++; }));
  EXPECT_TRUE(refused([](auto& s) { s.checkpoint.root[0] ^= 1; }));
  EXPECT_TRUE(refused([](auto& s) { s.challenge = Bytes32{}; }));
  EXPECT_TRUE(refused([](auto& s) { s.time++; }));
  Bytes64 broken = signature;
  broken[63] ^= 1;
  EXPECT_FALSE(VerifyDrill(Statement(), broken, key));
  EXPECT_FALSE(VerifyDrill(Statement(), signature, Bytes32{1}));
}

TEST(Drill, AMemberCannotBringALineOfItsOwn) {
  const auto refused = [](auto change) {
    DrillStatement statement = Statement();
    change(statement);
    const auto text = FormatDrillStatement(statement);
    return !text && text.error().code() == ErrorCode::kLogDamaged && !SignDrill(statement, Seed());
  };
  EXPECT_TRUE(refused([](auto& s) { s.envelope_id = ""; }));
  EXPECT_TRUE(refused([](auto& s) { s.envelope_id = "AAEC"; }));
  EXPECT_TRUE(refused([](auto& s) { s.path_id = "a\nb"; }));
  EXPECT_TRUE(refused([](auto& s) { s.path_id = "seventeen-letters"; }));
  EXPECT_TRUE(refused([](auto& s) { s.checkpoint.origin = ""; }));
  EXPECT_TRUE(refused([](auto& s) { s.checkpoint.origin = "a\n1"; }));
  EXPECT_TRUE(refused([](auto& s) { s.checkpoint.origin = std::string(193, 'a'); }));
  EXPECT_TRUE(refused([](auto& s) { s.time = 253402300800; }));  // the year 10000
}

TEST(Drill, OnlyTheCanonicalTextIsRead) {
  const auto with = [](std::string_view from, std::string_view to) {
    std::string text(kText);
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  for (const std::string& bad :
       {std::string(), std::string("keyescrow-drill/1\n"), std::string(kText) + "\n",
        std::string(kText.substr(0, kText.size() - 1)), with("drill/1", "drill/2"),
        with("\n41\n", "\n041\n"), with("\n41\n", "\n+41\n"), with("\n41\n", "\n\n"),
        with("\n41\n", "\n18446744073709551616\n"), with("\n-\n", "\n\n"),
        with("\n-\n", "\nAAAA\n"), with("IiI=", "IiI"), with("ERE\n", "ERF\n"),
        with("2026-11-25", "2026-11-31"), with("token-ops", "token ops"), with("\n-\n", "\r\n-\n"),
        std::string(2000, '\n')}) {
    const auto read = ParseDrillStatement(bad);
    ASSERT_FALSE(read) << bad;
    EXPECT_EQ(read.error().code(), ErrorCode::kLogDamaged) << bad;
  }
}

}  // namespace
}  // namespace keyescrow::envelope
