// What a pack's statements must have in common with its log: revisions, agents, proofs, releases.
#include "agent/usecases/pack_history.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "agent/report/report_model.h"
#include "agent/usecases/pack_documents.h"
#include "agent/usecases/registration_check.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent {
namespace {

using Json = nlohmann::ordered_json;
using audit::LogFault;

constexpr std::int64_t kTime = 1'795'600'000;

std::vector<LogFault> FaultsOf(const audit::LogFindings& findings) {
  std::vector<LogFault> faults;
  for (const audit::LogFinding& finding : findings.list) faults.push_back(finding.fault);
  return faults;
}

// ---- summaries

EnvelopeSummary Envelope(std::uint32_t version, std::uint32_t revision, std::uint64_t seq) {
  EnvelopeSummary summary;
  summary.key_name = "prod/db";
  summary.key_version = version;
  summary.revision = revision;
  summary.sha256 = Bytes32{static_cast<std::uint8_t>(seq)};
  summary.log_seq = seq;
  summary.host = "db1";
  summary.agent = "own";
  return summary;
}

struct History {
  // Version 1 with two revisions, and version 2.
  Summaries summaries = {{3, Envelope(1, 1, 3)}, {5, Envelope(1, 2, 5)}, {7, Envelope(2, 1, 7)}};
  std::set<std::uint64_t> imported;
  TrustChanges changes;
  std::vector<store::TrustRecord> rows;

  History() { summaries[5].previous = EncodeBase64Url(summaries[3].sha256); }
  std::vector<LogFault> Check() const {
    audit::LogFindings findings;
    CheckSummaries(summaries, imported, TrustTimeline({"own"}, changes, rows), {}, findings);
    return FaultsOf(findings);
  }
};

using Faults = std::vector<LogFault>;

TEST(PackSummaries, ContinueEachOther) {
  EXPECT_EQ(History().Check(), Faults());
  History other;
  other.summaries[5].previous = EncodeBase64Url(Bytes32{9});
  EXPECT_EQ(other.Check(), Faults{LogFault::kRevisionChain});
}

TEST(PackSummaries, HaveNoGapButBeforeAnImport) {
  History gap;
  gap.summaries.erase(3);
  EXPECT_EQ(gap.Check(), Faults{LogFault::kVersionGap});
  gap.imported.insert(5);
  EXPECT_EQ(gap.Check(), Faults());
  History version;
  version.summaries[7].key_version = 3;
  EXPECT_EQ(version.Check(), Faults{LogFault::kVersionGap});
}

TEST(PackSummaries, AreNeverOfOneRevision) {
  History twice;
  twice.summaries[9] = Envelope(2, 1, 9);
  EXPECT_EQ(twice.Check(), Faults{LogFault::kPackContents});
}

TEST(PackSummaries, AreOfAgentsThatCountedAtTheirEntry) {
  History other;
  other.summaries[7].agent = "theirs";
  EXPECT_EQ(other.Check(), Faults{LogFault::kEnvelopeSignature});
  other.rows = {{"theirs", {}, "db1", {"db*"}, {"prod/**"}, kTime, std::nullopt}};
  other.changes["theirs"] = {{4, true, TrustLimits({"db*"}, {"prod/**"})}};
  EXPECT_EQ(other.Check(), Faults());
  other.changes["theirs"][0].seq = 8;
  EXPECT_EQ(other.Check(), Faults{LogFault::kEnvelopeSignature});
  other.changes["theirs"][0].seq = 4;
  other.changes["theirs"].push_back({6, false, ""});
  EXPECT_EQ(other.Check(), Faults{LogFault::kEnvelopeSignature});
  other.changes["theirs"].pop_back();
  other.summaries[7].host = "web1";
  EXPECT_EQ(other.Check(), Faults{LogFault::kEnvelopeSignature});
}

// ---- status.json

Json Status() {
  return {{"keys",
           {{{"name", "prod/db"},
             {"escrowed", true},
             {"version", 2},
             {"revision", 1},
             {"paths",
              {{{"id", "tpm"}, {"condition", "proven"}, {"proven", FormatUtc(kTime)}},
               {{"id", "token"}, {"condition", "unproven"}, {"proven", nullptr}}}}},
            {{"name", "declared"}, {"escrowed", false}}}},
          {"releases",
           {{{"seq", 4},
             {"outcome_seq", 6},
             {"key", "prod/db"},
             {"version", 2},
             {"outcome", "completed"}},
            {{"seq", 9},
             {"outcome_seq", nullptr},
             {"key", "prod/db"},
             {"version", 2},
             {"outcome", "pending"}},
            {{"seq", 8},
             {"outcome_seq", 8},
             {"key", "prod/db"},
             {"version", 2},
             {"outcome", "failed"}}}}};
}

struct Entry {
  std::uint64_t seq = 0;
  audit::EventType type{};
  std::string_view path;
};

struct Log {
  std::vector<Entry> entries = {{2, audit::EventType::kDrillPassed, "tpm"},
                                {4, audit::EventType::kRestoreRequested, "tpm"},
                                {6, audit::EventType::kRestoreCompleted, "other"},
                                {8, audit::EventType::kRestoreFailed, ""},
                                {9, audit::EventType::kRestoreRequested, "tpm"}};
  std::int64_t time = kTime + 60;
  std::uint32_t revision = 1;
  bool proof_fails = false;

  std::vector<LogFault> Compare(const Json& status) const {
    auto claims = StatusClaims::Parse(status.dump());
    if (!claims) return {LogFault::kPackMember};
    audit::LogFindings findings;
    for (const Entry& entry : entries) {
      audit::EventFacts facts;
      facts.type = entry.type;
      facts.time = time;
      facts.key_name = "prod/db";
      facts.key_version = 2;
      facts.revision = revision;
      facts.path_id = entry.path;
      claims->Notice(entry.seq, facts, proof_fails, findings);
    }
    claims->Finish(EventOrder(), findings);
    return FaultsOf(findings);
  }
};

TEST(PackStatusClaims, AreWhatTheEntriesTell) {
  EXPECT_EQ(Log().Compare(Status()), Faults());
  EXPECT_EQ(StatusClaims::Parse(Status().dump())->num_proofs(), 1U);
  EXPECT_EQ(StatusClaims::Parse(Status().dump())->num_releases(), 3U);
}

TEST(PackStatusClaims, OfAProofNeedItsEntry) {
  Log later;
  later.time = kTime + 61;
  EXPECT_EQ(later.Compare(Status()), Faults{LogFault::kProofUnlogged});
  Log fails;
  fails.proof_fails = true;
  EXPECT_EQ(fails.Compare(Status()), Faults{LogFault::kProofUnlogged});
  Log older;
  older.revision = 2;
  EXPECT_EQ(older.Compare(Status()), Faults{LogFault::kProofUnlogged});
  Json stale = Status();
  stale["keys"][0]["paths"][0]["condition"] = "stale";
  EXPECT_EQ(older.Compare(stale), Faults());
  Log other;
  other.entries[0].path = "token";
  EXPECT_EQ(other.Compare(Status()), Faults{LogFault::kProofUnlogged});
}

TEST(PackStatusClaims, OfReleasesAreAllAndNoMore) {
  for (std::size_t i = 0; i < 3; ++i) {
    Json fewer = Status();
    fewer["releases"].erase(i);
    EXPECT_EQ(Log().Compare(fewer), Faults(i == 0 ? 2 : 1, LogFault::kPackContents)) << i;
    Json other = Status();
    other["releases"][i]["key"] = "prod/other";
    EXPECT_FALSE(Log().Compare(other).empty()) << i;
  }
  Json other_end = Status();
  other_end["releases"][0]["outcome"] = "denied";
  EXPECT_FALSE(Log().Compare(other_end).empty());
  Log fewer;
  fewer.entries.pop_back();
  EXPECT_EQ(fewer.Compare(Status()), Faults{LogFault::kPackContents});
}

TEST(PackStatusClaims, RefuseOtherShapes) {
  const auto refused = [](const std::function<void(Json&)>& change) {
    Json status = Status();
    change(status);
    return !StatusClaims::Parse(status.dump());
  };
  EXPECT_TRUE(refused([](Json& s) { s.erase("releases"); }));
  EXPECT_TRUE(refused([](Json& s) { s["keys"] = nullptr; }));
  EXPECT_TRUE(refused([](Json& s) { s["keys"][0]["paths"][0]["proven"] = nullptr; }));
  EXPECT_TRUE(refused([](Json& s) { s["keys"][0]["paths"][0]["proven"] = "yesterday"; }));
  EXPECT_TRUE(refused([](Json& s) { s["keys"][0]["paths"][0].erase("condition"); }));
  EXPECT_TRUE(refused([](Json& s) { s["releases"][1]["outcome"] = "completed"; }));
  EXPECT_TRUE(refused([](Json& s) { s["releases"][0]["outcome"] = "pending"; }));
  EXPECT_TRUE(refused([](Json& s) { s["releases"][1]["seq"] = 4; }));
  EXPECT_TRUE(refused([](Json& s) { s["releases"][1]["seq"] = -4; }));
}

// ---- conditions of paths

// Conditions: status.json of one key with a path by a token and one to a recovery key, and a log.
class Conditions : public testing::Test {
 protected:
  static Json Path(std::string id, std::string factors) {
    return {{"id", std::move(id)}, {"factors", std::move(factors)}, {"condition", "unproven"},
            {"proven", nullptr},   {"covered_since", nullptr},      {"failure", nullptr}};
  }
  Conditions() {
    Event enrolled = OfRecoveryKey(audit::EventType::kFactorEnrolled);
    Add(enrolled);
    Add(OfPath(audit::EventType::kEscrowCreated, ""));
  }
  Json& Token() { return status_["keys"][0]["paths"][0]; }
  Json& Team() { return status_["keys"][0]["paths"][1]; }
  static void Break(Json& path, std::string code) {
    path["condition"] = "broken";
    path["failure"] = std::move(code);
  }

  using Event = audit::Event;
  static Event OfPath(audit::EventType type, std::string path, std::string error = "") {
    Event event;
    event.type = type;
    event.outcome = error.empty() ? audit::Outcome::kSuccess : audit::Outcome::kFailure;
    event.error = std::move(error);
    event.key = audit::EventKey{"prod/db", 2};
    event.envelope = audit::EventEnvelope{"e", 1, Bytes32{1}};
    if (!path.empty()) event.paths.emplace_back().id = std::move(path);
    return event;
  }
  static Event OfRecoveryKey(audit::EventType type, std::string error = "") {
    Event event = OfPath(type, "", std::move(error));
    event.key.reset();
    event.envelope.reset();
    event.paths.emplace_back().factors.push_back(
        {std::string(kRecoveryKeyKind), "team", Bytes32{7}, ""});
    return event;
  }
  void Add(Event event, std::int64_t seconds_later = 1) {
    event.source = event.source.empty() ? "keyescrow/test/log" : event.source;
    event.host = "h";
    event.time = time_ += seconds_later;
    event.id = Bytes16{static_cast<std::uint8_t>(lines_.size() + 1)};
    lines_.push_back(*audit::SerializeEvent(event));
  }
  Faults Compare() {
    auto claims = StatusClaims::Parse(status_.dump());
    if (!claims) return {LogFault::kPackMember};
    audit::LogFindings findings;
    EventOrder order;
    NoticedSegment segment;
    audit::EventReader reader;
    for (std::size_t seq = 0; seq < lines_.size(); ++seq) {
      const auto facts = reader.Read(lines_[seq]);
      EXPECT_TRUE(facts) << lines_[seq];
      if (!facts) continue;
      segment.Notice(seq, *facts);
      claims->Notice(seq, *facts, false, findings);
    }
    order.Add(std::move(segment), findings);
    claims->Finish(order, findings);
    return FaultsOf(findings);
  }

  const Faults bad_{LogFault::kPackContents};
  std::int64_t time_ = kTime;
  std::vector<std::string> lines_;
  Json status_ = {{"form", report::kReportForm},
                  {"agent", "own"},
                  {"keys",
                   {{{"name", "prod/db"},
                     {"agent", "own"},
                     {"escrowed", true},
                     {"version", 2},
                     {"revision", 1},
                     {"paths", {Path("token", "token:ops"), Path("team", "recovery-key:team")}}}}},
                  {"releases", Json::array()}};
};

TEST_F(Conditions, ABrokenPathIsOneThatAnEntrySaysFailed) {
  EXPECT_EQ(Compare(), Faults());
  Break(Token(), "factor_bad");
  EXPECT_EQ(Compare(), bad_);  // made up
  Add(OfPath(audit::EventType::kDrillFailed, "token", "factor_bad"));
  EXPECT_EQ(Compare(), Faults());
  Token()["failure"] = "envelope_mac";
  EXPECT_EQ(Compare(), bad_);
  Token()["condition"] = "unproven";
  EXPECT_EQ(Compare(), bad_);  // hidden
}

TEST_F(Conditions, AFailureEndsWhenThePathOpensOrIsMadeAnew) {
  for (const auto end : {audit::EventType::kDrillPassed, audit::EventType::kFactorEnrolled}) {
    Add(OfPath(audit::EventType::kDrillFailed, "token", "factor_bad"));
    EXPECT_EQ(Compare(), bad_);
    Event imported = OfPath(end, "token");
    imported.source = audit::kStatelessSource;
    if (end == audit::EventType::kDrillPassed) Add(imported);
    EXPECT_EQ(Compare(), bad_);
    Add(OfPath(end, "team"));
    EXPECT_EQ(Compare(), bad_);
    Add(OfPath(end, "token"));
    EXPECT_EQ(Compare(), Faults());
  }
}

TEST_F(Conditions, WhatTellsNothingOfThePathBreaksNone) {
  Add(OfPath(audit::EventType::kDrillFailed, "token", "wrong_password"));
  Add(OfPath(audit::EventType::kDrillFailed, "token", "tpm_wrong_device"));  // never opened here
  Event other = OfPath(audit::EventType::kDrillFailed, "token", "envelope_mac");
  other.envelope->sha256 = Bytes32{9};  // of a file that is another revision's
  Add(other);
  Event imported = OfPath(audit::EventType::kDrillFailed, "token", "envelope_mac");
  imported.source = audit::kStatelessSource;
  Add(imported);
  EXPECT_EQ(Compare(), Faults());
  Add(OfPath(audit::EventType::kDrillPassed, "token"));
  Add(OfPath(audit::EventType::kDrillFailed, "token", "tpm_wrong_device"));
  EXPECT_EQ(Compare(), bad_);
}

TEST_F(Conditions, AFailedRecoveryKeyBreaksWhatWasEscrowedUnderItsRecord) {
  Add(OfRecoveryKey(audit::EventType::kDrillFailed, "token_key_not_found"));
  EXPECT_EQ(Compare(), bad_);
  Break(Team(), "token_key_not_found");
  EXPECT_EQ(Compare(), Faults());
  Add(OfRecoveryKey(audit::EventType::kDrillPassed));
  EXPECT_EQ(Compare(), bad_);
  Team()["condition"] = "unproven";
  EXPECT_EQ(Compare(), Faults());
  Add(OfRecoveryKey(audit::EventType::kDrillFailed, "token_key_not_found"));
  EXPECT_EQ(Compare(), bad_);
  // Under another agent, or an older record, the copy is not known to be the one that failed.
  status_["keys"][0]["agent"] = "other";
  EXPECT_EQ(Compare(), Faults());
  status_["keys"][0]["agent"] = "own";
  lines_.erase(lines_.begin());
  Add(OfRecoveryKey(audit::EventType::kFactorEnrolled));
  EXPECT_EQ(Compare(), Faults());
}

// Of another form it is said that it was not made anew.
TEST_F(Conditions, OfAnotherFormAreNotRead) {
  Add(OfPath(audit::EventType::kDrillFailed, "token", "factor_bad"));
  status_["form"] = report::kReportForm + 1;
  EXPECT_EQ(Compare(), Faults());
}

// ---- agents and tokens

TEST(PackTrustedAgents, AreReadAsTheyWereWritten) {
  const std::vector<store::TrustRecord> rows = {
      {"a", {}, "db1", {"db*"}, {"prod/**"}, kTime, std::nullopt},
      {"b", {}, "", {}, {}, kTime, kTime + 1}};
  const auto read = ParseTrustedAgents(TrustedAgentsJson(rows));
  ASSERT_TRUE(read);
  EXPECT_EQ(TrustedAgentsJson(*read), TrustedAgentsJson(rows));
  EXPECT_EQ(read->at(0).keys, rows[0].keys);
  EXPECT_EQ(read->at(1).removed, kTime + 1);
  EXPECT_TRUE(ParseTrustedAgents("[]"));
  for (const char* text : {"", "{}", "[7]", "[{}]", "null"}) {
    EXPECT_FALSE(ParseTrustedAgents(text)) << text;
  }
}

TEST(PackTokens, AreReadAsTheyWereWrittenAndHeldAgainstTheLog) {
  store::TokenRecord token;
  token.name = "ops";
  token.uri = "pkcs11:token=ops";
  token.spki = Bytes(91, 7);
  const auto read = ParseTokens(TokensJson({token}));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->at(0).spki, token.spki);
  EXPECT_EQ(TokensJson(*read), TokensJson({token}));
  for (const char* text : {"", "{}", "[7]", "[{}]", "null"}) EXPECT_FALSE(ParseTokens(text));
  const auto faults = [&](const TokenChanges& changes) {
    audit::LogFindings findings;
    CompareTokens(*read, changes, findings);
    return findings.num_all;
  };
  EXPECT_EQ(faults({{"ops", {1, true, std::nullopt}}}), 0U);
  EXPECT_EQ(faults({{"ops", {1, true, Bytes32{1}}}}), 1U);
  EXPECT_EQ(faults({{"ops", {1, false, std::nullopt}}}), 1U);
  EXPECT_EQ(faults({}), 1U);
  EXPECT_EQ(faults({{"ops", {1, true, std::nullopt}}, {"dev", {2, true, std::nullopt}}}), 1U);
}

// ---- the log

TEST(EventOrder, FindsAnImportedEventThatStandsTwice) {
  EventOrder order;
  audit::LogFindings findings;
  for (std::uint64_t seq = 4; seq < 7; ++seq) {
    NoticedSegment segment;
    NoticedEvent& event = segment.events.emplace_back();
    event.seq = seq;
    event.type = audit::EventType::kDrillPassed;
    event.stateless = true;
    event.id = Bytes16{static_cast<std::uint8_t>(seq == 5 ? 9 : 1)};
    order.Add(std::move(segment), findings);
  }
  order.Finish(findings);
  EXPECT_EQ(FaultsOf(findings), Faults{LogFault::kEntryChain});
  EXPECT_EQ(findings.list.front().position, 6U);
  EXPECT_EQ(order.imported().size(), 2U);
}

// An imported event was signed by nobody: it neither registers nor removes, trusts nor governs.
TEST(EventOrder, AnImportedEventVouchesForNothing) {
  EventOrder order;
  audit::LogFindings findings;
  std::uint64_t seq = 0;
  const auto add = [&](audit::EventType type, bool stateless, std::string key = "",
                       std::string reason = "") {
    NoticedSegment segment;
    NoticedEvent& event = segment.events.emplace_back();
    event.seq = ++seq;
    event.type = type;
    event.stateless = stateless;
    event.id = Bytes16{static_cast<std::uint8_t>(seq)};
    event.key_name = std::move(key);
    event.key_version = event.key_name.empty() ? 0 : 1;
    event.name = "ops";
    event.reason = std::move(reason);
    order.Add(std::move(segment), findings);
  };
  const std::string thumbprint = std::string(42, 'B') + "A";
  add(audit::EventType::kFactorEnrolled, false);
  add(audit::EventType::kFactorRemoved, true);
  add(audit::EventType::kPolicyChanged, true, "", "trust added: " + thumbprint);
  add(audit::EventType::kKeyRotated, true, "app/key");
  add(audit::EventType::kGateOverridden, true, "app/key");
  EXPECT_EQ(FaultsOf(findings), Faults(4, LogFault::kImportedDrill));
  EXPECT_EQ(findings.num_damages, 0U);
  EXPECT_TRUE(order.tokens().at("ops").added);
  EXPECT_TRUE(order.trust().empty());
  EXPECT_TRUE(order.gate_overrides().empty());
  // A release that nothing asked for is damage where the log itself tells of it.
  add(audit::EventType::kRestoreCompleted, true, "app/key");
  EXPECT_EQ(findings.num_damages, 0U);
  add(audit::EventType::kRestoreCompleted, false, "app/key");
  EXPECT_EQ(findings.num_damages, 1U);
  EXPECT_EQ(findings.list.back().fault, LogFault::kReleaseUnasked);
  add(audit::EventType::kRestoreRequested, true, "app/key");
  EXPECT_EQ(order.num_releases(), 0U);
}

TEST(EventOrder, KeepsTheLastOverrideOfEachKey) {
  EventOrder order;
  audit::LogFindings findings;
  for (std::uint64_t seq = 4; seq < 6; ++seq) {
    NoticedSegment segment;
    NoticedEvent& event = segment.events.emplace_back();
    event.seq = seq;
    event.type = audit::EventType::kGateOverridden;
    event.time = 1000 * static_cast<std::int64_t>(seq);
    event.key_name = "app/key";
    event.key_version = static_cast<std::uint32_t>(seq);
    event.reason = OverrideReason("key_drift, not_compared", "urgent");
    order.Add(std::move(segment), findings);
  }
  order.Finish(findings);
  const auto faults = [&](const std::vector<store::GateOverrideRecord>& rows) {
    audit::LogFindings compared;
    CompareOverrides(rows, order.gate_overrides(), compared);
    return FaultsOf(compared);
  };
  EXPECT_EQ(faults({{"app/key", 5, 5060, "urgent"}}), Faults{});
  EXPECT_EQ(faults({{"app/key", 5, 5061, "urgent"}}), Faults{LogFault::kOverrideUnlogged});
  EXPECT_EQ(faults({{"app/key", 4, 5000, "urgent"}}), Faults{LogFault::kOverrideUnlogged});
  EXPECT_EQ(faults({}), Faults{LogFault::kOverrideUnlogged});
  EXPECT_EQ(faults({{"app/key", 5, 5000, "urgent"}, {"app/other", 1, 5000, ""}}),
            Faults{LogFault::kOverrideUnlogged});
  for (const auto* other : {"", "urgent: yes", "yes, urgent", "not_compared: urgent"}) {
    EXPECT_EQ(faults({{"app/key", 5, 5000, other}}), Faults{LogFault::kOverrideUnlogged}) << other;
  }
}

TEST(EventOrder, ALongReasonOfAnOverrideIsComparedAsFarAsTheLogHasIt) {
  const auto logged = [](const std::string& reason) {
    audit::Event event;
    event.type = audit::EventType::kGateOverridden;
    event.key = audit::EventKey{"app/key", 1};
    event.reason = OverrideReason("key_drift", reason);
    const auto line = audit::SerializeEvent(event);
    const auto read = audit::ParseEvent(*line);
    return GateOverride{0, 0, 1, read->reason, read->truncated};
  };
  std::string escaped;  // three bytes that take six: the event is too long for them
  while (escaped.size() < 600) escaped += "\u2028";
  for (const auto& reason : {std::string(600, 'x'), "a\xff" + std::string(600, '"'), escaped}) {
    const GateOverride gate = logged(reason);
    EXPECT_TRUE(IsOverrideFor(gate, reason)) << reason;
    EXPECT_FALSE(IsOverrideFor(gate, "y" + reason)) << reason;
    EXPECT_FALSE(IsOverrideFor(gate, "")) << reason;
  }
  // What is whole is compared as a whole.
  EXPECT_FALSE(IsOverrideFor(logged(std::string(117, 'x')), std::string(118, 'x')));
}

}  // namespace
}  // namespace keyescrow::agent
