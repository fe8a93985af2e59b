// PolicyTimeline: what a store says of its policies against the log, and envelopes against them.
#include "agent/usecases/policy_timeline.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

#include "agent/policy/signature.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"
#include "envelope/signing_key.h"

namespace keyescrow::agent {
namespace {

using audit::LogFault;
using audit::LogFindings;
using envelope::SigningKey;
using testing::HasSubstr;

constexpr std::int64_t kJanuary = 1767225600;  // 2026-01-01
constexpr std::int64_t kDay = 86400;

class PolicyTimelineTest : public testing::Test {
 protected:
  // Set adds the policy to the store and the log, at entry `seq`, a day later for each.
  void Set(std::uint64_t seq, std::uint64_t serial, const std::string& rule,
           const SigningKey* signer = nullptr, const std::string& more = "") {
    const std::string text = fmt::format(
        "[policy]\nname = \"corp\"\nserial = {}\nmode = \"enforce\"\nsimulators = "
        "\"allowed\"\n{}[[rule]]\nname = \"r\"\nmatch = \"**\"\n{}",
        serial, more, rule);
    const policy::Policy parsed = *policy::ParsePolicy(text, "policy.toml");
    const SigningKey& key = signer == nullptr ? alice_ : *signer;
    store::PolicyRecord row;
    row.serial = serial;
    row.name = "corp";
    row.sha256 = Sha256(AsBytes(text));
    row.text = text;
    row.note = policy::AddSignature(parsed, "", *key.SignLine(policy::SignedText(parsed)));
    row.signers = policy::FormatSigners({1, {alice_.Public()}});
    row.next_signers =
        policy::FormatSigners(parsed.signers.value_or(policy::Signers{1, {alice_.Public()}}));
    row.set_time = kJanuary + static_cast<std::int64_t>(serial) * kDay;
    sets_.push_back({seq, kJanuary + static_cast<std::int64_t>(serial) * kDay, serial, row.sha256,
                     PolicySigners(row.signers)});
    rows_.push_back(std::move(row));
  }
  // Of is a key under a password alone, made on that day.
  static envelope::Header Of(std::int64_t day) {
    envelope::Header header;
    header.key_name = "app/key";
    header.key_version = 1;
    header.host = "db1";
    header.created = FormatUtc(kJanuary + day * kDay);
    header.updated = header.created;
    envelope::PathRecord& path = header.paths.emplace_back();
    path.id = "alone";
    path.factors.emplace_back(envelope::PasswordRecord{envelope::Argon2idParameters{}, ""});
    return header;
  }
  std::string Violation(std::uint64_t seq, std::int64_t day, std::int64_t first_day = -1) {
    LogFindings findings;
    const PolicyTimeline timeline(sets_, rows_, findings);
    EXPECT_EQ(findings.num_all, 0U);
    return timeline.Violation(Of(day), seq, kJanuary + (first_day < 0 ? day : first_day) * kDay);
  }
  LogFindings Findings() {
    LogFindings findings;
    const PolicyTimeline timeline(sets_, rows_, findings);
    num_checked_ = timeline.num_policies();
    return findings;
  }

  SigningKey alice_ = *SigningKey::GenerateEd25519(SystemRandom(), "alice");
  SigningKey bob_ = *SigningKey::GenerateEd25519(SystemRandom(), "bob");
  std::vector<PolicySet> sets_;
  std::vector<store::PolicyRecord> rows_;
  std::uint64_t num_checked_ = 0;
};

TEST_F(PolicyTimelineTest, TheBuiltInPolicyHoldsUntilOneIsSet) {
  EXPECT_THAT(Violation(5, 1), HasSubstr("builtin-1"));
}

TEST_F(PolicyTimelineTest, EachEnvelopeIsHeldToThePolicyOfItsTime) {
  Set(10, 1, "");  // allows a password alone
  Set(20, 2, "require = [\"tpm\"]\n");
  Set(30, 3, "require = [\"token:ops\"]\n");
  EXPECT_EQ(Violation(15, 1), "");
  // What was set right before may not have been read yet; the one before that was.
  EXPECT_EQ(Violation(25, 2), "");
  EXPECT_THAT(Violation(25, 3), HasSubstr("corp serial 2"));
  EXPECT_THAT(Violation(35, 3), HasSubstr("corp serial 3"));
}

TEST_F(PolicyTimelineTest, AnEditNeedNotMendWhatTheRevisionBeforeItLacked) {
  for (const std::uint64_t serial : {1U, 2U}) {
    Set(10 + serial, serial, "require = [\"token:ops\"]\nforbid = [\"tpm\"]\n");
  }
  LogFindings findings;
  const PolicyTimeline timeline(sets_, rows_, findings);
  const envelope::Header before = Of(1);
  envelope::Header after = Of(2);
  EXPECT_THAT(timeline.Violation(after, 15, kJanuary), HasSubstr("token:ops"));
  EXPECT_EQ(timeline.Violation(after, 15, kJanuary, &before), "");
  after.paths.emplace_back().id = "tpm";
  envelope::Tpm2Record tpm;
  tpm.host = after.host;
  after.paths.back().factors.emplace_back(tpm);
  EXPECT_THAT(timeline.Violation(after, 15, kJanuary, &before), HasSubstr("forbids"));
}

TEST_F(PolicyTimelineTest, GraceAndExceptionsAreThoseOfTheirTime) {
  Set(10, 1, "require = [\"tpm\"]\n");
  Set(20, 2,
      "require = [\"tpm\"]\ngrace = \"10d\"\n[[exception]]\nrule = \"r\"\nkey = \"app/key\"\n"
      "until = 2026-03-01T00:00:00Z\nreason = \"moving\"\n");
  Set(30, 3, "require = [\"tpm\"]\ngrace = \"10d\"\n");
  EXPECT_EQ(Violation(25, 20, 3), "");                            // the exception holds
  EXPECT_THAT(Violation(25, 80, 3), HasSubstr("corp serial 2"));  // it has ended
  EXPECT_EQ(Violation(35, 70, 65), "");                           // a young key
  EXPECT_THAT(Violation(35, 70, 3), HasSubstr("corp serial 3"));  // an old one
}

TEST_F(PolicyTimelineTest, TheStoreSaysWhatTheLogSays) {
  Set(10, 1, "");
  Set(20, 2, "");
  EXPECT_EQ(Findings().num_all, 0U);
  EXPECT_EQ(num_checked_, 2U);
  const auto rows = rows_;
  rows_[1].text += "# more\n";
  EXPECT_EQ(Findings().list.at(0).fault, LogFault::kPolicyUnlogged);
  rows_[1].sha256 = Sha256(AsBytes(rows_[1].text));
  EXPECT_EQ(Findings().num_damages, 1U);
  rows_ = rows;
  rows_.pop_back();
  EXPECT_EQ(Findings().list.at(0).position, 20U);
  rows_ = rows;
  sets_.pop_back();
  EXPECT_EQ(Findings().num_damages, 1U);
}

TEST_F(PolicyTimelineTest, TheFirstSignersAreThoseOfTheLog) {
  Set(10, 1, "");
  store::PolicyRecord& row = rows_[0];
  const policy::Policy parsed = *policy::ParsePolicy(row.text, "policy.toml");
  // Another signs the same text, and the row says that it was theirs from the beginning.
  row.note = policy::AddSignature(parsed, "", *bob_.SignLine(policy::SignedText(parsed)));
  row.signers = policy::FormatSigners({1, {bob_.Public()}});
  row.next_signers = row.signers;
  const LogFindings findings = Findings();
  ASSERT_EQ(findings.num_damages, 1U);
  EXPECT_THAT(findings.list.at(0).text,
              HasSubstr("its signers are others than those of the entry"));
  sets_[0].signers.clear();  // an entry of before, which does not tell
  EXPECT_EQ(Findings().num_all, 0U);
}

TEST_F(PolicyTimelineTest, WhatARowSaysBesideTheTextIsTheLogsToo) {
  const std::string list = "password1\n";
  Set(10, 1, "", nullptr,
      "[passwords.office]\nblocklist = \"list\"\nblocklist_sha256 = \"" +
          ToHex(Sha256(AsBytes(list))) + "\"\n");
  rows_[0].files = {{"list", ToBytes(AsBytes(list))}};
  Set(20, 2, "");
  ASSERT_EQ(Findings().num_all, 0U);
  const auto told = [&](auto change) {
    const auto rows = rows_;
    change(rows_);
    const LogFindings findings = Findings();
    rows_ = rows;
    return findings.num_damages == 1 ? findings.list.at(0).text : std::string();
  };
  const std::string mallory = policy::FormatSigners({1, {bob_.Public()}});
  EXPECT_THAT(told([&](auto& rows) { rows[1].next_signers = mallory; }), HasSubstr("the next one"));
  EXPECT_THAT(told([&](auto& rows) { rows[0].next_signers = mallory; }), HasSubstr("the next one"));
  EXPECT_THAT(told([&](auto& rows) { rows[1].signers = mallory; }), HasSubstr("other signers"));
  EXPECT_THAT(told([](auto& rows) { rows[1].signers = ""; }), HasSubstr("other signers"));
  EXPECT_THAT(told([](auto& rows) { rows[0].set_time += 61; }), HasSubstr("2026-01-02T00:01:01Z"));
  EXPECT_THAT(told([](auto& rows) { rows[0].set_time -= 61; }), HasSubstr("it was set at"));
  EXPECT_EQ(told([](auto& rows) { rows[0].set_time += 60; }), "");
  EXPECT_THAT(told([](auto& rows) { rows[0].files[0].bytes.clear(); }), HasSubstr("blocklists"));
  EXPECT_THAT(told([](auto& rows) { rows[0].files.clear(); }), HasSubstr("blocklists"));
  EXPECT_THAT(told([](auto& rows) { rows[1].files = rows[0].files; }), HasSubstr("blocklists"));
}

TEST_F(PolicyTimelineTest, OnlyTheNamedSignersCount) {
  Set(10, 1, "", nullptr, "[signers]\nthreshold = 1\nkeys = [\"" + bob_.Public().Vkey() + "\"]\n");
  Set(20, 2, "", &bob_);  // named by the first
  rows_[1].signers = rows_[1].next_signers = policy::FormatSigners({1, {bob_.Public()}});
  sets_[1].signers = PolicySigners(rows_[1].signers);
  EXPECT_EQ(Findings().num_all, 0U);
  Set(30, 3, "", &alice_);  // no longer
  EXPECT_EQ(Findings().num_damages, 1U);
}

}  // namespace
}  // namespace keyescrow::agent
