#include "tpm/deadline_transport.h"

#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <semaphore>

#include "tests/slowness.h"
#include "tpm/tss.h"

namespace keyescrow::tpm {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// A transport that answers with the command, or blocks until it is released.
struct Gate {
  std::binary_semaphore open{0};
  std::atomic<bool> block = false;
  std::atomic<int> alive = 0;
};

class GatedTransport : public Transport {
 public:
  explicit GatedTransport(std::shared_ptr<Gate> gate) : gate_(std::move(gate)) { ++gate_->alive; }
  ~GatedTransport() override { --gate_->alive; }
  Result<Bytes> Exchange(ByteView command) override {
    if (gate_->block) gate_->open.acquire();
    return ToBytes(command);
  }

 private:
  std::shared_ptr<Gate> gate_;
};

Opener OpenerFor(const std::shared_ptr<Gate>& gate) {
  return [gate]() -> Result<std::unique_ptr<Transport>> {
    return std::make_unique<GatedTransport>(gate);
  };
}

steady_clock::time_point In(int ms) { return steady_clock::now() + milliseconds(ms); }

TEST(TpmDeadline, AnswersPassThroughAndTheTransportIsClosedOnItsThread) {
  auto gate = std::make_shared<Gate>();
  {
    auto transport = DeadlineTransport::Open(OpenerFor(gate), milliseconds(1000));
    ASSERT_TRUE(transport);
    for (const std::uint8_t value : Bytes{1, 2, 3}) {
      EXPECT_EQ(*(*transport)->Exchange(Bytes{value}, In(1000)), Bytes{value});
    }
  }
  EXPECT_EQ(gate->alive, 0);
}

TEST(TpmDeadline, SignalsAreNotItsThreads) {
  sigset_t inside;
  sigemptyset(&inside);
  auto transport = DeadlineTransport::Open(
      [&]() -> Result<std::unique_ptr<Transport>> {
        pthread_sigmask(SIG_SETMASK, nullptr, &inside);
        return std::make_unique<GatedTransport>(std::make_shared<Gate>());
      },
      milliseconds(1000));
  ASSERT_TRUE(transport);
  sigset_t outside;
  pthread_sigmask(SIG_SETMASK, nullptr, &outside);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGWINCH}) {
    EXPECT_EQ(sigismember(&inside, number), 1) << number;
    EXPECT_EQ(sigismember(&outside, number), 0) << number;
  }
}

TEST(TpmDeadline, AfterATimeoutEveryCallFailsAtOnceEvenIfTheAnswerComesLate) {
  auto gate = std::make_shared<Gate>();
  gate->block = true;
  auto transport = DeadlineTransport::Open(OpenerFor(gate), milliseconds(1000));
  ASSERT_TRUE(transport);
  EXPECT_EQ((*transport)->Exchange(Bytes{1}, In(50)).error().code(), ErrorCode::kTpmTimeout);
  gate->block = false;
  gate->open.release();
  const auto start = steady_clock::now();
  EXPECT_EQ((*transport)->Exchange(Bytes{2}, In(5000 * kSlowness)).error().code(),
            ErrorCode::kTpmTimeout);
  EXPECT_LT(steady_clock::now() - start, kSlowness * milliseconds(1000));
}

TEST(TpmDeadline, AStuckThreadIsLeftBehindAndCleansUpWhenItWakes) {
  auto gate = std::make_shared<Gate>();
  gate->block = true;
  auto transport = DeadlineTransport::Open(OpenerFor(gate), milliseconds(1000));
  ASSERT_TRUE(transport);
  EXPECT_FALSE((*transport)->Exchange(Bytes{1}, In(20)));
  const auto start = steady_clock::now();
  transport->reset();
  EXPECT_LT(steady_clock::now() - start, kSlowness * milliseconds(300));
  EXPECT_EQ(gate->alive, 1);
  gate->open.release();
  for (int wait = 0; gate->alive != 0 && wait < 500; ++wait) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  EXPECT_EQ(gate->alive, 0);
}

TEST(TpmDeadline, AnOpenerThatBlocksOrFailsIsTold) {
  auto gate = std::make_shared<Gate>();
  const Opener blocking = [gate]() -> Result<std::unique_ptr<Transport>> {
    gate->open.acquire();
    return std::make_unique<GatedTransport>(gate);
  };
  EXPECT_EQ(DeadlineTransport::Open(blocking, milliseconds(30)).error().code(),
            ErrorCode::kTpmTimeout);
  gate->open.release();
  const Opener failing = []() -> Result<std::unique_ptr<Transport>> {
    return Error(ErrorCode::kTpmUnavailable, Action::kReconnect, "no", "try");
  };
  EXPECT_EQ(DeadlineTransport::Open(failing, milliseconds(1000)).error().code(),
            ErrorCode::kTpmUnavailable);
}

TEST(TpmDeadline, AStuckThreadDoesNotHoldUpTheProcessesExit) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        auto gate = std::make_shared<Gate>();
        gate->block = true;
        {
          auto transport = DeadlineTransport::Open(OpenerFor(gate), milliseconds(1000));
          if ((*transport)->Exchange(Bytes{1}, In(20))) std::abort();
        }
        std::exit(7);
      },
      testing::ExitedWithCode(7), "");
}

TEST(TpmLibrary, AnAbsentOneIsToldWithItsPackage) {
  const auto absent = LoadTssFrom("libtss2-not-there.so.0");
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code(), ErrorCode::kTpmUnavailable);
  EXPECT_NE(absent.error().hint().find("libtss2-tctildr0"), std::string::npos);
  EXPECT_EQ(LoadTssFrom("libc.so.6").error().code(), ErrorCode::kTpmUnavailable);
}

}  // namespace
}  // namespace keyescrow::tpm
