// VersionLife: which version is in use, and rows that say something else than the log.
#include "agent/usecases/version_life.h"

#include <gtest/gtest.h>

namespace keyescrow::agent {
namespace {

using audit::LogFault;
using audit::Outcome;

class VersionLifeTest : public testing::Test {
 protected:
  void Rotated(std::uint32_t version, Outcome outcome, const std::string& reason = "") {
    life_.AddRotated({"a", version}, {++seq_, outcome, OldVersionIn(reason, version)}, findings_);
  }
  static store::RotationRecord Row(std::uint32_t version, store::RotationStep step) {
    store::RotationRecord row;
    row.key_name = "a";
    row.key_version = version;
    row.step = step;
    return row;
  }
  std::vector<LogFault> Faults(const std::vector<store::RotationRecord>& rows) {
    audit::LogFindings findings;
    CompareRotations(rows, life_, findings);
    std::vector<LogFault> faults;
    for (const auto& finding : findings.list) faults.push_back(finding.fault);
    return faults;
  }

  VersionLife life_;
  audit::LogFindings findings_;
  std::uint64_t seq_ = 0;
};

TEST_F(VersionLifeTest, CountsWhatNoRotationHasStillToConfirm) {
  EXPECT_TRUE(life_.CountsInUse({"a", 1}));
  Rotated(2, Outcome::kPending);
  EXPECT_FALSE(life_.CountsInUse({"a", 2}));
  EXPECT_TRUE(life_.CountsInUse({"b", 2}));
  Rotated(2, Outcome::kPending);
  Rotated(2, Outcome::kSuccess);
  EXPECT_TRUE(life_.CountsInUse({"a", 2}));
  Rotated(3, Outcome::kPending);
  Rotated(3, Outcome::kFailure);
  EXPECT_FALSE(life_.CountsInUse({"a", 3}));
  EXPECT_EQ(findings_.num_all, 0u);
  Rotated(3, Outcome::kSuccess);  // it had ended
  EXPECT_EQ(findings_.list.at(0).fault, LogFault::kRotationUnlogged);
}

TEST_F(VersionLifeTest, ABackupOfOtherBytesHasNoRow) {
  Rotated(2, Outcome::kSuccess);
  EXPECT_TRUE(Faults({}).empty());
}

TEST_F(VersionLifeTest, RowsAreHeldAgainstTheLog) {
  using enum store::RotationStep;
  Rotated(2, Outcome::kPending);
  EXPECT_TRUE(Faults({Row(2, kHandingOver)}).empty());
  EXPECT_EQ(Faults({Row(2, kConfirmed)}).size(), 1u);
  EXPECT_EQ(Faults({}).size(), 1u);
  EXPECT_EQ(Faults({Row(2, kProven), Row(3, kProven)}).size(), 1u);
  Rotated(2, Outcome::kFailure);
  EXPECT_TRUE(Faults({Row(2, kAbandoned)}).empty());
  EXPECT_EQ(Faults({Row(2, kConfirmed)}).size(), 1u);
}

TEST_F(VersionLifeTest, ARowOfOtherBytesThatABackupFoundIsNobodys) {
  Rotated(2, Outcome::kSuccess, "version 1 to 2: a backup found other bytes");
  EXPECT_EQ(Faults({Row(2, store::RotationStep::kConfirmed)}).size(), 1u);
}

TEST_F(VersionLifeTest, TheOldVersionIsTheOneThatTheEntryNames) {
  store::RotationRecord row = Row(3, store::RotationStep::kProven);
  row.old_version = 1;
  Rotated(3, Outcome::kPending, "version 2 to 3: escrowed");
  EXPECT_EQ(Faults({row}), std::vector{LogFault::kRotationUnlogged});
  row.old_version = 2;
  EXPECT_TRUE(Faults({row}).empty());
}

TEST(RotationReason, IsReadAsItWasWritten) {
  EXPECT_EQ(RotationReason(2, 3, "escrowed"), "version 2 to 3: escrowed");
  EXPECT_EQ(OldVersionIn(RotationReason(4294967295, 7, "x"), 7), 4294967295u);
  for (const auto* other :
       {"", "version ", "version 2", "version 2 to 4: x", "version 2 to 3 x", "version -2 to 3: x",
        "version 02 to 3: x", "version 4294967296 to 3: x", "it was version 2 to 3: x"}) {
    EXPECT_EQ(OldVersionIn(other, 3), std::nullopt) << other;
  }
}

TEST_F(VersionLifeTest, WhatIsDestroyedIsDestroyedOnceAndByItsEntry) {
  life_.AddDestroyed({"a", 1}, 7, findings_);
  life_.AddDestroyed({"a", 2}, 8, findings_);
  EXPECT_EQ(life_.HighestDestroyed("a"), 2u);
  EXPECT_EQ(life_.HighestDestroyed("b"), 0u);
  EXPECT_FALSE(life_.CountsInUse({"a", 1}));
  audit::LogFindings findings;
  CompareDestroyed({{"a", 1, 7}, {"a", 2, 8}}, life_, findings);
  EXPECT_EQ(findings.num_all, 0u);
  CompareDestroyed({{"a", 1, 9}}, life_, findings);
  EXPECT_EQ(findings.num_all, 2u);  // another entry, and one that is missing
  EXPECT_EQ(findings_.num_all, 0u);
  life_.AddDestroyed({"a", 1}, 9, findings_);
  EXPECT_EQ(findings_.list.at(0).fault, LogFault::kDestroyed);
}

}  // namespace
}  // namespace keyescrow::agent
