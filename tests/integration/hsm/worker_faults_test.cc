// What becomes of a module that hangs, crashes, leaves or lies: an error with a name, nothing left.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <future>
#include <optional>
#include <thread>

#include "hsm/cryptoki.h"
#include "hsm/login_turn.h"
#include "hsm/probe.h"
#include "hsm/token_factor.h"
#include "tests/integration/hsm/harness.h"
#include "tests/slowness.h"

namespace keyescrow::hsm {
namespace {

using simulators::FixedPin;
using simulators::SoftHsmFixture;

class WorkerFaults : public testing::Test {
 protected:
  void SetUp() override {
    fixture_.AddToken("ops", kPin);
    spki_ = fixture_.GenerateP256("ops", kPin, 1);
    descriptors_ = NumOpenDescriptors();
  }
  void TearDown() override { ExpectNothingLeft(descriptors_); }

  // Derive opens a P-256 factor through the faulty module.
  Result<SecretBytes> Derive(std::chrono::milliseconds deadline = std::chrono::seconds(10)) {
    TokenWorkerOptions options;
    options.operation_deadline = options.reader_deadline = deadline;
    ASSIGN_OR_RETURN(auto factor,
                     TokenFactor::Start(Faults::Through(SpecFor(spki_)), pins_, options));
    SecretBytes expected;
    const auto record = WrapEcdh(spki_, expected);
    auto secret = factor->DeriveEcdh(record);
    if (secret) {
      EXPECT_TRUE(secret->EqualsConstantTime(expected)) << "a wrong secret";
    }
    return secret;
  }

  SoftHsmFixture fixture_;
  Bytes spki_;
  FixedPin pins_{kPin};
  std::size_t descriptors_ = 0;
};

TEST_F(WorkerFaults, OpensWhereNothingIsWrong) {
  const Faults faults(fixture_, "");
  EXPECT_TRUE(Derive());
}

TEST_F(WorkerFaults, ALoginWaitsForAnothers) {
  const Faults faults(fixture_, "");
  const std::string module = Faults::Through(SpecFor(spki_)).module_path;
  {
    std::optional<LoginTurn> turn(LoginTurn::Take(module));
    ASSERT_TRUE(turn->is_ours());
    EXPECT_FALSE(LoginTurn::Take(module, std::chrono::milliseconds(5)).is_ours());
    auto derived = std::async(std::launch::async, [&] { return Derive(); });
    EXPECT_EQ(derived.wait_for(std::chrono::milliseconds(200)), std::future_status::timeout);
    turn.reset();
    EXPECT_TRUE(derived.get());
  }
  // What cannot be locked is no reason not to log in.
  EXPECT_FALSE(LoginTurn::Take(module + ".not-there").is_ours());
  EXPECT_TRUE(Derive());
}

TEST_F(WorkerFaults, KillAHangingModuleAtItsDeadline) {
  for (const char* rules : {"C_Initialize@1=hang", "C_GetSlotList@1=hang", "C_OpenSession@1=hang",
                            "C_Login@1=hang", "C_DeriveKey@1=hang"}) {
    const Faults faults(fixture_, rules);
    const auto begin = std::chrono::steady_clock::now();
    const auto secret = Derive(std::chrono::milliseconds(1500));
    ASSERT_FALSE(secret) << rules;
    EXPECT_EQ(secret.error().code(), ErrorCode::kTokenTimeout) << rules;
    EXPECT_LT(std::chrono::steady_clock::now() - begin, kSlowness * std::chrono::seconds(12))
        << rules;
    const bool says_try =
        secret.error().message().find("PIN try may have been used") != std::string::npos;
    EXPECT_EQ(says_try, std::string(rules).starts_with("C_Login")) << secret.error().message();
    ExpectNothingLeft(descriptors_);
  }
}

// As where a driver hangs in the kernel: nothing ends such a process, and nothing waits for it.
TEST_F(WorkerFaults, WaitForNoWorkerThatDoesNotDie) {
  const Faults faults(fixture_, "C_OpenSession@1=stuck");
  const auto begin = std::chrono::steady_clock::now();
  const auto secret = Derive(std::chrono::milliseconds(1500));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kSlowness * std::chrono::seconds(20));
  ASSERT_FALSE(secret);
  EXPECT_EQ(secret.error().code(), ErrorCode::kTokenTimeout) << secret.error().message();
  std::ofstream(fixture_.folder() + "/trace.release").put('1');
  while (waitpid(-1, nullptr, 0) > 0) continue;
}

TEST_F(WorkerFaults, NameTheSignalOfACrash) {
  // AddressSanitizer would catch it in the worker, and exit.
  setenv("ASAN_OPTIONS", "handle_segv=0", 1);
  for (const char* rules : {"C_Initialize@1=crash", "C_FindObjects@1=crash", "C_Login@1=crash",
                            "C_DeriveKey@1=crash"}) {
    const Faults faults(fixture_, rules);
    const auto secret = Derive();
    ASSERT_FALSE(secret) << rules;
    EXPECT_EQ(secret.error().code(), ErrorCode::kModuleFailed) << rules;
    EXPECT_NE(secret.error().message().find("SIGSEGV"), std::string::npos)
        << secret.error().message();
    ExpectNothingLeft(descriptors_);
  }
}

TEST_F(WorkerFaults, NoticeAModuleThatLeavesOrLies) {
  // Of TokenRequest::kDeriveEcdh: kOk, not S, 32 bytes, and one more.
  const std::string one_more = "C_DeriveKey@1=send:0800000020" + std::string(64, '5') + "00";
  for (const std::string& rules :
       {std::string("C_DeriveKey@1=exit"), std::string("C_Initialize@1=garbage"),
        std::string("C_Login@1=garbage"), std::string("C_DeriveKey@1=garbage"),
        std::string("C_DeriveKey@1=close"), one_more}) {
    const Faults faults(fixture_, rules);
    const auto secret = Derive();
    ASSERT_FALSE(secret) << rules;
    EXPECT_EQ(secret.error().code(), ErrorCode::kModuleFailed) << rules;
    ExpectNothingLeft(descriptors_);
  }
}

TEST_F(WorkerFaults, ALogoutThatHangsDelaysTheEndByASecondAtMost) {
  const Faults faults(fixture_, "C_Logout@1=hang");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(Derive());
  EXPECT_LT(std::chrono::steady_clock::now() - begin, kSlowness * std::chrono::seconds(10));
}

// The n-th call of every function fails, for every n of a whole use: no secret, no second login, an
// error with an action; or the failure does not matter.
TEST_F(WorkerFaults, EveryFunctionMayFailAtEveryCall) {
  for (const char* function :
       {"C_Initialize", "C_GetInfo", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession",
        "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal", "C_GetAttributeValue",
        "C_Login", "C_DeriveKey", "C_DestroyObject", "C_Logout", "C_CloseSession"}) {
    for (int call = 1; call < 40; ++call) {
      std::filesystem::remove(fixture_.folder() + "/trace");
      // CKR_DEVICE_REMOVED: no workaround is tried after it.
      const Faults faults(fixture_, std::string(function) + "@" + std::to_string(call) + "=rv:32");
      const auto secret = Derive();
      EXPECT_LE(faults.NumCalls("C_Login"), 1) << function << " " << call;
      if (!secret) {
        EXPECT_NE(secret.error().code(), ErrorCode::kInternal) << function << " " << call;
        EXPECT_FALSE(secret.error().hint().empty());
      }
      ExpectNothingLeft(descriptors_);
      if (faults.NumCalls(function) < call) break;
    }
  }
}

// The private keys are asked for in the same breath as the login; one that is refused ends there.
TEST_F(WorkerFaults, AskNothingOfATokenThatRefusedTheLogin) {
  const Faults faults(fixture_, "C_Login@1=rv:a0");  // CKR_PIN_INCORRECT
  const auto secret = Derive();
  ASSERT_FALSE(secret);
  EXPECT_EQ(secret.error().code(), ErrorCode::kWrongPin);
  EXPECT_EQ(faults.NumCalls("C_Login"), 1);
  EXPECT_EQ(faults.NumCalls("C_FindObjectsInit"), 1) << "the public keys, before the login";
}

TEST_F(WorkerFaults, ReadTheFlagsAgainWhereTheyAreNotFresh) {
  std::array<int, 2> num_calls{};
  for (const bool waits : {false, true}) {
    std::filesystem::remove(fixture_.folder() + "/trace");
    const Faults faults(fixture_, waits ? "C_FindObjects@1=delay:300" : "");
    ASSERT_TRUE(Derive());
    num_calls.at(waits ? 1 : 0) = faults.NumCalls("C_GetTokenInfo");
  }
  EXPECT_GT(num_calls[1], 1);
  EXPECT_LE(num_calls[0], num_calls[1]) << "a machine that is slow today reads them again too";
}

// As SoftHSM does in the moment of another process's login.
TEST_F(WorkerFaults, AskAgainForFlagsThatCouldNotBeRead) {
  const std::string waits = "C_FindObjects@1=delay:300";
  {
    const Faults faults(fixture_, waits);
    ASSERT_TRUE(Derive());
  }
  const int last = Faults(fixture_, "").NumCalls("C_GetTokenInfo");
  std::filesystem::remove(fixture_.folder() + "/trace");
  const Faults faults(
      fixture_,
      waits + ",C_GetTokenInfo@" + std::to_string(last) + "=rv:5");  // GENERAL_ERROR
  EXPECT_TRUE(Derive());
  EXPECT_EQ(faults.NumCalls("C_GetTokenInfo"), last + 1);
  EXPECT_EQ(faults.NumCalls("C_Login"), 1);
}

// A token that was put in the other's place while its keys were looked at.
TEST_F(WorkerFaults, SendNoPinToATokenThatTookTheOthersPlace) {
  const std::string waits = "C_FindObjects@1=delay:300";
  {
    const Faults faults(fixture_, waits);
    ASSERT_TRUE(Derive());
  }
  const int last = Faults(fixture_, "").NumCalls("C_GetTokenInfo");
  std::filesystem::remove(fixture_.folder() + "/trace");
  const Faults faults(fixture_, waits + ",C_GetTokenInfo@" + std::to_string(last) + "=other");
  const int num_asked = pins_.num_asked;
  const auto secret = Derive();
  ASSERT_FALSE(secret);
  EXPECT_EQ(secret.error().code(), ErrorCode::kTokenRemoved) << secret.error().message();
  EXPECT_EQ(faults.NumCalls("C_Login"), 0);
  EXPECT_EQ(pins_.num_asked, num_asked);
}

// SlowPin takes as long as a person.
class SlowPin final : public envelope::PinProvider {
 public:
  Result<SecretBytes> AskPin(const envelope::PinRequest& /*request*/) override {
    ++num_asked;
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    return SecretBytes::CopyOf(AsBytes(kPin));
  }
  void OnReader(const envelope::PinRequest& /*request*/) override {}

  int num_asked = 0;
};

// What became of the token while its PIN was typed: its last try is left, it is locked, another is
// in its place.
TEST_F(WorkerFaults, SendNoPinToATokenThatChangedWhileItWasTyped) {
  SlowPin pins;
  const auto derive = [&]() -> Result<SecretBytes> {
    ASSIGN_OR_RETURN(auto factor, TokenFactor::Start(Faults::Through(SpecFor(spki_)), pins));
    SecretBytes expected;
    return factor->DeriveEcdh(WrapEcdh(spki_, expected));
  };
  const std::string waits =
      "C_FindObjects@1=delay:300";  // the flags are read before it is asked for
  int last = 0;
  {
    const Faults faults(fixture_, waits);
    ASSERT_TRUE(derive());
    last = faults.NumCalls("C_GetTokenInfo");
  }
  struct {
    const char* change;
    ErrorCode code;
  } const cases[] = {{"flags:20000", ErrorCode::kPinLastTry},
                     {"flags:40000", ErrorCode::kPinLocked},
                     {"other", ErrorCode::kTokenRemoved}};
  for (const auto& one : cases) {
    std::filesystem::remove(fixture_.folder() + "/trace");
    const Faults faults(fixture_, fmt::format("{},C_GetTokenInfo@{}={}", waits, last, one.change));
    pins.num_asked = 0;
    const auto secret = derive();
    ASSERT_FALSE(secret) << one.change;
    EXPECT_EQ(secret.error().code(), one.code) << secret.error().message();
    EXPECT_EQ(pins.num_asked, 1) << one.change;
    EXPECT_EQ(faults.NumCalls("C_Login"), 0) << one.change;
    EXPECT_EQ(faults.NumCalls("C_GetTokenInfo"), last) << one.change;
  }
}

// What fails on a token that is there no more is not the key's fault.
TEST_F(WorkerFaults, TellATokenThatWasReplacedFromAKeyThatIsNotThere) {
  const std::string fails = "C_FindObjects@1=delay:300,C_DeriveKey@1=rv:60";
  {
    const Faults faults(fixture_, fails);  // CKR_KEY_HANDLE_INVALID
    const auto secret = Derive();
    ASSERT_FALSE(secret);
    EXPECT_EQ(secret.error().code(), ErrorCode::kTokenKeyNotFound) << secret.error().message();
  }
  const int last = Faults(fixture_, "").NumCalls("C_GetTokenInfo");
  const Faults faults(fixture_, fails + ",C_GetTokenInfo@" + std::to_string(last) + "=other");
  const auto secret = Derive();
  ASSERT_FALSE(secret);
  EXPECT_EQ(secret.error().code(), ErrorCode::kTokenRemoved) << secret.error().message();
}

TEST_F(WorkerFaults, FallBackInEcdhToDerPointAndTheTokensOwnKdf) {
  {
    const Faults faults(fixture_, "C_DeriveKey@1=rv:71");
    EXPECT_TRUE(Derive());  // the DER point
    EXPECT_EQ(faults.NumCalls("C_DeriveKey"), 2);
  }
  std::filesystem::remove(fixture_.folder() + "/trace");
  const Faults faults(fixture_, "C_DeriveKey@0=rv:71");
  const auto secret = Derive();
  ASSERT_FALSE(secret);
  EXPECT_EQ(secret.error().code(), ErrorCode::kTokenMechanism);
  EXPECT_EQ(faults.NumCalls("C_DeriveKey"), 3);
  EXPECT_NE(secret.error().message().find("ECDH1-DERIVE"), std::string::npos)
      << secret.error().message();
}

TEST_F(WorkerFaults, NeverFallBackAfterADecryptionFailed) {
  const Bytes rsa = fixture_.GenerateRsa("ops", kPin, 2);
  std::filesystem::remove(fixture_.folder() + "/trace");
  const Faults faults(fixture_, "C_Decrypt@1=rv:7");
  auto factor = TokenFactor::Start(Faults::Through(SpecFor(rsa)), pins_);
  ASSERT_TRUE(factor);
  EXPECT_FALSE((*factor)->UnwrapRsa(WrapRsa(rsa, FreshSecret(), OaepHash::kSha1)));
  EXPECT_EQ(faults.NumCalls("C_Decrypt"), 1);
  EXPECT_EQ(faults.NumCalls("C_DecryptInit"), 1);
}

TEST_F(WorkerFaults, BelieveNoSizeBeyondTheirRoom) {
  {
    const Faults faults(fixture_, "");
    ASSERT_TRUE(Derive());
  }
  const int last = Faults(fixture_, "").NumCalls("C_GetAttributeValue");  // of what was derived
  const Faults derived(fixture_, "C_GetAttributeValue@" + std::to_string(last) + "=long:4096");
  const auto secret = Derive();
  ASSERT_FALSE(secret);
  EXPECT_EQ(secret.error().code(), ErrorCode::kTokenKeyUsage) << secret.error().message();
  const Bytes rsa = fixture_.GenerateRsa("ops", kPin, 2);
  const Faults decrypted(fixture_, "C_Decrypt@1=long:4096");
  auto factor = TokenFactor::Start(Faults::Through(SpecFor(rsa)), pins_);
  ASSERT_TRUE(factor);
  const auto opened = (*factor)->UnwrapRsa(WrapRsa(rsa, FreshSecret(), OaepHash::kSha1));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), ErrorCode::kTokenVendor) << opened.error().message();
}

// One attribute of several that is too long for its room costs a call for each; where it stays so,
// the key is one that shows nothing.
TEST_F(WorkerFaults, BelieveNoAttributeBeyondItsRoom) {
  {
    const Faults faults(fixture_, "C_GetAttributeValue@1=long:4096");
    EXPECT_TRUE(Derive());
  }
  const Faults faults(fixture_, "C_GetAttributeValue@0=long:4096");
  const auto secret = Derive();
  ASSERT_FALSE(secret);
  EXPECT_EQ(secret.error().code(), ErrorCode::kTokenKeyNotFound) << secret.error().message();
}

// A block that is longer than the modulus, and fits into what the worker has for one.
TEST_F(WorkerFaults, TakeNoBlockThatIsLongerThanItsKey) {
  const Bytes rsa = fixture_.GenerateRsa("ops", kPin, 2);
  const Faults faults(fixture_, "C_Decrypt@1=long:16");
  auto factor = TokenFactor::Start(Faults::Through(SpecFor(rsa)), pins_);
  ASSERT_TRUE(factor);
  const auto opened = (*factor)->UnwrapRsa(WrapRsa(rsa, FreshSecret(), OaepHash::kSha256));
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), ErrorCode::kModuleFailed) << opened.error().message();
}

// A module that answers in the worker's place, and says that all is well.
TEST_F(WorkerFaults, TakeNoAnswerToAnotherRequest) {
  const Faults faults(fixture_, "C_Login@1=send:0400");  // TokenRequest::kOpenSession, kOk
  const auto secret = Derive();
  ASSERT_FALSE(secret);
  EXPECT_EQ(secret.error().code(), ErrorCode::kModuleFailed) << secret.error().message();
  EXPECT_NE(secret.error().message().find("while logging in"), std::string::npos)
      << secret.error().message();
}

// A factor that failed is not asked again: the same error, and no call.
TEST_F(WorkerFaults, UseNoSessionInWhichAnOperationFailed) {
  const Faults faults(fixture_, "C_DeriveKey@1=rv:32");  // CKR_DEVICE_REMOVED
  auto factor = TokenFactor::Start(Faults::Through(SpecFor(spki_)), pins_);
  ASSERT_TRUE(factor);
  SecretBytes expected;
  const auto record = WrapEcdh(spki_, expected);
  for (int use = 0; use < 2; ++use) {
    const auto secret = (*factor)->DeriveEcdh(record);
    ASSERT_FALSE(secret);
    EXPECT_EQ(secret.error().code(), ErrorCode::kTokenRemoved) << secret.error().message();
    EXPECT_EQ(faults.NumCalls("C_DeriveKey"), 1);
  }
}

TEST_F(WorkerFaults, StartReturnsBeforeTheModuleIsLoaded) {
  const Faults faults(fixture_, "C_Initialize@1=delay:3000");
  const auto begin = std::chrono::steady_clock::now();
  auto factor = TokenFactor::Start(Faults::Through(SpecFor(spki_)), pins_);
  ASSERT_TRUE(factor);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(2500));
  EXPECT_TRUE((*factor)->Locate());
}

TEST_F(WorkerFaults, AWorkerThatNobodyWaitsForIsReaped) {
  const Faults faults(fixture_, "C_Initialize@1=hang");
  auto factor = TokenFactor::Start(Faults::Through(SpecFor(spki_)), pins_);
  ASSERT_TRUE(factor);
}

Error LoadErrorOf(const std::string& module_path) {
  auto tokens = ListTokens(module_path);
  if (tokens) std::abort();
  return tokens.error();
}

TEST_F(WorkerFaults, NameAModuleThatIsMissing) {
  const Error missing = LoadErrorOf("/usr/lib/nowhere/libsofthsm2.so");
  EXPECT_EQ(missing.code(), ErrorCode::kModuleMissing);
  EXPECT_NE(missing.hint().find("apt install softhsm2"), std::string::npos);
  EXPECT_EQ(LoadErrorOf("libkeyescrow-nowhere.so").code(), ErrorCode::kModuleMissing);
  EXPECT_EQ(LoadErrorOf("").code(), ErrorCode::kModuleMissing);
}

TEST_F(WorkerFaults, TellAFileThatIsNoModule) {
  const std::string text = fixture_.folder() + "/text.so";
  std::ofstream(text) << "this is no library\n";
  EXPECT_EQ(LoadErrorOf(text).code(), ErrorCode::kModuleInvalid);
  EXPECT_EQ(LoadErrorOf(fixture_.folder()).code(), ErrorCode::kModuleInvalid);
  const Error no_module = LoadErrorOf("libz.so.1");
  EXPECT_EQ(no_module.code(), ErrorCode::kModuleInvalid);
  EXPECT_NE(no_module.message().find("C_GetFunctionList"), std::string::npos);
}

TEST_F(WorkerFaults, NameAConfigurationThatIsWrong) {
  setenv("SOFTHSM2_CONF", "/nowhere/softhsm2.conf", 1);
  const Error error = LoadErrorOf(SoftHsmFixture::ModulePath());
  setenv("SOFTHSM2_CONF", (fixture_.folder() + "/softhsm2.conf").c_str(), 1);
  EXPECT_EQ(error.code(), ErrorCode::kModuleFailed);
  EXPECT_NE(error.hint().find("SOFTHSM2_CONF"), std::string::npos);
}

TEST_F(WorkerFaults, AProgramThatIsNoWorkerFails) {
  TokenWorkerOptions options;
  options.executable = "/bin/false";
  EXPECT_EQ(ListTokens(SoftHsmFixture::ModulePath(), options).error().code(),
            ErrorCode::kModuleFailed);
  options.executable = "/nowhere";
  EXPECT_EQ(ListTokens(SoftHsmFixture::ModulePath(), options).error().code(),
            ErrorCode::kModuleFailed);
}

}  // namespace
}  // namespace keyescrow::hsm
