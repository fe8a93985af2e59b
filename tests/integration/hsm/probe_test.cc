#include "hsm/probe.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "hsm/module.h"
#include "hsm/token_client.h"
#include "hsm/uri.h"
#include "tests/integration/hsm/harness.h"

namespace keyescrow::hsm {
namespace {

using simulators::FixedPin;
using simulators::SoftHsmFixture;

class Probe : public testing::Test {
 protected:
  void SetUp() override {
    fixture_.AddToken("ops", kPin);
    descriptors_ = NumOpenDescriptors();
  }
  void TearDown() override { ExpectNothingLeft(descriptors_); }

  ProbeSpec Spec(const std::string& uri = "") {
    return {SoftHsmFixture::ModulePath(), {}, uri, false};
  }

  SoftHsmFixture fixture_;
  FixedPin pins_{kPin};
  std::size_t descriptors_ = 0;
};

TEST_F(Probe, DescribesModuleAndTokens) {
  const auto report = InspectModule(Spec());
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_EQ(report->manufacturer, "SoftHSM");
  EXPECT_EQ(report->cryptoki_version, "2.40");
  EXPECT_EQ(report->num_uninitialized, 1U);
  ASSERT_EQ(report->tokens.size(), 1U);
  const TokenInfo& token = report->tokens[0];
  EXPECT_EQ(token.label, "ops");
  EXPECT_EQ(token.model, "SoftHSM v2");
  EXPECT_TRUE(token.software());
  EXPECT_TRUE(token.login_required());
  EXPECT_FALSE(token.locked());
}

TEST_F(Probe, GeneratesKeysThatNeverLeaveTheToken) {
  const auto rsa =
      GenerateKeyPair({Spec("pkcs11:token=ops"), GeneratedKey::kRsa2048, {1}, "escrow-rsa"}, pins_);
  ASSERT_TRUE(rsa) << rsa.error().message();
  EXPECT_EQ(rsa->key.kind, KeyKind::kRsa);
  EXPECT_EQ(rsa->key.bits, 2048U);
  const auto ec =
      GenerateKeyPair({Spec("pkcs11:token=ops"), GeneratedKey::kP256, {2}, "escrow-ec"}, pins_);
  ASSERT_TRUE(ec) << ec.error().message();
  EXPECT_EQ(ec->key.spki.size(), 91U);
  for (const auto* found : {&*rsa, &*ec}) {
    const auto evidence = ReadKeyEvidence(SpecFor(found->key.spki), pins_);
    ASSERT_TRUE(evidence) << evidence.error().message();
    EXPECT_EQ(evidence->sensitive, true);
    EXPECT_EQ(evidence->extractable, false);
    EXPECT_EQ(evidence->always_sensitive, true);
    EXPECT_EQ(evidence->never_extractable, true);
    EXPECT_EQ(evidence->local, true);
    EXPECT_EQ(evidence->sign, false);
    EXPECT_EQ(evidence->unwrap, false);
    EXPECT_EQ(evidence->decrypt, found->key.kind == KeyKind::kRsa);
    EXPECT_EQ(evidence->derive, found->key.kind == KeyKind::kEcP256);
    EXPECT_EQ(evidence->key.id, found->key.id);
  }
  const auto again =
      GenerateKeyPair({Spec("pkcs11:token=ops"), GeneratedKey::kP256, {1}, "other"}, pins_);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), ErrorCode::kAlreadyExists);
}

TEST_F(Probe, ShowsNoPrivateKeyBeforeALogin) {
  for (const GeneratedKey kind : {GeneratedKey::kRsa2048, GeneratedKey::kP256}) {
    GenerateSpec spec;
    spec.where = Spec();
    spec.kind = kind;
    spec.id = {static_cast<std::uint8_t>(kind)};
    spec.label = "escrow";
    ASSERT_TRUE(GenerateKeyPair(spec, pins_));
  }
  const auto client = TokenClient::Start(SoftHsmFixture::ModulePath(), {}, {});
  ASSERT_TRUE(client);
  const auto report = (*client)->Report();
  ASSERT_TRUE(report);
  ASSERT_TRUE((*client)->OpenSession(report->tokens.at(0)));
  EXPECT_EQ((*client)->ListKeys(KeyClass::kPublic)->size(), 2U);
  EXPECT_EQ((*client)->ListKeys(KeyClass::kPrivate)->size(), 0U);
}

TEST_F(Probe, FindsTheOneKeyThatAUriNames) {
  EXPECT_EQ(FindPublicKey(Spec("pkcs11:token=ops")).error().code(), ErrorCode::kTokenKeyNotFound);
  const Bytes first = fixture_.GenerateP256("ops", kPin, 1);
  const Bytes second = fixture_.GenerateP256("ops", kPin, 2, "other");
  const auto ambiguous = FindPublicKey(Spec("pkcs11:token=ops"));
  ASSERT_FALSE(ambiguous);
  EXPECT_EQ(ambiguous.error().code(), ErrorCode::kTokenKeyAmbiguous);
  EXPECT_NE(ambiguous.error().hint().find("id=%01"), std::string::npos);
  const auto by_id = FindPublicKey(Spec("pkcs11:id=%01"));
  ASSERT_TRUE(by_id) << by_id.error().message();
  EXPECT_EQ(by_id->key.spki, first);
  const auto by_label = FindPublicKey(Spec("pkcs11:object=other"));
  ASSERT_TRUE(by_label);
  EXPECT_EQ(by_label->key.spki, second);
  EXPECT_TRUE(ParseUri(TokenUri(by_id->token, by_id->key)));
  EXPECT_EQ(FindPublicKey(Spec("pkcs11:token=nobody")).error().code(), ErrorCode::kTokenNotFound);
  fixture_.AddToken("ops", kPin);
  EXPECT_EQ(FindPublicKey(Spec("pkcs11:token=ops;id=%01")).error().code(),
            ErrorCode::kTokenAmbiguous);
}

// One that was left out could be the one that is meant, or the second of two that cannot be told
// apart.
TEST_F(Probe, LeavesNoTokenOut) {
  for (int number = 0; number < 66; ++number) fixture_.AddToken("t" + std::to_string(number), kPin);
  const auto tokens = ListTokens(SoftHsmFixture::ModulePath());
  ASSERT_TRUE(tokens) << tokens.error().message();
  EXPECT_EQ(tokens->size(), 67U);
}

TEST_F(Probe, ListsMoreKeysThanOneMessageHolds) {
  for (std::uint8_t id = 1; id <= 20; ++id) fixture_.GenerateP256("ops", kPin, id);
  const auto keys = ReadPublicKeys(Spec());
  ASSERT_TRUE(keys);
  EXPECT_EQ(keys->size(), 20U);
}

// Stock: pkcs11-tool opens what the envelope wraps, and openssl reads the same public key.
TEST_F(Probe, Pkcs11ToolOpensWhatWasWrapped) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  const SecretBytes secret = FreshSecret();
  const auto record = WrapRsa(spki, secret, OaepHash::kSha1);
  const std::string wrapped = fixture_.folder() + "/wrapped";
  const std::string opened = fixture_.folder() + "/opened";
  std::ofstream(wrapped, std::ios::binary) << AsText(record.wrapped);
  const std::string command =
      "pkcs11-tool --module " + SoftHsmFixture::ModulePath() + " --token-label ops --login --pin " +
      kPin + " --id 01 --decrypt -m RSA-PKCS-OAEP --hash-algorithm SHA-1 --mgf MGF1-SHA1 -i " +
      wrapped + " -o " + opened + " >/dev/null 2>&1";
  ASSERT_EQ(std::system(command.c_str()), 0);
  std::ifstream file(opened, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_EQ(text, AsText(secret.Expose()));
}

// SetNssPin gives a fresh NSS database its user PIN, as `certutil -N` does, in a child of its own.
bool SetNssPin(const ProbeSpec& nss) {
  const pid_t child = fork();
  if (child == 0) {
    Module module;
    if (module.Load(nss.module_path, nss.module_arguments) != LoadOutcome::kLoaded) _exit(1);
    constexpr CK_SLOT_ID kDatabase = 2;
    CK_SESSION_HANDLE session = 0;
    std::string pin = kPin;
    CK_BYTE none = 0;
    const bool done =
        module->C_OpenSession(kDatabase, CKF_SERIAL_SESSION | CKF_RW_SESSION, nullptr, nullptr,
                              &session) == CKR_OK &&
        module->C_Login(session, CKU_SO, &none, 0) == CKR_OK &&
        module->C_InitPIN(session, reinterpret_cast<CK_BYTE*>(pin.data()), pin.size()) == CKR_OK;
    _exit(done ? 0 : 2);
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// Two tokens of SoftHSM and one of NSS, three workers and two modules at once.
TEST_F(Probe, ServesTwoModulesAndThreeTokensAtOnce) {
  fixture_.AddToken("backup", kPin);
  const Bytes ops = fixture_.GenerateP256("ops", kPin, 1);
  const Bytes backup = fixture_.GenerateRsa("backup", kPin, 1);
  std::filesystem::create_directory(fixture_.folder() + "/nss");
  ProbeSpec nss;
  nss.module_path = "libsoftokn3.so";
  nss.module_arguments = "configdir='sql:" + fixture_.folder() +
                         "/nss' certPrefix='' keyPrefix='' secmod='secmod.db' flags=";
  nss.uri = "pkcs11:token=NSS%20Certificate%20DB";
  const auto report = InspectModule(nss);
  if (!report) GTEST_SKIP() << "no NSS softokn here: " << report.error().message();
  ASSERT_TRUE(SetNssPin(nss));
  const auto made = GenerateKeyPair({nss, GeneratedKey::kRsa2048, {9}, "escrow"}, pins_);
  ASSERT_TRUE(made) << made.error().message();

  TokenSpec nss_spec;
  nss_spec.module_path = nss.module_path;
  nss_spec.module_arguments = nss.module_arguments;
  nss_spec.uri = nss.uri;
  nss_spec.spki = made->key.spki;
  auto first = TokenFactor::Start(SpecFor(ops), pins_);
  auto second = TokenFactor::Start(SpecFor(backup), pins_);
  auto third = TokenFactor::Start(nss_spec, pins_);
  ASSERT_TRUE(first && second && third);
  for (int round = 0; round < 3; ++round) {
    SecretBytes expected;
    const auto record = WrapEcdh(ops, expected);
    const auto derived = (*first)->DeriveEcdh(record);
    ASSERT_TRUE(derived);
    EXPECT_TRUE(derived->EqualsConstantTime(expected));
    const SecretBytes secret = FreshSecret();
    const auto by_softhsm = (*second)->UnwrapRsa(WrapRsa(backup, secret));
    ASSERT_TRUE(by_softhsm);
    EXPECT_TRUE(by_softhsm->EqualsConstantTime(secret));
    const auto by_nss = (*third)->UnwrapRsa(WrapRsa(made->key.spki, secret));  // OAEP in NSS itself
    ASSERT_TRUE(by_nss) << by_nss.error().message();
    EXPECT_TRUE(by_nss->EqualsConstantTime(secret));
  }
  EXPECT_EQ((*first)->token().label, "ops");
  EXPECT_EQ((*second)->token().label, "backup");
}

}  // namespace
}  // namespace keyescrow::hsm
