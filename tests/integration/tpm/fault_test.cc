#include <algorithm>
#include <chrono>
#include <csignal>
#include <functional>
#include <optional>
#include <string_view>

#include "tests/integration/tpm/tpm_test_base.h"

namespace keyescrow::tpm {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using TpmFault = TpmTest;

std::int64_t ElapsedMs(steady_clock::time_point since) {
  return std::chrono::duration_cast<milliseconds>(steady_clock::now() - since).count();
}

TEST_F(TpmFault, AStoppedTpmCostsItsDeadlineOnceAndThenNothing) {
  ASSERT_OK_AND_ASSIGN(
      auto tpm, Tpm::Open({.tcti = swtpm_.tcti(), .command_deadline_ms = 300, .pinned_srk = srk_}));
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_));
  swtpm_.SigStop();
  auto start = steady_clock::now();
  const auto hung = tpm->Unseal(record, {.auth_value = &auth_});
  ASSERT_FALSE(hung);
  EXPECT_EQ(hung.error().code(), ErrorCode::kTpmTimeout);
  EXPECT_GE(ElapsedMs(start), 250);
  EXPECT_LT(ElapsedMs(start), 1500);
  start = steady_clock::now();
  EXPECT_EQ(tpm->Unseal(record, {.auth_value = &auth_}).error().code(), ErrorCode::kTpmTimeout);
  EXPECT_LT(ElapsedMs(start), 100);
  start = steady_clock::now();
  tpm.reset();
  EXPECT_LT(ElapsedMs(start), 100);
  swtpm_.SigCont();
}

TEST_F(TpmFault, ATpmStoppedInTheMiddleOfAnUnsealCostsOneDeadline) {
  auto fault = std::make_shared<simulators::Fault>();
  // By value: the thread outlives the device that left it behind.
  fault->before = [pid = swtpm_.pid()](std::size_t, ByteView command) -> Status {
    if (command[8] == 0x01 && command[9] == 0x5e) kill(pid, SIGSTOP);
    return Ok();
  };
  ASSERT_OK_AND_ASSIGN(auto tpm, Tpm::Open({.tcti = swtpm_.tcti(),
                                            .command_deadline_ms = 300,
                                            .pinned_srk = srk_,
                                            .decorate = simulators::FaultyDecorator(fault)}));
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_));
  const auto start = steady_clock::now();
  EXPECT_EQ(tpm->Unseal(record, {.auth_value = &auth_}).error().code(), ErrorCode::kTpmTimeout);
  tpm.reset();
  EXPECT_LT(ElapsedMs(start), 1500);
  swtpm_.SigCont();
}

TEST_F(TpmFault, ATpmStoppedBeforeTheConnectionCostsOneDeadline) {
  swtpm_.SigStop();
  const auto start = steady_clock::now();
  auto tpm = Tpm::Open({.tcti = swtpm_.tcti(), .command_deadline_ms = 300, .pinned_srk = srk_});
  if (tpm) {
    EXPECT_EQ((*tpm)->Inspect().error().code(), ErrorCode::kTpmTimeout);
  } else {
    EXPECT_EQ(tpm.error().code(), ErrorCode::kTpmTimeout);
  }
  EXPECT_LT(ElapsedMs(start), 1500);
  swtpm_.SigCont();
}

TEST_F(TpmFault, ADeadTpmIsToldAtOnce) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_));
  swtpm_.Kill();
  const auto start = steady_clock::now();
  EXPECT_EQ(tpm->Unseal(record, {.auth_value = &auth_}).error().code(), ErrorCode::kTpmUnavailable);
  EXPECT_EQ(Tpm::Open({.tcti = swtpm_.tcti()}).error().code(), ErrorCode::kTpmUnavailable);
  EXPECT_EQ(Tpm::Open({.tcti = "none"}).error().code(), ErrorCode::kTpmUnavailable);
  EXPECT_EQ(Tpm::Open({.tcti = "device:/nonexistent/tpm"}).error().code(),
            ErrorCode::kTpmUnavailable);
  EXPECT_LT(ElapsedMs(start), 2000);
}

TEST_F(TpmFault, ABusyTpmIsAskedAgainWithinTheDeadline) {
  int refusals = 0;
  auto fault = std::make_shared<simulators::Fault>();
  std::uint16_t code = 0x922;
  int limit = 2;
  fault->after = [&](std::size_t, Bytes& response) -> Status {
    if (refusals < limit) {
      ++refusals;
      response = {0x80,
                  0x01,
                  0,
                  0,
                  0,
                  10,
                  0,
                  0,
                  static_cast<std::uint8_t>(code >> 8),
                  static_cast<std::uint8_t>(code)};
    }
    return Ok();
  };
  ASSERT_OK_AND_ASSIGN(auto tpm, Tpm::Open({.tcti = swtpm_.tcti(),
                                            .command_deadline_ms = 1000,
                                            .pinned_srk = srk_,
                                            .decorate = simulators::FaultyDecorator(fault)}));
  for (const std::uint16_t busy :
       std::initializer_list<std::uint16_t>{0x908, 0x90a, 0x920, 0x922, 0x923}) {
    code = busy;
    refusals = 0;
    EXPECT_OK(tpm->Inspect());
    EXPECT_EQ(refusals, 2);
  }
  limit = 1 << 30;
  const auto start = steady_clock::now();
  const auto busy = tpm->Inspect();
  ASSERT_FALSE(busy);
  EXPECT_EQ(busy.error().code(), ErrorCode::kTpmBusy);
  EXPECT_LT(ElapsedMs(start), 3000);
}

// That an unseal was not begun is believed once, whoever says so how often.
TEST_F(TpmFault, ARefusalThatIsAlwaysCalledARetryCostsTwoTriesAtMost) {
  swtpm_.SetDaParameters(100, 600, 1000);
  bool is_unseal = false;
  auto fault = std::make_shared<simulators::Fault>();
  fault->before = [&](std::size_t, ByteView command) -> Status {
    is_unseal = command[8] == 0x01 && command[9] == 0x5e;
    return Ok();
  };
  fault->after = [&](std::size_t, Bytes& response) -> Status {
    if (is_unseal) response = {0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x09, 0x22};  // TPM_RC_RETRY
    return Ok();
  };
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*Open(), &auth_));
  ExpectOpens(*Open(), record, &auth_);  // the first use after the boot
  ASSERT_OK_AND_ASSIGN(auto tpm, Tpm::Open({.tcti = swtpm_.tcti(),
                                            .pinned_srk = srk_,
                                            .decorate = simulators::FaultyDecorator(fault)}));
  const auto refused = tpm->Unseal(record, {.auth_value = &wrong_auth_});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kTpmResponse) << refused.error().message();
  EXPECT_EQ(swtpm_.LockoutCounter(), 2U);
  tpm.reset();
  ExpectNothingLeft();
}

// A session that a PCR's extension ended is begun again, 30 times and no more.
TEST_F(TpmFault, ASessionThatAlwaysEndsIsGivenUp) {
  int num_unseals = 0;
  bool is_unseal = false;
  auto fault = std::make_shared<simulators::Fault>();
  fault->before = [&](std::size_t, ByteView command) -> Status {
    is_unseal = command[8] == 0x01 && command[9] == 0x5e;
    num_unseals += is_unseal ? 1 : 0;
    return Ok();
  };
  fault->after = [&](std::size_t, Bytes& response) -> Status {
    if (is_unseal) response = {0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x28};  // TPM_RC_PCR_CHANGED
    return Ok();
  };
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*Open(), nullptr, {7}));
  ASSERT_OK_AND_ASSIGN(auto tpm, Tpm::Open({.tcti = swtpm_.tcti(),
                                            .pinned_srk = srk_,
                                            .decorate = simulators::FaultyDecorator(fault)}));
  const auto opened = tpm->Unseal(record, {});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code(), ErrorCode::kTpmPcrMismatch) << opened.error().message();
  EXPECT_EQ(num_unseals, 31);
  tpm.reset();
  ExpectNothingLeft();
}

// One fault at the n-th command, for every n: no secret comes out, nothing stays in the TPM that
// could be flushed, the error names an action, and no try is spent on a right password.
TEST_F(TpmFault, EveryRefusedCommandLeavesTheTpmClean) {
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*Open(), &auth_, {7}));
  ExpectOpens(*Open(), record, &auth_);  // the first use after the boot costs a command more
  for (std::size_t failing = 0; failing < 7; ++failing) {
    auto fault = std::make_shared<simulators::Fault>();
    std::size_t count = 0;
    auto refuse = std::make_shared<bool>(false);
    fault->before = [&count, failing, refuse](std::size_t, ByteView) -> Status {
      *refuse = count++ == failing;
      return Ok();
    };
    ASSERT_OK_AND_ASSIGN(
        auto tpm, Tpm::Open({.tcti = swtpm_.tcti(),
                             .pinned_srk = srk_,
                             .decorate = [refuse, fault](std::unique_ptr<Transport> inner) {
                               class Refusing : public Transport {
                                public:
                                 Refusing(std::unique_ptr<Transport> next, std::shared_ptr<bool> on)
                                     : next_(std::move(next)), on_(std::move(on)) {}
                                 Result<Bytes> Exchange(ByteView command) override {
                                   if (*on_) return Bytes{0x80, 1, 0, 0, 0, 10, 0, 0, 0x01, 0x43};
                                   return next_->Exchange(command);
                                 }

                                private:
                                 std::unique_ptr<Transport> next_;
                                 std::shared_ptr<bool> on_;
                               };
                               return simulators::FaultyDecorator(fault)(
                                   std::make_unique<Refusing>(std::move(inner), refuse));
                             }}));
    auto opened = tpm->Unseal(record, {.auth_value = &auth_});
    const bool is_flush = failing == 6;
    EXPECT_EQ(opened.has_value(), is_flush) << failing;
    if (!opened) {
      EXPECT_EQ(opened.error().code(), ErrorCode::kTpmFailure);
      EXPECT_EQ(opened.error().action(), Action::kCallOperator);
    }
    tpm.reset();
    if (!is_flush) ExpectNothingLeft();
  }
  EXPECT_EQ(swtpm_.LockoutCounter(), 0U);
}

// What no HMAC covers: an answer that is whole and says something else than was asked.
TEST_F(TpmFault, AnAnswerToAnotherQuestionIsNone) {
  ASSERT_OK_AND_ASSIGN(const auto record, Seal(*Open(), &auth_, {7}));
  constexpr std::uint8_t kPcrRead = 0x7e;  // the last byte of a command's code
  constexpr std::uint8_t kStartAuthSession = 0x76;
  constexpr std::uint8_t kGetCapability = 0x7a;
  const auto cut = [](Bytes& response, std::size_t at, std::size_t size_bytes) {
    const auto begin = response.begin() + static_cast<std::ptrdiff_t>(at);
    response.erase(begin, begin + static_cast<std::ptrdiff_t>(size_bytes));
    response[5] = static_cast<std::uint8_t>(response.size());
  };
  const struct {
    std::string_view what;
    std::uint8_t command;
    std::string_view told;
    std::function<void(Bytes&)> change;
  } cases[] = {{"another pcr", kPcrRead, "PCR", [](Bytes& response) { response[21] ^= 1; }},
               {"two digests", kPcrRead, "PCR", [](Bytes& response) { response[27] = 2; }},
               {"a short digest", kPcrRead, "PCR",
                [&](Bytes& response) {
                  response[29] = 31;
                  cut(response, 30, 1);
                }},
               {"a short nonce", kStartAuthSession, "StartAuthSession",
                [&](Bytes& response) {
                  response[15] = 8;
                  cut(response, 24, 24);
                }},
               {"no counter of tries", kGetCapability, "", [](Bytes& response) {
                  constexpr std::uint8_t kLockoutCounter[] = {0, 0, 2, 0x0e};
                  const auto found =
                      std::search(response.begin(), response.end(), std::begin(kLockoutCounter),
                                  std::end(kLockoutCounter));
                  ASSERT_NE(found, response.end());
                  *(found + 3) = 0x7f;
                }}};
  for (const auto& item : cases) {
    SCOPED_TRACE(item.what);
    auto fault = std::make_shared<simulators::Fault>();
    std::uint8_t command = 0;
    int num_changed = 0;
    fault->before = [&](std::size_t, ByteView bytes) -> Status {
      command = bytes[9];
      return Ok();
    };
    fault->after = [&](std::size_t, Bytes& response) -> Status {
      if (command == item.command && num_changed++ == 0) item.change(response);
      return Ok();
    };
    ASSERT_OK_AND_ASSIGN(auto tpm, Tpm::Open({.tcti = swtpm_.tcti(),
                                              .pinned_srk = srk_,
                                              .decorate = simulators::FaultyDecorator(fault)}));
    std::optional<Error> error;
    if (item.command == kPcrRead) {
      const auto sealed = Seal(*tpm, &auth_, {7});
      if (!sealed) error = sealed.error();
    } else {
      const auto opened = tpm->Unseal(record, {.auth_value = &auth_});
      if (!opened) error = opened.error();
    }
    EXPECT_GE(num_changed, 1);
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code(), ErrorCode::kTpmResponse) << error->message();
    EXPECT_NE(error->message().find(item.told), std::string::npos) << error->message();
    tpm.reset();
    for (const std::uint32_t handle : swtpm_.LoadedSessions()) Flush(handle);
  }
  EXPECT_EQ(swtpm_.LockoutCounter(), 0U);
}

TEST_F(TpmFault, EveryFlippedBitAndEveryCutResponseIsAnErrorAndNeverACrash) {
  swtpm_.SetDaParameters(1000000, 1, 1);
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*Open(), &auth_, {7}));
  std::size_t target = 0;
  std::size_t position = 0;
  bool cut = false;
  std::size_t count = 0;
  std::size_t length = 0;
  auto fault = std::make_shared<simulators::Fault>();
  fault->after = [&](std::size_t, Bytes& response) -> Status {
    if (count++ != target) return Ok();
    length = response.size();
    if (position >= length) return Ok();
    if (cut) {
      response.resize(position);
    } else {
      response[position] ^= 0x11;
    }
    return Ok();
  };
  int refused = 0;
  for (target = 0; target < 6; ++target) {
    length = 1;
    for (position = 0; position < length; position += 3) {
      for (const bool is_cut : {false, true}) {
        cut = is_cut;
        count = 0;
        {
          ASSERT_OK_AND_ASSIGN(auto tpm,
                               Tpm::Open({.tcti = swtpm_.tcti(),
                                          .pinned_srk = srk_,
                                          .decorate = simulators::FaultyDecorator(fault)}));
          auto opened = tpm->Unseal(record, {.auth_value = &auth_, .use_last_try = true});
          if (opened) {
            EXPECT_TRUE(opened->EqualsConstantTime(secret_));
          } else {
            ++refused;
          }
        }
        // A handle that was lost in a changed response cannot be flushed by us.
        for (std::uint32_t handle : swtpm_.TransientObjects()) Flush(handle);
        for (std::uint32_t handle : swtpm_.LoadedSessions()) Flush(handle);
      }
    }
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace keyescrow::tpm
