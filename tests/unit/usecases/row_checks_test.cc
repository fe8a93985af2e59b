// Rows of failures and of other tools' escrows, as somebody with the store's file would edit them.
#include <gtest/gtest.h>

#include <utility>

#include "agent/usecases/foreign_mark.h"
#include "agent/usecases/recovery_key_failure.h"
#include "agent/usecases/registration_check.h"

namespace keyescrow::agent {
namespace {

using audit::EventType;
using audit::LogFault;
using Faults = std::vector<LogFault>;

constexpr std::int64_t kTime = 1'795'600'000;

Faults FaultsOf(const audit::LogFindings& findings) {
  Faults faults;
  for (const audit::LogFinding& finding : findings.list) faults.push_back(finding.fault);
  return faults;
}

// Log takes events as a verifier reads them.
class Log {
 public:
  void Add(audit::Event event) {
    event.source = event.source.empty() ? "keyescrow/test/log" : event.source;
    event.host = "h";
    event.time = kTime + static_cast<std::int64_t>(seq_);
    event.id = Bytes16{static_cast<std::uint8_t>(seq_ + 1)};
    const auto line = audit::SerializeEvent(event);
    ASSERT_TRUE(line) << line.error().message();
    audit::EventReader reader;
    const auto facts = reader.Read(*line);
    ASSERT_TRUE(facts) << facts.error().message() << *line;
    NoticedSegment segment;
    segment.Notice(seq_++, *facts);
    audit::LogFindings findings;
    order_.Add(std::move(segment), findings);
    EXPECT_EQ(findings.num_damages, 0U);
  }
  const EventOrder& order() const { return order_; }

 private:
  EventOrder order_;
  std::uint64_t seq_ = 0;
};

// ---- recovery keys

class RecoveryKeyFailures : public testing::Test {
 protected:
  RecoveryKeyFailures() {
    row_.name = "team";
    row_.sha256 = Bytes32{7};
  }
  void Drill(EventType type, std::string error = "", std::string source = "") {
    audit::Event event;
    event.type = type;
    event.source = std::move(source);
    event.outcome = error.empty() ? audit::Outcome::kSuccess : audit::Outcome::kFailure;
    event.error = std::move(error);
    event.paths.emplace_back().factors.push_back(
        {std::string(kRecoveryKeyKind), row_.name, row_.sha256, ""});
    log_.Add(std::move(event));
  }
  Faults Compare(std::vector<store::Setting> settings) {
    audit::LogFindings findings;
    CompareRecoveryKeyFailures({row_}, settings, log_.order(), findings);
    return FaultsOf(findings);
  }
  store::Setting Failed(std::int64_t time, std::string code = "token_key_not_found") const {
    return FailedSetting(row_, {time, std::move(code)});
  }

  Log log_;
  store::RecoveryKeyRecord row_;
};

TEST_F(RecoveryKeyFailures, AreTheLastOnesOfTheLog) {
  EXPECT_EQ(Compare({}), Faults());
  EXPECT_EQ(Compare({Failed(kTime)}), Faults{LogFault::kProofUnlogged});  // planted
  Drill(EventType::kDrillFailed, "token_key_not_found");
  EXPECT_EQ(Compare({Failed(kTime)}), Faults());
  EXPECT_EQ(Compare({Failed(kTime - 60)}), Faults());
  EXPECT_EQ(Compare({}), Faults{LogFault::kProofUnlogged});  // removed
  EXPECT_EQ(Compare({Failed(kTime - 61)}), Faults{LogFault::kProofUnlogged});
  EXPECT_EQ(Compare({Failed(kTime, "factor_bad")}), Faults{LogFault::kProofUnlogged});
  store::Setting other = Failed(kTime);
  other.value->back() = other.value->back() == 'A' ? 'E' : 'A';
  EXPECT_EQ(Compare({other}), Faults{LogFault::kProofUnlogged});  // of another record
  EXPECT_EQ(Compare({{other.name, ""}}), Faults{LogFault::kProofUnlogged});
  EXPECT_EQ(Compare({{other.name, "x"}}), Faults{LogFault::kProofUnlogged});
  Drill(EventType::kDrillPassed);
  EXPECT_EQ(Compare({}), Faults());
  EXPECT_EQ(Compare({Failed(kTime)}), Faults{LogFault::kProofUnlogged});
}

// What lies with who drilled, and what nothing signed, tells nothing of the key.
TEST_F(RecoveryKeyFailures, AreNeitherWrongPasswordsNorImported) {
  Drill(EventType::kDrillFailed, "wrong_password");
  Drill(EventType::kDrillFailed, "factor_bad", std::string(audit::kStatelessSource));
  EXPECT_EQ(Compare({}), Faults());
  Drill(EventType::kDrillFailed, "factor_bad");
  Drill(EventType::kDrillFailed, "wrong_password");
  Drill(EventType::kDrillPassed, "", std::string(audit::kStatelessSource));
  EXPECT_EQ(Compare({}), Faults{LogFault::kProofUnlogged});
  EXPECT_EQ(Compare({Failed(kTime + 2, "factor_bad")}), Faults());
}

TEST_F(RecoveryKeyFailures, BindTheRecordThatFailed) {
  Drill(EventType::kDrillFailed, "factor_bad");
  const store::Setting kept = Failed(kTime, "factor_bad");
  row_.sha256 = Bytes32{8};
  EXPECT_EQ(Compare({kept}), Faults());
  EXPECT_EQ(Compare({}), Faults());
  row_.sha256 = Bytes32{7};
  EXPECT_EQ(Compare({kept}), Faults());
}

// ---- foreign escrows

store::ForeignEscrowRecord Row() {
  return {"/etc/a.jwe", "jwe", "clevis-tang", "", R"({"pin":1})", Bytes32{1}, kTime};
}

class ForeignRows : public testing::Test {
 protected:
  void Add(EventType type, std::string reason) {
    audit::Event event;
    event.type = type;
    event.reason = std::move(reason);
    log_.Add(std::move(event));
  }
  Faults Compare(const std::vector<store::ForeignEscrowRecord>& rows) {
    audit::LogFindings findings;
    CompareForeign(rows, log_.order(), findings);
    return FaultsOf(findings);
  }
  Log log_;
};

TEST_F(ForeignRows, AreWhatTheLastEntryOfEachTells) {
  const Faults one{LogFault::kForeignUnlogged};
  EXPECT_EQ(Compare({Row()}), one);  // planted
  Add(EventType::kInventoryFound, ForeignReason(Row(), "opened by tang:http://a"));
  EXPECT_EQ(Compare({Row()}), Faults());
  EXPECT_EQ(Compare({}), one);  // removed
  const auto altered = [&](auto edit) {
    auto row = Row();
    edit(row);
    return Compare({row});
  };
  EXPECT_EQ(altered([](auto& row) { row.kind = "clevis-tpm2"; }), one);
  EXPECT_EQ(altered([](auto& row) { row.volume = "1"; }), one);
  EXPECT_EQ(altered([](auto& row) { row.opens_by = "{}"; }), one);
  EXPECT_EQ(altered([](auto& row) { row.sha256[31] ^= 1; }), one);
  EXPECT_EQ(altered([](auto& row) { row.found += 61; }), one);
  EXPECT_EQ(altered([](auto& row) { row.found -= 60; }), Faults());
  const Faults moved(2, LogFault::kForeignUnlogged);  // one that nobody found, and one that is gone
  EXPECT_EQ(altered([](auto& row) { row.place = "/etc/b.jwe"; }), moved);
  EXPECT_EQ(altered([](auto& row) { row.item = "token 1"; }), moved);
  Add(EventType::kInventoryGone, ForeignReason(Row(), "no longer there"));
  EXPECT_EQ(Compare({}), Faults());
  EXPECT_EQ(Compare({Row()}), one);
}

TEST_F(ForeignRows, OfOldEntriesAreTakenAsBefore) {
  const std::string old =
      "foreign escrow, not held and not proven: clevis-tang in jwe of /etc/a.jwe; ";
  Add(EventType::kInventoryFound, old + "opened by tang:http://a");
  EXPECT_EQ(Compare({Row()}), Faults());
  EXPECT_EQ(Compare({}), Faults());
  auto other = Row();
  other.place = "/etc/b.jwe";
  EXPECT_EQ(Compare({other}), Faults{LogFault::kForeignUnlogged});
  Add(EventType::kInventoryGone, ForeignReason(Row(), "no longer there"));
  EXPECT_EQ(Compare({Row()}), Faults{LogFault::kForeignUnlogged});
}

TEST(ForeignMark, IsReadFromAReasonOfAnyLength) {
  auto row = Row();
  row.place = "/" + std::string(4000, 'x') + "\xff\u2028";
  const ForeignMark mark = MarkForeign(row);
  const auto read = ReadForeignMark(ForeignReason(row, "opened by tpm").substr(0, 128));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->name, mark.name);
  EXPECT_EQ(read->content, mark.content);
  EXPECT_FALSE(ReadForeignMark(ForeignReason(row, "").substr(0, 127)));
  EXPECT_FALSE(ReadForeignMark(""));
  EXPECT_TRUE(
      IsUnmarkedFor("foreign escrow, not held and not proven: clevis-tang in jwe of /xxx", row));
}

// No part of one text reads as the beginning of the next.
TEST(ForeignMark, KeepsItsTextsApart) {
  auto row = Row();
  auto other = Row();
  row.place = "/a";
  row.item = "bc";
  other.place = "/ab";
  other.item = "c";
  EXPECT_NE(MarkForeign(row).name, MarkForeign(other).name);
}

}  // namespace
}  // namespace keyescrow::agent
