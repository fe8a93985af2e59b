#include "agent/usecases/event_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "agent/usecases/interrupted_restores.h"

namespace keyescrow::agent {
namespace {

using audit::EventType;
using audit::Outcome;

NoticedEvent Of(std::uint64_t seq, EventType type, Outcome outcome, std::int32_t pid,
                std::string reason = "") {
  NoticedEvent event;
  event.seq = seq;
  event.type = type;
  event.outcome = outcome;
  event.pid = pid;
  event.key_name = "app/key";
  event.key_version = 1;
  event.reason = std::move(reason);
  return event;
}

NoticedEvent Requested(std::uint64_t seq, std::int32_t pid) {
  return Of(seq, EventType::kRestoreRequested, Outcome::kPending, pid);
}

NoticedEvent Completed(std::uint64_t seq, std::int32_t pid) {
  return Of(seq, EventType::kRestoreCompleted, Outcome::kSuccess, pid);
}

NoticedEvent Interrupted(std::uint64_t seq, const std::string& reason,
                         Outcome outcome = Outcome::kPending) {
  return Of(seq, EventType::kRestoreReleased, outcome, 99, reason);
}

struct Found {
  std::vector<audit::LogFault> faults;
  std::uint64_t num_interrupted = 0;
};

Found InOrder(std::vector<NoticedEvent> events) {
  EventOrder order;
  NoticedSegment segment;
  segment.events = std::move(events);
  audit::LogFindings findings;
  order.Add(std::move(segment), findings);
  order.Finish(findings);
  Found found;
  for (const auto& finding : findings.list) found.faults.push_back(finding.fault);
  found.num_interrupted = order.num_interrupted();
  return found;
}

TEST(InterruptedRestore, IsTheEndOfTheOneThatItNames) {
  const Found found = InOrder({Requested(0, 7), Interrupted(1, "entry 0: its process ended")});
  EXPECT_THAT(found.faults, testing::IsEmpty());
  EXPECT_EQ(found.num_interrupted, 1U);
}

TEST(InterruptedRestore, OfNoneOrAnotherEndsNothing) {
  for (const auto& end : {Interrupted(1, "entry 0"), Interrupted(1, "entry -0: x"),
                          Interrupted(1, ""), Interrupted(1, "of entry 0: x"),
                          Interrupted(1, "entry 0: its process ended", Outcome::kSuccess)}) {
    EXPECT_THAT(InOrder({Requested(0, 7), end}).faults,
                testing::ElementsAre(audit::LogFault::kReleaseOpen))
        << end.reason;
  }
}

TEST(InterruptedRestore, MayStillTellItsOutcomeOnce) {
  // A process of another container is taken to be gone.
  std::vector<NoticedEvent> events = {Requested(0, 7), Interrupted(1, "entry 0: its process ended"),
                                      Completed(2, 7)};
  EXPECT_THAT(InOrder(events).faults, testing::IsEmpty());
  events.push_back(Completed(3, 7));
  EXPECT_THAT(InOrder(events).faults, testing::ElementsAre(audit::LogFault::kReleaseUnasked));
}

// A path of the same key that failed meanwhile, by a process of the same number.
TEST(InterruptedRestore, IsNotEndedByAFailedDrill) {
  NoticedEvent failed = Of(1, EventType::kDrillFailed, Outcome::kFailure, 7);
  failed.failure = PathFailure{};
  EXPECT_THAT(
      InOrder({Requested(0, 7), failed, Interrupted(2, "entry 0: its process ended")}).faults,
      testing::IsEmpty());
}

// An agent that was told so by a row that somebody wrote signs it like any other.
TEST(InterruptedRestore, OfNoneThatIsOpenIsFound) {
  using audit::LogFault;
  using testing::ElementsAre;
  const NoticedEvent released = Interrupted(2, "entry 0: its process ended");
  EXPECT_THAT(InOrder({Requested(0, 7), Completed(1, 7), released}).faults,
              ElementsAre(LogFault::kReleaseUnasked));
  EXPECT_THAT(
      InOrder({Requested(0, 7), Interrupted(1, "entry 0: its process ended"), released}).faults,
      ElementsAre(LogFault::kReleaseUnasked));
  EXPECT_THAT(InOrder({Requested(0, 7), Interrupted(1, "entry 5: its process ended")}).faults,
              ElementsAre(LogFault::kReleaseUnasked, LogFault::kReleaseOpen));
  // Of two of one number, of which the first was taken to be gone, either may have told its end.
  EXPECT_THAT(
      InOrder({Requested(0, 7), Interrupted(1, "entry 0: its process ended"), Requested(2, 7),
               Completed(3, 7), Interrupted(4, "entry 2: its process ended"), Completed(5, 7)})
          .faults,
      testing::IsEmpty());
}

TEST(OpenRestores, AreReadAndWhatIsNoneIsPassedOver) {
  const auto open = ParseOpenRestores("12 boot 7 99\nx boot 8 1\n\n-1 y\n13 boot 9 100\n14");
  ASSERT_EQ(open.size(), 2U);
  EXPECT_EQ(open[0].seq, 12U);
  EXPECT_EQ(open[0].process, "boot 7 99");
  EXPECT_EQ(open[1].seq, 13U);
}

}  // namespace
}  // namespace keyescrow::agent
