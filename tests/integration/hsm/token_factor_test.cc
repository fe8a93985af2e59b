#include "hsm/token_factor.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "hsm/cryptoki.h"
#include "hsm/probe.h"
#include "hsm/token_client.h"
#include "hsm/token_location.h"
#include "tests/integration/hsm/harness.h"

namespace keyescrow::hsm {
namespace {

using simulators::FixedPin;
using simulators::SoftHsmFixture;

class TokenFactorTest : public testing::Test {
 protected:
  void SetUp() override {
    fixture_.AddToken("ops", kPin);
    descriptors_ = NumOpenDescriptors();
  }
  void TearDown() override { ExpectNothingLeft(descriptors_); }

  // ErrorOf starts a factor, unwraps, and returns the error.
  Error ErrorOf(const TokenSpec& spec, const Bytes& spki, envelope::PinProvider& pins,
                const TokenWorkerOptions& options = {}) {
    auto factor = TokenFactor::Start(spec, pins, options);
    if (!factor) return factor.error();
    auto secret = (*factor)->UnwrapRsa(WrapRsa(spki, FreshSecret()));
    if (secret) {
      ADD_FAILURE() << "it opened";
      std::abort();
    }
    return secret.error();
  }

  SoftHsmFixture fixture_;
  FixedPin pins_{kPin};
  std::size_t descriptors_ = 0;
};

TEST_F(TokenFactorTest, UnwrapsOaepSha256ByRawRsa) {
  for (const unsigned bits : {2048U, 3072U}) {
    const Bytes spki =
        fixture_.GenerateRsa("ops", kPin, static_cast<std::uint8_t>(bits >> 8), bits);
    const SecretBytes secret = FreshSecret();
    auto factor = TokenFactor::Start(SpecFor(spki, "pkcs11:token=ops"), pins_);
    ASSERT_TRUE(factor);
    ASSERT_TRUE((*factor)->Locate());
    EXPECT_EQ((*factor)->token().label, "ops");
    EXPECT_TRUE((*factor)->token().software());
    auto unwrapped = (*factor)->UnwrapRsa(WrapRsa(spki, secret));
    ASSERT_TRUE(unwrapped) << unwrapped.error().message();
    EXPECT_TRUE(unwrapped->EqualsConstantTime(secret));
  }
  EXPECT_EQ(pins_.num_asked, 2);
  EXPECT_EQ(pins_.last.token_name, "ops");
}

TEST_F(TokenFactorTest, UnwrapsOaepSha1InTheToken) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  const SecretBytes secret = FreshSecret();
  auto factor = TokenFactor::Start(SpecFor(spki), pins_);
  ASSERT_TRUE(factor);
  auto unwrapped = (*factor)->UnwrapRsa(WrapRsa(spki, secret, OaepHash::kSha1));
  ASSERT_TRUE(unwrapped) << unwrapped.error().message();
  EXPECT_TRUE(unwrapped->EqualsConstantTime(secret));
}

TEST_F(TokenFactorTest, ServesManyOperationsWithOneLogin) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  auto factor = TokenFactor::Start(SpecFor(spki), pins_);
  ASSERT_TRUE(factor);
  for (int round = 0; round < 20; ++round) {
    const SecretBytes secret = FreshSecret();
    auto unwrapped = (*factor)->UnwrapRsa(WrapRsa(spki, secret));
    ASSERT_TRUE(unwrapped);
    EXPECT_TRUE(unwrapped->EqualsConstantTime(secret));
  }
  EXPECT_EQ(pins_.num_asked, 1);
}

TEST_F(TokenFactorTest, DerivesEcdh) {
  const Bytes spki = fixture_.GenerateP256("ops", kPin, 2);
  auto factor = TokenFactor::Start(SpecFor(spki, "pkcs11:token=ops;id=%02"), pins_);
  ASSERT_TRUE(factor);
  for (int round = 0; round < 3; ++round) {
    SecretBytes secret;
    const auto record = WrapEcdh(spki, secret);
    auto derived = (*factor)->DeriveEcdh(record);
    ASSERT_TRUE(derived) << derived.error().message();
    EXPECT_TRUE(derived->EqualsConstantTime(secret));
  }
}

TEST_F(TokenFactorTest, RefusesAPointOffTheCurveBeforeAnyLogin) {
  const Bytes spki = fixture_.GenerateP256("ops", kPin, 2);
  SecretBytes secret;
  auto record = WrapEcdh(spki, secret);
  record.epk[64] ^= 1;
  auto factor = TokenFactor::Start(SpecFor(spki), pins_);
  ASSERT_TRUE(factor);
  auto derived = (*factor)->DeriveEcdh(record);
  ASSERT_FALSE(derived);
  EXPECT_EQ(derived.error().code(), ErrorCode::kFactorBad);
  EXPECT_EQ(pins_.num_asked, 0);
}

TEST_F(TokenFactorTest, RefusesASecretOfAnotherSize) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  auto factor = TokenFactor::Start(SpecFor(spki), pins_);
  ASSERT_TRUE(factor);
  auto unwrapped = (*factor)->UnwrapRsa(WrapRsa(spki, FreshSecret(31)));
  ASSERT_FALSE(unwrapped);
  EXPECT_EQ(unwrapped.error().code(), ErrorCode::kFactorBad);
}

TEST_F(TokenFactorTest, CallsACiphertextForAnotherKeyDataInvalid) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  auto record = WrapRsa(spki, FreshSecret());
  record.wrapped[100] ^= 1;
  auto factor = TokenFactor::Start(SpecFor(spki), pins_);
  ASSERT_TRUE(factor);
  auto unwrapped = (*factor)->UnwrapRsa(record);
  ASSERT_FALSE(unwrapped);
  EXPECT_EQ(unwrapped.error().code(), ErrorCode::kTokenDataInvalid);
  // The session is poisoned: no second operation, no second login.
  auto again = (*factor)->UnwrapRsa(WrapRsa(spki, FreshSecret()));
  ASSERT_FALSE(again);
  EXPECT_EQ(pins_.num_asked, 1);
}

TEST_F(TokenFactorTest, SpendsExactlyOneTryOnAWrongPin) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  FixedPin wrong("654321");
  {
    const Faults faults(fixture_, "");
    const Error error = ErrorOf(Faults::Through(SpecFor(spki)), spki, wrong);
    EXPECT_EQ(error.code(), ErrorCode::kWrongPin);
    EXPECT_EQ(error.action(), Action::kReauthenticate);
    EXPECT_EQ(error.native_domain(), "CKR");
    EXPECT_EQ(error.native_code(), CKR_PIN_INCORRECT);
    EXPECT_EQ(faults.NumCalls("C_Login"), 1);
  }
  auto tokens = ListTokens(SoftHsmFixture::ModulePath());
  ASSERT_TRUE(tokens);
  EXPECT_TRUE(tokens->at(0).pin_count_low());
  EXPECT_EQ(wrong.num_asked, 1);
}

TEST_F(TokenFactorTest, SendsNoEmptyOrUnacceptablePin) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  const Faults faults(fixture_, "");
  FixedPin empty("");
  EXPECT_EQ(ErrorOf(Faults::Through(SpecFor(spki)), spki, empty).code(), ErrorCode::kPinEmpty);
  FixedPin too_short("123");
  EXPECT_EQ(ErrorOf(Faults::Through(SpecFor(spki)), spki, too_short).code(),
            ErrorCode::kPinInvalid);
  FixedPin too_long(std::string(256, '1'));
  EXPECT_EQ(ErrorOf(Faults::Through(SpecFor(spki)), spki, too_long).code(), ErrorCode::kPinInvalid);
  EXPECT_EQ(faults.NumCalls("C_Login"), 0);
}

TEST_F(TokenFactorTest, AsksForNoPinWhereTheTokenIsLocked) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  const Faults faults(fixture_, "C_GetTokenInfo@0=flags:40000");
  const Error error = ErrorOf(Faults::Through(SpecFor(spki)), spki, pins_);
  EXPECT_EQ(error.code(), ErrorCode::kPinLocked);
  EXPECT_EQ(error.action(), Action::kWaitForLockout);
  EXPECT_EQ(pins_.num_asked, 0);
  EXPECT_EQ(faults.NumCalls("C_Login"), 0);
}

TEST_F(TokenFactorTest, SpendsTheLastTryOnlyWhenTold) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  const Faults faults(fixture_, "C_GetTokenInfo@0=flags:20000");
  TokenSpec spec = Faults::Through(SpecFor(spki));
  EXPECT_EQ(ErrorOf(spec, spki, pins_).code(), ErrorCode::kPinLastTry);
  EXPECT_EQ(faults.NumCalls("C_Login"), 0);
  spec.use_last_try = true;
  auto factor = TokenFactor::Start(spec, pins_);
  ASSERT_TRUE(factor);
  EXPECT_TRUE((*factor)->UnwrapRsa(WrapRsa(spki, FreshSecret())));
  EXPECT_TRUE(pins_.last.final_try);
}

TEST_F(TokenFactorTest, SendsNoPinToAReaderWithAPad) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  const Faults faults(fixture_, "C_GetTokenInfo@0=flags:100,C_Login@1=rv:50");
  const Error error = ErrorOf(Faults::Through(SpecFor(spki)), spki, pins_);
  EXPECT_EQ(error.code(), ErrorCode::kTokenCancelled);
  EXPECT_EQ(pins_.num_asked, 0);
  EXPECT_EQ(pins_.num_on_reader, 1);
}

TEST_F(TokenFactorTest, TreatsAlreadyLoggedInAsAnError) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  const Faults faults(fixture_, "C_Login@1=rv:100");
  EXPECT_EQ(ErrorOf(Faults::Through(SpecFor(spki)), spki, pins_).code(),
            ErrorCode::kTokenLoginState);
}

TEST_F(TokenFactorTest, NamesTheTokenThatIsNotThere) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  SoftHsmFixture empty;
  empty.AddToken("other", kPin);
  const Error error = ErrorOf(SpecFor(spki, "pkcs11:token=ops;serial=0123"), spki, pins_);
  EXPECT_EQ(error.code(), ErrorCode::kTokenNotFound);
  EXPECT_EQ(error.action(), Action::kReconnect);
  EXPECT_NE(error.message().find("\"ops\""), std::string::npos) << error.message();
  EXPECT_EQ(pins_.num_asked, 0);
}

// What SoftHSM 2.6 does while another process logs in, without the race: the token is not among
// those that the module saw when it was loaded, and is there a moment later.
TEST_F(TokenFactorTest, LooksAgainForATokenThatAppears) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  const std::string tokens = fixture_.folder() + "/tokens";
  std::filesystem::rename(tokens, tokens + ".away");
  std::filesystem::create_directory(tokens);
  for (const bool by_key : {true, false}) {
    const auto client = TokenClient::Start(SoftHsmFixture::ModulePath(), {}, {});
    ASSERT_TRUE(client);
    const auto before = (*client)->Report();
    ASSERT_TRUE(before) << before.error().message();
    ASSERT_TRUE(before->tokens.empty());
    std::filesystem::remove_all(tokens);
    std::filesystem::rename(tokens + ".away", tokens);
    if (by_key) {
      const auto found = LocateToken(**client, std::nullopt, spki);
      EXPECT_TRUE(found) << found.error().message();
    } else {
      const auto found = FindToken(**client, std::nullopt);
      EXPECT_TRUE(found) << found.error().message();
    }
    EXPECT_EQ((*client)->Report()->tokens.size(), 1U);
    std::filesystem::rename(tokens, tokens + ".away");
    std::filesystem::create_directory(tokens);
  }
}

TEST_F(TokenFactorTest, LetsThePublicKeyDecideBetweenTokensOfOneLabel) {
  fixture_.AddToken("twin", kPin);
  const Bytes spki = fixture_.GenerateRsa("twin", kPin, 1);
  fixture_.AddToken("twin", kPin);
  const SecretBytes secret = FreshSecret();
  auto factor = TokenFactor::Start(SpecFor(spki, "pkcs11:token=twin"), pins_);
  ASSERT_TRUE(factor);
  auto unwrapped = (*factor)->UnwrapRsa(WrapRsa(spki, secret));
  ASSERT_TRUE(unwrapped) << unwrapped.error().message();
  EXPECT_TRUE(unwrapped->EqualsConstantTime(secret));
}

TEST_F(TokenFactorTest, LetsThePublicKeyOverruleWrongHints) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  fixture_.AddToken("decoy", kPin);
  for (const char* uri : {"pkcs11:token=renamed;serial=1", "pkcs11:token=decoy"}) {
    auto factor = TokenFactor::Start(SpecFor(spki, uri), pins_);
    ASSERT_TRUE(factor);
    EXPECT_TRUE((*factor)->UnwrapRsa(WrapRsa(spki, FreshSecret())));
    EXPECT_EQ((*factor)->token().label, "ops");
  }
}

TEST_F(TokenFactorTest, RefusesTwinsThatCannotBeToldApartBeforeAnyLogin) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  SoftHsmFixture twins;
  twins.AddToken("twin", kPin);
  twins.AddToken("twin", kPin);
  const Error error = ErrorOf(SpecFor(spki, "pkcs11:token=twin"), spki, pins_);
  EXPECT_EQ(error.code(), ErrorCode::kTokenAmbiguous);
  EXPECT_EQ(pins_.num_asked, 0);
}

// A copy of the key on another token may have another PIN: which of the two is meant is asked.
TEST_F(TokenFactorTest, RefusesTwoTokensThatShowTheKeyBeforeAnyLogin) {
  const Bytes spki = fixture_.GenerateP256("ops", kPin, 1);
  const std::filesystem::path tokens = fixture_.folder() + "/tokens";
  const std::filesystem::path first = std::filesystem::directory_iterator(tokens)->path();
  fixture_.AddToken("copy", kPin);
  for (const auto& token : std::filesystem::directory_iterator(tokens)) {
    if (token.path() == first) continue;
    for (const auto& file : std::filesystem::directory_iterator(first)) {
      const bool is_key =
          file.path().extension() == ".object" && file.path().filename() != "token.object";
      if (is_key) std::filesystem::copy(file.path(), token.path() / file.path().filename());
    }
  }
  for (const char* uri : {"", "pkcs11:manufacturer=SoftHSM%20project"}) {
    auto factor = TokenFactor::Start(SpecFor(spki, uri), pins_);
    ASSERT_TRUE(factor);
    SecretBytes secret;
    const auto derived = (*factor)->DeriveEcdh(WrapEcdh(spki, secret));
    ASSERT_FALSE(derived);
    EXPECT_EQ(derived.error().code(), ErrorCode::kTokenAmbiguous) << derived.error().message();
    EXPECT_NE(derived.error().message().find("hold the wanted key"), std::string::npos);
  }
  EXPECT_EQ(pins_.num_asked, 0);
}

TEST_F(TokenFactorTest, SaysThatTheKeyIsNotOnTheToken) {
  SoftHsmFixture other;
  other.AddToken("spare", kPin);
  const Bytes spki = other.GenerateRsa("spare", kPin, 1);
  SoftHsmFixture mine;
  mine.AddToken("ops", kPin);
  mine.GenerateRsa("ops", kPin, 1);  // the same id, another key
  const Error error = ErrorOf(SpecFor(spki, "pkcs11:token=ops;id=%01"), spki, pins_);
  EXPECT_EQ(error.code(), ErrorCode::kTokenKeyNotFound);
}

// A P-256 private key shows no public half: it is found by its id, which is one of those that
// copies of the public key have.
TEST_F(TokenFactorTest, FindsThePrivateKeyOfAPublicKeyThatIsThereMoreThanOnce) {
  const Bytes spki = fixture_.GenerateP256("ops", kPin, 5);
  for (std::uint8_t id = 1; id < 9; ++id) {
    if (id != 5) fixture_.CopyPublicKey("ops", kPin, 5, id);
  }
  auto factor = TokenFactor::Start(SpecFor(spki, "pkcs11:token=ops;id=%05"), pins_);
  ASSERT_TRUE(factor);
  SecretBytes secret;
  const auto record = WrapEcdh(spki, secret);
  const auto derived = (*factor)->DeriveEcdh(record);
  ASSERT_TRUE(derived) << derived.error().message();
  EXPECT_TRUE(derived->EqualsConstantTime(secret));
  EXPECT_TRUE(ReadKeyEvidence(SpecFor(spki), pins_));
}

TEST_F(TokenFactorTest, FinishLetsTheWorkerGo) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  auto factor = TokenFactor::Start(SpecFor(spki), pins_);
  ASSERT_TRUE(factor);
  ASSERT_TRUE((*factor)->UnwrapRsa(WrapRsa(spki, FreshSecret())));
  (*factor)->Finish();
  EXPECT_FALSE((*factor)->UnwrapRsa(WrapRsa(spki, FreshSecret())));
}

TEST_F(TokenFactorTest, TakesAWorkerThatWasStartedBeforeTheKeyWasKnown) {
  // The key is made first: SoftHSM reads another process's half-written object as a broken token.
  const Bytes spki = fixture_.GenerateP256("ops", kPin, 1);
  auto module = PreparedModule::Start(SoftHsmFixture::ModulePath());
  auto unused = PreparedModule::Start(SoftHsmFixture::ModulePath());
  ASSERT_TRUE(module && unused);
  auto factor = TokenFactor::Start(SpecFor(spki), pins_, *std::move(module));
  ASSERT_TRUE(factor);
  SecretBytes secret;
  const auto record = WrapEcdh(spki, secret);
  auto derived = (*factor)->DeriveEcdh(record);
  ASSERT_TRUE(derived) << derived.error().message();
  EXPECT_TRUE(derived->EqualsConstantTime(secret));
}

// The session is of the key that it was started for, whatever other keys the token has.
TEST_F(TokenFactorTest, UsesNoOtherKeyOfItsToken) {
  const Bytes rsa = fixture_.GenerateRsa("ops", kPin, 1);
  const Bytes other_rsa = fixture_.GenerateRsa("ops", kPin, 2);
  const Bytes p256 = fixture_.GenerateP256("ops", kPin, 3);
  const Faults faults(fixture_, "");
  auto factor = TokenFactor::Start(Faults::Through(SpecFor(rsa)), pins_);
  ASSERT_TRUE(factor);
  const auto unwrapped = (*factor)->UnwrapRsa(WrapRsa(other_rsa, FreshSecret()));
  ASSERT_FALSE(unwrapped);
  EXPECT_EQ(unwrapped.error().code(), ErrorCode::kInternal);
  SecretBytes secret;
  const auto derived = (*factor)->DeriveEcdh(WrapEcdh(p256, secret));
  ASSERT_FALSE(derived);
  EXPECT_EQ(derived.error().code(), ErrorCode::kInternal);
  EXPECT_EQ(faults.NumCalls("C_Login"), 0);
}

// What a token derived is an object of the session, in the clear to whoever may read it.
TEST_F(TokenFactorTest, DestroysWhatItDerived) {
  const Bytes spki = fixture_.GenerateP256("ops", kPin, 1);
  const Faults faults(fixture_, "");
  auto factor = TokenFactor::Start(Faults::Through(SpecFor(spki)), pins_);
  ASSERT_TRUE(factor);
  SecretBytes secret;
  const auto record = WrapEcdh(spki, secret);
  ASSERT_TRUE((*factor)->DeriveEcdh(record));
  EXPECT_EQ(faults.NumCalls("C_DestroyObject"), 1);
  ASSERT_TRUE((*factor)->DeriveEcdh(record));
  EXPECT_EQ(faults.NumCalls("C_DestroyObject"), 2);
}

TEST_F(TokenFactorTest, LogsOutBeforeItLeaves) {
  const Bytes spki = fixture_.GenerateRsa("ops", kPin, 1);
  const Faults faults(fixture_, "");
  {
    auto factor = TokenFactor::Start(Faults::Through(SpecFor(spki)), pins_);
    ASSERT_TRUE(factor);
    ASSERT_TRUE((*factor)->UnwrapRsa(WrapRsa(spki, FreshSecret())));
  }
  EXPECT_EQ(faults.NumCalls("C_Logout"), 1);
  EXPECT_EQ(faults.NumCalls("C_Login"), 1);
}

class AlwaysAuthenticate : public TokenFactorTest {
 protected:
  // Opens a factor of `spki` and uses it twice; returns the first error.
  Status UseTwice(const Bytes& spki, bool p256) {
    ASSIGN_OR_RETURN(auto factor, TokenFactor::Start(Faults::Through(SpecFor(spki)), pins_));
    std::optional<Error> first;
    for (int use = 0; use < 2; ++use) {
      SecretBytes expected = FreshSecret();
      const auto ecdh = p256 ? WrapEcdh(spki, expected) : envelope::Pkcs11EcdhRecord();
      auto secret = p256 ? factor->DeriveEcdh(ecdh) : factor->UnwrapRsa(WrapRsa(spki, expected));
      if (secret) {
        EXPECT_TRUE(secret->EqualsConstantTime(expected));
      } else if (!first) {
        first = secret.error();
      }
    }
    if (first) return *first;
    return Ok();
  }
};

// One PIN is asked for; it goes to the token at the login and at each use.
TEST_F(AlwaysAuthenticate, AKeyGetsItsPinAtEachUse) {
  const Bytes spki = fixture_.GenerateAlwaysAuthenticating("ops", kPin, 1, false);
  const Faults faults(fixture_, "");
  const Status used = UseTwice(spki, false);
  ASSERT_TRUE(used) << used.error().message();
  EXPECT_EQ(pins_.num_asked, 1);
  EXPECT_EQ(faults.NumCalls("C_Login"), 3);
}

// C_DeriveKey has no Init: where it says that it wants the PIN, it is asked once more.
TEST_F(AlwaysAuthenticate, ADerivationIsAskedForAgainWithThePin) {
  const Bytes spki = fixture_.GenerateAlwaysAuthenticating("ops", kPin, 1, true);
  // CKR_USER_NOT_LOGGED_IN once; SoftHSM knows no login for a derivation, so that is answered here.
  const Faults faults(fixture_, "C_DeriveKey@1=rv:101,C_Login@2=rv:0");
  const Status used = UseTwice(spki, true);
  ASSERT_TRUE(used) << used.error().message();
  EXPECT_EQ(pins_.num_asked, 1);
  EXPECT_EQ(faults.NumCalls("C_Login"), 2);
  EXPECT_EQ(faults.NumCalls("C_DeriveKey"), 3);
}

TEST_F(AlwaysAuthenticate, ARefusedPinIsNotSentAgain) {
  const Bytes rsa = fixture_.GenerateAlwaysAuthenticating("ops", kPin, 1, false);
  const Bytes p256 = fixture_.GenerateAlwaysAuthenticating("ops", kPin, 2, true);
  for (const bool is_p256 : {false, true}) {
    std::filesystem::remove(fixture_.folder() + "/trace");
    const Faults faults(fixture_, "C_DeriveKey@1=rv:101,C_Login@2=rv:a0");
    const Status used = UseTwice(is_p256 ? p256 : rsa, is_p256);
    ASSERT_FALSE(used);
    EXPECT_EQ(used.error().code(), ErrorCode::kWrongPin) << used.error().message();
    EXPECT_EQ(faults.NumCalls("C_Login"), 2);
    EXPECT_EQ(faults.NumCalls("C_Decrypt"), 0);
  }
}

TEST_F(AlwaysAuthenticate, AWorkerThatDiesSaysThatATryMayHaveBeenUsed) {
  const Bytes spki = fixture_.GenerateAlwaysAuthenticating("ops", kPin, 1, false);
  const Faults faults(fixture_, "C_Login@2=exit");
  const Status used = UseTwice(spki, false);
  ASSERT_FALSE(used);
  EXPECT_EQ(used.error().code(), ErrorCode::kModuleFailed);
  EXPECT_NE(used.error().message().find("so one PIN try may have been used"), std::string::npos)
      << used.error().message();
  EXPECT_EQ(faults.NumCalls("C_Login"), 2);
}

}  // namespace
}  // namespace keyescrow::hsm
