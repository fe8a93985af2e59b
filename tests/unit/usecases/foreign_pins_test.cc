#include "agent/usecases/foreign_pins.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/usecases/foreign_escrow.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Sets = std::vector<std::vector<std::string>>;

std::string Fixture(const std::string& name) {
  std::ifstream file(KEYESCROW_SOURCE_DIR "/tests/fixtures/foreign/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string Jwe(const std::string& header) {
  return EncodeBase64Url(AsBytes(header)) + "..aXY.Y2lwaGVy.dGFn";
}
std::string Clevis(const std::string& pin, const std::string& config) {
  return Jwe(R"({"alg":"dir","clevis":{"pin":")" + pin + R"(",")" + pin + R"(":)" + config + "}}");
}
std::string Tang(const std::string& url) { return Clevis("tang", R"({"url":")" + url + R"("})"); }
std::string Tpm(const std::string& more = "") {
  return Clevis("tpm2", R"({"jwk_pub":"AA","jwk_priv":"AA")" + more + "}");
}
std::string Shares(const std::string& threshold, const std::vector<std::string>& jwes) {
  std::string list;
  for (const std::string& jwe : jwes) list += (list.empty() ? "\"" : ",\"") + jwe + "\"";
  return Clevis("sss", R"({"t":)" + threshold + R"(,"jwe":[)" + list + "]}");
}
// Nested puts sss pins, each of one member, around a tpm2 pin.
std::string Nested(int depth) { return depth == 0 ? Tpm() : Shares("1", {Nested(depth - 1)}); }

std::string Opens(const std::string& text) {
  const auto escrow = ParseClevisJwe(text);
  return escrow ? ForeignExpression(escrow->opens_by) : escrow.error().message();
}
std::optional<ForeignAnswer> Answer(const std::string& text) {
  const auto escrow = ParseClevisJwe(text);
  return escrow ? ForeignRecoverability(escrow->opens_by) : std::nullopt;
}

std::string Fault(const std::string& text) {
  const auto escrow = ParseClevisJwe(text);
  if (escrow) return "";
  EXPECT_EQ(escrow.error().code(), ErrorCode::kSourceUnreadable);
  return escrow.error().message();
}

TEST(ForeignEscrow, ReadsWhatClevisWrites) {
  const auto tpm = ParseClevisJwe(Fixture("tpm2.jwe"));
  ASSERT_TRUE(tpm) << tpm.error().message();
  EXPECT_EQ(tpm->kind, "clevis-tpm2");
  EXPECT_EQ(ForeignExpression(tpm->opens_by), "tpm (pcrs sha256:7)");
  const auto tang = ParseClevisJwe(Fixture("tang.jwe"));
  ASSERT_TRUE(tang) << tang.error().message();
  EXPECT_EQ(ForeignExpression(tang->opens_by), "tang:http://tang.example:7500");
  EXPECT_EQ(ForeignRecoverability(tang->opens_by)->survives, 0U);
  EXPECT_THAT(ForeignCaveats(tang->opens_by), ElementsAre(HasSubstr("network")));
  EXPECT_THAT(ForeignCaveats(tpm->opens_by), ElementsAre(HasSubstr("same PCRs")));

  const auto sss = ParseClevisJwe(Fixture("sss.jwe"));
  ASSERT_TRUE(sss) << sss.error().message();
  EXPECT_EQ(sss->kind, "clevis-sss");
  EXPECT_EQ(sss->opens_by.threshold, 2U);
  ASSERT_EQ(sss->opens_by.members.size(), 3U);
  const auto answer = ForeignRecoverability(sss->opens_by);
  ASSERT_TRUE(answer);
  // 2 of (the TPM, one Tang server, either of two others): any one may be lost.
  EXPECT_EQ(answer->survives, 1U);
  EXPECT_EQ(answer->withstands, 1U);
  EXPECT_THAT(answer->losses,
              testing::Contains(ElementsAre("tang:http://tang.example:7500", "tpm")));
  EXPECT_THAT(answer->thefts, testing::Contains(ElementsAre("tang:http://other.example", "tpm")));
  EXPECT_EQ(answer->thefts.size(), 5U);
}

TEST(ForeignEscrow, ReadsTheTokensOfAHeader) {
  std::map<std::string, std::string> found;
  const auto tokens = nlohmann::json::parse(Fixture("tokens.json"));
  for (const auto& [number, token] : tokens.items()) {
    const auto escrow = ParseLuksTokenJson(static_cast<unsigned>(std::stoul(number)), token.dump());
    ASSERT_TRUE(escrow) << escrow.error().message();
    ASSERT_TRUE(*escrow);
    EXPECT_EQ((*escrow)->item, "token " + number);
    EXPECT_EQ((*escrow)->slots.size(), 1U);
    found[(*escrow)->item + " " + (*escrow)->kind] = ForeignExpression((*escrow)->opens_by);
    // What the store keeps is the same, and has nothing of the blobs.
    const std::string kept = WriteForeignPins((*escrow)->opens_by, (*escrow)->slots);
    ForeignPin again;
    std::vector<unsigned> slots;
    ReadForeignPins(kept, again, slots);
    EXPECT_EQ(ForeignExpression(again), ForeignExpression((*escrow)->opens_by));
    EXPECT_EQ(slots, (*escrow)->slots);
    EXPECT_LT(kept.size(), 400U);
  }
  const std::map<std::string, std::string> expected = {
      {"token 0 systemd-recovery", "recovery-passphrase"},
      {"token 1 clevis-tpm2", "tpm (pcrs sha1:7)"},
      {"token 2 clevis-sss", "1 of (tpm (pcrs sha1:7), tang:http://tang.example:7500)"},
      {"token 3 systemd-tpm2", "tpm (pcrs sha256:0,7)"},
      {"token 4 systemd-tpm2", "tpm (pcrs sha256:7) & pin"},
      {"token 5 systemd-pkcs11", "token:pkcs11:token=ops;object=escrow (with its pin)"},
      {"token 6 systemd-fido2", found["token 6 systemd-fido2"]}};
  EXPECT_EQ(found, expected);
  EXPECT_THAT(found["token 6 systemd-fido2"], HasSubstr("with its pin, with a touch"));
  EXPECT_FALSE(*ParseLuksTokenJson(1, R"({"type":"luks2-keyring","keyslots":["0"]})"));
}

TEST(ForeignEscrow, BoundsWhatItReads) {
  EXPECT_EQ(Fault(Nested(3)), "");
  EXPECT_THAT(Fault(Nested(4)), HasSubstr("more than 4 deep"));
  EXPECT_EQ(Fault(Shares("2", std::vector(63, Tpm()))), "");
  EXPECT_THAT(Fault(Shares("2", std::vector(64, Tpm()))), HasSubstr("more than 64 pins"));
  EXPECT_THAT(Fault(Shares("2", std::vector(65, Tpm()))), HasSubstr("more than 64 pins"));
  for (const char* threshold : {"0", "2", "-1", "1.5", "\"1\"", "18446744073709551617", "null"}) {
    EXPECT_THAT(Fault(Shares(threshold, {Tpm()})), HasSubstr("threshold")) << threshold;
  }
  EXPECT_THAT(Fault(Shares("1", {})), HasSubstr("threshold"));
  EXPECT_THAT(Fault(Clevis("sss", R"({"t":1,"jwe":[7]})")), HasSubstr("no JWE"));
  EXPECT_THAT(Fault(Shares("1", {"eyJ9"})), HasSubstr("five parts"));
  EXPECT_THAT(Fault("eyJ9.."), HasSubstr("five parts"));
  EXPECT_THAT(Fault("ey*....."), HasSubstr("five parts"));
  EXPECT_THAT(Fault("ey*...."), HasSubstr("base64url"));
  EXPECT_THAT(Fault("eyJ9..aXY.."), HasSubstr("empty"));
  EXPECT_THAT(Fault("eyJ9e..aXY.Y2lwaGVy.dGFn"), HasSubstr("base64url"));  // not canonical
  EXPECT_THAT(Fault(Jwe("{}")), HasSubstr("not one of clevis"));
  EXPECT_THAT(Fault(Jwe("[]")), HasSubstr("no JSON object"));
  EXPECT_THAT(Fault(Jwe("{\"a\":\"\xff\"}")), HasSubstr("no JSON object"));
  EXPECT_THAT(Fault(Jwe(std::string(40, '['))), HasSubstr("too deep"));
  EXPECT_THAT(Fault(Jwe(R"({"clevis":7})")), HasSubstr("names no pin"));
  EXPECT_THAT(Fault(Clevis("tang", R"({"url":7})")), HasSubstr("no server"));
  EXPECT_THAT(Fault(Tang(std::string(1025, 'a'))), HasSubstr("1024 bytes"));
  EXPECT_THAT(Fault(Clevis(std::string(65, 'a'), "{}")), HasSubstr("64 bytes"));
  EXPECT_THAT(Fault(Clevis("tpm2", "{}")), HasSubstr("no sealed key"));
  for (const char* pcrs : {"24", "007", "7;8", "7 ) & tang:x", "-1", "7,,8"}) {
    EXPECT_THAT(Fault(Tpm(R"(,"pcr_ids":")" + std::string(pcrs) + "\"")), HasSubstr("PCRs"))
        << pcrs;
  }
  EXPECT_THAT(Fault(Tpm(R"(,"pcr_ids":"7","pcr_bank":"sha256) & tang:x")")), HasSubstr("bank"));
  EXPECT_THAT(Fault(Clevis("x", "\"" + std::string(300 << 10, 'a') + "\"")), HasSubstr("256 KiB"));
}

TEST(ForeignEscrow, RefusesAMemberTwice) {
  EXPECT_THAT(Fault(Jwe(R"({"clevis":{"pin":"null"},"clevis":{"pin":"tpm2"}})")),
              HasSubstr("twice"));
  EXPECT_THAT(Fault(Clevis("tang", R"({"url":"http://a","\u0075rl":"http://b"})")),
              HasSubstr("twice"));
  EXPECT_FALSE(
      ParseLuksTokenJson(0, R"({"type":"systemd-recovery","type":"other","keyslots":[]})"));
}

TEST(ForeignEscrow, ANameReadsAsNoOtherFactor) {
  EXPECT_EQ(Opens(Tang("http://a & tpm")), "tang:http://a%20%26%20tpm");
  EXPECT_EQ(Opens(Shares("1", {Tang("a), token:ops (b"), Tpm()})),
            "1 of (tang:a%29%2C%20token:ops%20%28b, tpm)");
  EXPECT_EQ(Opens(Tang("http://\\u202eb\\u0000")), "tang:http://%E2%80%AEb%00");
  EXPECT_EQ(Opens(Clevis("tpm2 ", "{}")), "unknown:tpm2%20");
}

TEST(ForeignEscrow, ReckonsExactly) {
  // One server counts for both of its members.
  const auto twins = Answer(Shares("2", {Tang("a"), Tang("a"), Tang("b")}));
  ASSERT_TRUE(twins);
  EXPECT_EQ(twins->thefts, (Sets{{"tang:a"}}));
  EXPECT_EQ(twins->losses, (Sets{{"tang:a"}}));
  // (a & b) or c, and d: nothing but d is in each way.
  const auto nested = Answer(
      Shares("2", {Shares("1", {Shares("2", {Tang("a"), Tang("b")}), Tang("c")}), Tang("d")}));
  ASSERT_TRUE(nested);
  EXPECT_EQ(nested->losses, (Sets{{"tang:d"}, {"tang:a", "tang:c"}, {"tang:b", "tang:c"}}));
  EXPECT_EQ(nested->thefts, (Sets{{"tang:c", "tang:d"}, {"tang:a", "tang:b", "tang:d"}}));
  EXPECT_EQ(nested->survives, 0U);
  EXPECT_EQ(nested->withstands, 1U);
  // Sixteen servers are reckoned with, where the sets can be told; more are not.
  std::vector<std::string> servers;
  for (char c = 'a'; c < 'a' + 16; ++c) servers.push_back(Tang(std::string(1, c)));
  EXPECT_EQ(Answer(Shares("16", servers))->losses.size(), 16U);
  EXPECT_FALSE(Answer(Shares("8", servers)));
  servers.push_back(Tang("z"));
  EXPECT_FALSE(Answer(Shares("17", servers)));
}

TEST(ForeignEscrow, SaysWhenItCannotSay) {
  EXPECT_EQ(ParseClevisJwe(Clevis("yubikey", "{}"))->kind, "clevis-yubikey");
  EXPECT_EQ(Opens(Clevis("yubikey", "{}")), "unknown:yubikey");
  EXPECT_FALSE(Answer(Clevis("yubikey", "{}")));
  EXPECT_FALSE(Answer(Shares("1", {Tpm(), Clevis("yubikey", "{}")})));
  EXPECT_EQ(Opens(Clevis("null", "{}")), "nothing");
  EXPECT_TRUE(Answer(Clevis("null", "{}"))->open);
  EXPECT_TRUE(Answer(Shares("1", {Tpm(), Clevis("null", "{}")}))->open);
  EXPECT_EQ(Answer(Shares("2", {Tpm(), Clevis("null", "{}")}))->thefts, (Sets{{"tpm"}}));
}

TEST(ForeignEscrow, RefusesATokenThatIsNotAsItsToolWritesIt) {
  const auto fault = [](const std::string& json) {
    const auto token = ParseLuksTokenJson(1, json);
    return token ? (*token ? "read" : "passed over") : token.error().message();
  };
  EXPECT_EQ(fault(R"({"type":"luks2-keyring","keyslots":["0"]})"), "passed over");
  EXPECT_EQ(fault(R"({"type":["clevis"]})"), "passed over");
  EXPECT_THAT(fault(R"({"type":"systemd-recovery"})"), HasSubstr("keyslots"));
  for (const char* slots : {R"(["32"])", R"(["01"])", R"([0])", R"(["0","0"])", R"("0")"}) {
    EXPECT_THAT(fault(R"({"type":"systemd-recovery","keyslots":)" + std::string(slots) + "}"),
                HasSubstr("keyslots"))
        << slots;
  }
  EXPECT_THAT(fault(R"({"type":"clevis","keyslots":[],"jwe":{"protected":7}})"), HasSubstr("JWE"));
  EXPECT_THAT(fault(R"({"type":"systemd-tpm2","keyslots":[]})"), HasSubstr("sealed key"));
  EXPECT_THAT(fault(R"({"type":"systemd-tpm2","keyslots":[],"tpm2-blob":"A","tpm2-pcrs":["7"]})"),
              HasSubstr("PCRs"));
  EXPECT_THAT(fault(R"({"type":"systemd-pkcs11","keyslots":[]})"), HasSubstr("PKCS#11"));
  EXPECT_THAT(fault(R"({"type":"systemd-fido2","keyslots":[]})"), HasSubstr("credential"));
}

TEST(ForeignEscrow, ARowThatDoesNotParseIsUnknown) {
  for (const char* row : {"", "{}", R"({"kind":"tpm"})", R"({"kind":"tpm","slots":[99]})",
                          R"({"kind":"threshold","threshold":3,"members":[],"slots":[]})"}) {
    ForeignPin pin;
    std::vector<unsigned> slots;
    ReadForeignPins(row, pin, slots);
    EXPECT_EQ(pin.kind, ForeignPin::Kind::kUnknown) << row;
    EXPECT_TRUE(slots.empty());
    EXPECT_FALSE(ForeignRecoverability(pin));
  }
}

}  // namespace
}  // namespace keyescrow::agent
