#include "agent/cli/interrupts.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

namespace keyescrow::agent {
namespace {

TEST(KeepInterrupts, KeepsOneForTheNextQuestion) {
  const KeepInterrupts keep;
  raise(SIGINT);
  EXPECT_TRUE(InterruptsAreKept());
  EXPECT_TRUE(TakeInterrupt());
  EXPECT_FALSE(TakeInterrupt());
}

TEST(KeepInterruptsDeathTest, OneThatNoQuestionTookEndsTheProcessAfterTheLast) {
  EXPECT_EXIT(
      {
        {
          const KeepInterrupts keep;
          raise(SIGINT);
        }
        _exit(0);
      },
      ::testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace keyescrow::agent
