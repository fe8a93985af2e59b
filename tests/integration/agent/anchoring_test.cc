// Anchoring on a swtpm, with a store of its own: what a killed process leaves, and what somebody
// does who puts an older store or an older TPM back.
#include "agent/usecases/anchoring.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "agent/usecases/anchor_counters.h"
#include "simulators/counting_tcti.h"
#include "simulators/swtpm_fixture.h"
#include "tests/unit/store/state_fixture.h"
#include "tpm/agent_key.h"
#include "tpm/anchor.h"
#include "tpm/tpm_factor.h"

namespace keyescrow::agent {
namespace {

// TpmDevices: the TPM alone, with a bus that can break.
class TpmDevices final : public Devices, public AnchorCounters {
 public:
  TpmDevices(std::string tcti, std::shared_ptr<simulators::Fault> fault)
      : tcti_(std::move(tcti)), fault_(std::move(fault)) {}

  void UseTpm(const std::string&, const Bytes&) override {}
  Result<envelope::TpmFactor*> Tpm() override { return NoDevice(); }
  Status PersistSrk() override {
    ASSIGN_OR_RETURN(const auto device, Open());
    return device->PersistSrk();
  }
  Result<TpmAgentKeyBlob> CreateAgentKey(const SecretBytes&) override { return NoDevice(); }
  Result<std::unique_ptr<envelope::Signer>> OpenAgentKey(const TpmAgentKeyBlob&,
                                                         SecretBytes) override {
    return NoDevice();
  }
  void LastSignature() override {}
  Result<TpmAnchorBlob> CreateAnchor(const SecretBytes& auth, const std::string& origin) override {
    ASSIGN_OR_RETURN(const auto device, Open());
    ASSIGN_OR_RETURN(tpm::CreatedAnchor made, tpm::TpmAnchor::Create(*device, auth, origin));
    return TpmAnchorBlob{made.blob.key, made.blob.attestation_private, made.base};
  }
  Result<std::unique_ptr<envelope::Anchor>> OpenAnchor(const TpmAnchorBlob& blob, SecretBytes auth,
                                                       const std::string& origin) override {
    ASSIGN_OR_RETURN(const auto device, Open());
    ASSIGN_OR_RETURN(auto anchor, tpm::TpmAnchor::Open(device, {blob.key, blob.attestation_private},
                                                       blob.base, std::move(auth), origin));
    return std::unique_ptr<envelope::Anchor>(std::move(anchor));
  }
  Result<std::vector<FoundCounter>> FindCounters(const std::string& origin) override {
    ASSIGN_OR_RETURN(const auto device, Open());
    ASSIGN_OR_RETURN(const auto indexes, tpm::TpmAnchor::Find(*device, origin));
    std::vector<FoundCounter> counters;
    for (const auto& index : indexes) counters.push_back({index.handle, index.counted});
    return counters;
  }
  Status RemoveCounter(std::uint32_t index, const std::string& origin) override {
    ASSIGN_OR_RETURN(const auto device, Open());
    return tpm::TpmAnchor::Remove(*device, index, origin);
  }
  Result<TokenUri> ParseTokenUri(const std::string&) override { return NoDevice(); }
  Result<std::unique_ptr<envelope::TokenFactor>> StartToken(const TokenSpec&,
                                                            envelope::PinProvider&) override {
    return NoDevice();
  }
  Result<ModuleFacts> InspectModule(const std::string&) override { return NoDevice(); }
  Result<TokenKeyFacts> FindTokenKey(const std::string&, const std::string&,
                                     envelope::PinProvider*) override {
    return NoDevice();
  }
  Result<std::string> ReadTokenEvidence(const TokenSpec&, envelope::PinProvider&) override {
    return NoDevice();
  }
  Result<TokenKeyFacts> GenerateTokenKey(const KeyPairRequest&, envelope::PinProvider&) override {
    return NoDevice();
  }

 private:
  static Error NoDevice() {
    return Error(ErrorCode::kTpmUnavailable, Action::kReconnect, "not in this test", "none");
  }
  // A new connection for each use, as each process has one.
  Result<std::shared_ptr<tpm::Device>> Open() {
    tpm::DeviceOptions options;
    options.tcti = tcti_;
    options.decorate = simulators::FaultyDecorator(fault_);
    return tpm::Device::Open(std::move(options));
  }

  std::string tcti_;
  std::shared_ptr<simulators::Fault> fault_;
};

class FixedClock final : public Clock {
 public:
  std::int64_t NowUnixSeconds() override { return now; }
  std::int64_t now = 1'800'000'000;
};

class Anchoring : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(devices_.PersistSrk()); }

  // Process opens the state as a new process does.
  std::unique_ptr<Agent> Process() {
    Environment environment{state_.state, "none", &config_, &devices_, &clock_, &SystemRandom()};
    auto agent = Agent::Open(environment);
    EXPECT_TRUE(agent) << agent.error().message();
    return std::move(*agent);
  }
  Result<AnchorResult> Anchor(const AnchorRequest& request = {}) {
    return AnchorLog(*Process(), request);
  }
  std::uint64_t AnchorOrDie() {
    auto result = Anchor();
    EXPECT_TRUE(result) << result.error().message();
    return result ? result->counter : 0;
  }
  // KillAt makes the process's commands fail from the n-th of that code on, as if it had died.
  void KillAt(std::uint8_t high, std::uint8_t low, bool after) {
    auto dead = std::make_shared<bool>(false);
    const auto refuse = [] {
      return Error(ErrorCode::kTpmUnavailable, Action::kReconnect, "killed", "start it");
    };
    fault_->before = [=](std::size_t, ByteView command) -> Status {
      if (!after && command[8] == high && command[9] == low) *dead = true;
      if (*dead) return refuse();
      if (after && command[8] == high && command[9] == low) *dead = true;
      return Ok();
    };
    fault_->after = [=](std::size_t, Bytes&) -> Status {
      if (*dead) return refuse();
      return Ok();
    };
  }
  void Revive() {
    fault_->before = nullptr;
    fault_->after = nullptr;
    swtpm_.PowerCycle();  // what the killed process held is gone
  }
  void Write() {
    auto agent = Process();
    audit::Event event;
    event.type = audit::EventType::kVerifyPassed;
    ASSERT_TRUE(agent->journal().Append(std::move(event)));
  }
  void Copy(const std::string& from, const std::string& to) {
    std::filesystem::remove_all(to);
    std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
  }
  std::vector<audit::Event> Entries(audit::EventType type) {
    std::vector<audit::Event> events;
    auto agent = Process();
    EventFilter filter;
    filter.types = {type};
    EXPECT_TRUE(agent->journal().Events(filter, [&](const LoggedEvent& logged) {
      events.push_back(*logged.event);
      return true;
    }));
    return events;
  }
  // EveryCertificateHolds reads the whole log as a verifier does.
  void EveryCertificateHolds() {
    auto agent = Process();
    audit::AnchorTrail trail({agent->identity().anchor->key});
    EXPECT_TRUE(agent->journal().Events({}, [&](const LoggedEvent& logged) {
      const auto fault = trail.Add(*logged.event);
      EXPECT_FALSE(fault) << *fault;
      return true;
    }));
    EXPECT_EQ(trail.num_unchecked(), 0U);
    const auto report = agent->journal().VerifyAll();
    ASSERT_TRUE(report);
    EXPECT_TRUE(report->Intact());
  }

  simulators::SwtpmFixture swtpm_;
  std::shared_ptr<simulators::Fault> fault_ = std::make_shared<simulators::Fault>();
  TpmDevices devices_{swtpm_.tcti(), fault_};
  StateFixture state_;
  AgentConfig config_;
  FixedClock clock_;
};

TEST_F(Anchoring, CountsUpByOneAndIsCheckedOffline) {
  auto first = Anchor();
  ASSERT_TRUE(first) << first.error().message();
  EXPECT_TRUE(first->made);
  Write();
  EXPECT_EQ(AnchorOrDie(), first->counter + 1);
  EXPECT_EQ(AnchorOrDie(), first->counter + 2);
  EveryCertificateHolds();
  const AnchorCheck check = CheckCounter(*Process());
  EXPECT_TRUE(check.checked) << check.what;
}

TEST_F(Anchoring, IsDueAfterAnHourAndAfterARelease) {
  auto due = AnchorIsDue(*Process());
  ASSERT_TRUE(due);
  EXPECT_FALSE(*due) << "a state without a counter";
  AnchorOrDie();
  EXPECT_FALSE(*AnchorIsDue(*Process()));
  clock_.now += 3599;
  EXPECT_FALSE(*AnchorIsDue(*Process()));
  clock_.now += 1;
  EXPECT_TRUE(*AnchorIsDue(*Process()));
  AnchorOrDie();
  {
    audit::Event release;
    release.type = audit::EventType::kRestoreRequested;
    release.outcome = audit::Outcome::kPending;
    ASSERT_TRUE(Process()->journal().Append(std::move(release)));
  }
  EXPECT_TRUE(*AnchorIsDue(*Process()));
  EXPECT_TRUE(AnchorFindings(*Process())->empty());
  clock_.now += 86401;
  const auto findings = AnchorFindings(*Process());
  ASSERT_EQ(findings->size(), 1U);
  EXPECT_EQ(findings->front().rule, "release_not_anchored");
  AnchorOrDie();
  EXPECT_FALSE(*AnchorIsDue(*Process()));
  EXPECT_TRUE(AnchorFindings(*Process())->empty());
}

TEST_F(Anchoring, AProcessThatDiesAnywhereIsNoRollback) {
  const std::uint64_t first = AnchorOrDie();
  std::uint64_t expected = first;
  struct Moment {
    std::uint8_t high, low;
    bool after;
  };
  for (const Moment& moment : {Moment{0x01, 0x4e, false},    // before NV_Read
                               Moment{0x01, 0x34, false},    // intended, and not counted
                               Moment{0x01, 0x34, true},     // counted, and the answer lost
                               Moment{0x01, 0x84, false},    // counted, and not certified
                               Moment{0x01, 0x84, true}}) {  // certified, and not logged
    KillAt(moment.high, moment.low, moment.after);
    EXPECT_FALSE(Anchor());
    Revive();
    const AnchorCheck check = CheckCounter(*Process());
    EXPECT_TRUE(check.checked) << check.what;
    EXPECT_EQ(AnchorOrDie(), ++expected) << int{moment.low} << moment.after;
  }
  EXPECT_TRUE(Entries(audit::EventType::kAnchorMismatch).empty());
  EveryCertificateHolds();
}

TEST_F(Anchoring, AnOlderStoreIsFoundToldOnceAndAcceptedWithAReason) {
  AnchorOrDie();
  const std::string copy = state_.folder.path + "/copy";
  Copy(state_.state, copy);
  Write();
  const std::uint64_t newest = AnchorOrDie();
  Copy(copy, state_.state);
  const AnchorCheck check = CheckCounter(*Process());
  ASSERT_TRUE(check.error);
  EXPECT_EQ(check.error->code(), ErrorCode::kAnchorMismatch);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto refused = Anchor();
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::kAnchorMismatch);
  }
  EXPECT_EQ(Entries(audit::EventType::kAnchorMismatch).size(), 1U);
  const auto findings = AnchorFindings(*Process());
  ASSERT_EQ(findings->size(), 1U);
  EXPECT_EQ(findings->front().rule, "anchor_mismatch");
  EXPECT_EQ(findings->front().severity, Severity::kCritical);
  const auto accepted = Anchor({.accept = "put back from the backup"});
  ASSERT_TRUE(accepted) << accepted.error().message();
  EXPECT_TRUE(accepted->settled);
  EXPECT_EQ(accepted->counter, newest + 1);
  EXPECT_TRUE(AnchorFindings(*Process())->empty());
  EXPECT_EQ(Entries(audit::EventType::kAnchorMismatch).back().reason,
            "accepted: put back from the backup");
  EXPECT_EQ(AnchorOrDie(), newest + 2);
}

TEST_F(Anchoring, AnOlderStoreWithAnOpenIntentIsFoundToo) {
  AnchorOrDie();
  KillAt(0x01, 0x34, false);
  EXPECT_FALSE(Anchor());
  Revive();
  const std::string copy = state_.folder.path + "/copy";
  Copy(state_.state, copy);
  AnchorOrDie();
  AnchorOrDie();
  Copy(copy, state_.state);
  EXPECT_EQ(Anchor().error().code(), ErrorCode::kAnchorMismatch);
}

TEST_F(Anchoring, ASettingThatWasEditedNamesNoOtherCounter) {
  const std::uint64_t first = AnchorOrDie();
  AnchorOrDie();
  // An older certificate, put in the newest one's place; and none at all: the log itself knows.
  ASSERT_EQ(state_.Tamper("UPDATE meta SET value = value - 2 WHERE name = 'anchor_seq';"
                          "DELETE FROM meta WHERE name = 'anchor_intent_seq'"),
            SQLITE_OK);
  EXPECT_TRUE(CheckCounter(*Process()).checked);
  EXPECT_EQ(AnchorOrDie(), first + 2);
  ASSERT_EQ(state_.Tamper("DELETE FROM meta WHERE name LIKE 'anchor%'"), SQLITE_OK);
  EXPECT_TRUE(CheckCounter(*Process()).checked);
  EXPECT_EQ(AnchorOrDie(), first + 3);
  ASSERT_EQ(state_.Tamper("UPDATE meta SET value = '0' WHERE name = 'anchor_seq'"), SQLITE_OK);
  EXPECT_FALSE(Anchor());
}

TEST_F(Anchoring, AnOlderStoreThatWasMadeToFitIsFound) {
  Write();
  const std::string before = state_.folder.path + "/before";
  Copy(state_.state, before);
  AnchorOrDie();
  const std::string copy = state_.folder.path + "/copy";
  Copy(state_.state, copy);
  const std::uint64_t newest = AnchorOrDie();
  const AgentIdentity identity = *LoadAgentIdentity(state_.state);
  const auto is_told = [&](std::string_view words) {
    const LoggedAnchors logged = *ReadLoggedAnchors(*Process());
    for (const LoggedAnchors* read : {&logged, static_cast<const LoggedAnchors*>(nullptr)}) {
      const AnchorCheck check = CheckCounter(*Process(), read);
      ASSERT_TRUE(check.error) << check.what;
      EXPECT_EQ(check.error->code(), ErrorCode::kAnchorMismatch);
      EXPECT_NE(check.what.find(words), std::string::npos) << check.what;
    }
    EXPECT_EQ(Anchor().error().code(), ErrorCode::kAnchorMismatch);
  };
  const auto put_back = [&](const std::string& folder, std::optional<AnchorIdentity> anchor) {
    Copy(folder, state_.state);
    ASSERT_EQ(state_.Tamper("DELETE FROM meta WHERE name LIKE 'anchor%'"), SQLITE_OK);
    AgentIdentity changed = identity;
    changed.anchor = std::move(anchor);
    ASSERT_TRUE(WriteAgentIdentity(state_.state, changed));
  };
  AnchorIdentity raised = *identity.anchor;
  raised.base = newest;
  {
    SCOPED_TRACE("agent.json has the counter begin where it is");
    put_back(copy, raised);
    is_told("an older store was put back: the tpm's counter is at");
  }
  {
    SCOPED_TRACE("agent.json names no counter");
    put_back(copy, std::nullopt);
    is_told("agent.json does not name it");
  }
  {
    SCOPED_TRACE("a store of before the first anchor");
    put_back(before, std::nullopt);
    is_told("agent.json does not name it");
  }
  {
    SCOPED_TRACE("the same with the counter's agent.json");
    put_back(before, raised);
    is_told("what the state has does not belong to it");
  }
  {
    SCOPED_TRACE("a counter of the attacker's own, which has not counted");
    AnchorIdentity fresh = *identity.anchor;
    fresh.key.nv_index += 1;
    ASSERT_TRUE(
        swtpm_.Tool("tpm2_nvdefine -C o -s 8 -a 'authread|authwrite|nt=counter' 0x1804b46") == 0);
    put_back(before, fresh);
    is_told("agent.json does not name it");
  }
  // Accepted, it is in the log for good, and another counter takes its place.
  put_back(before, std::nullopt);
  const auto accepted = Anchor({.accept = "explained"});
  ASSERT_TRUE(accepted) << accepted.error().message();
  EXPECT_TRUE(accepted->settled);
  EXPECT_TRUE(accepted->made);
  const auto entries = Entries(audit::EventType::kAnchorMismatch);
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[1].reason, "accepted: explained");
  EXPECT_EQ(AnchorOrDie(), accepted->counter + 1);
  EXPECT_TRUE(CheckCounter(*Process()).checked);
  ASSERT_EQ(swtpm_.Tool("test -z \"$(tpm2_getcap handles-nv-index | grep -i 1804b45)\""), 0);
}

// The first anchor, killed before each of its TPM commands: the next one goes on, no verifier takes
// it for a rollback, and the state that it left is found when it is put back later.
TEST_F(Anchoring, AKilledFirstAnchorIsNoRollbackAndHidesNone) {
  Write();
  const std::string before = state_.folder.path + "/before";
  const std::string killed = state_.folder.path + "/killed";
  Copy(state_.state, before);
  bool ended = false;
  std::size_t num_kills = 0;
  for (std::size_t at = 0; !ended && at < 60; ++at) {
    SCOPED_TRACE(at);
    swtpm_.Tool("tpm2_nvundefine -C o 0x1804b45; tpm2_nvundefine -C o 0x1804b46");
    Copy(before, state_.state);
    auto num_commands = std::make_shared<std::size_t>(0);
    fault_->before = [=](std::size_t, ByteView) -> Status {
      if (*num_commands == at) {
        return Error(ErrorCode::kTpmUnavailable, Action::kReconnect, "killed", "start it");
      }
      ++*num_commands;
      return Ok();
    };
    ended = Anchor().has_value();
    num_kills += ended ? 0 : 1;
    Revive();
    Copy(state_.state, killed);
    const LoggedAnchors logged = *ReadLoggedAnchors(*Process());
    EXPECT_FALSE(CheckCounter(*Process(), &logged).error) << CheckCounter(*Process()).what;
    EXPECT_FALSE(CheckCounter(*Process()).error);
    AnchorOrDie();
    AnchorOrDie();
    EXPECT_TRUE(Entries(audit::EventType::kAnchorMismatch).empty());
    EveryCertificateHolds();
    Copy(killed, state_.state);
    const LoggedAnchors put_back = *ReadLoggedAnchors(*Process());
    EXPECT_TRUE(CheckCounter(*Process(), &put_back).error);
    EXPECT_EQ(Anchor().error().code(), ErrorCode::kAnchorMismatch);
  }
  EXPECT_TRUE(ended);
  EXPECT_GT(num_kills, 15U);
}

TEST_F(Anchoring, AnAcceptedCounterThatIsKilledIsAcceptedAgain) {
  Write();
  const std::string before = state_.folder.path + "/before";
  Copy(state_.state, before);
  AnchorOrDie();
  AnchorOrDie();
  Copy(before, state_.state);
  KillAt(0x01, 0x22, true);  // the new one is made and logged, and the old one not yet removed
  EXPECT_FALSE(Anchor({.accept = "explained"}));
  Revive();
  for (int attempt = 0; attempt < 3; ++attempt) {
    if (CheckCounter(*Process()).checked) break;
    ASSERT_TRUE(Anchor({.accept = "explained"}));
  }
  const LoggedAnchors logged = *ReadLoggedAnchors(*Process());
  const AnchorCheck check = CheckCounter(*Process(), &logged);
  EXPECT_TRUE(check.checked) << check.what;
  AnchorOrDie();
  EXPECT_GE(Entries(audit::EventType::kAnchorMismatch).size(), 2U);
}

TEST_F(Anchoring, ALostAuthValueIsHealedByOneCommand) {
  AnchorOrDie();
  ASSERT_TRUE(std::filesystem::remove(state_.state + "/anchor-tpm.auth"));
  EXPECT_EQ(Anchor().error().code(), ErrorCode::kAgentKeyUnavailable);
  EXPECT_EQ(Anchor({.renew = true}).error().code(), ErrorCode::kAnchorMismatch);
  ASSERT_TRUE(Anchor({.renew = true, .accept = "the file was lost"}));
  AnchorOrDie();
  EXPECT_TRUE(CheckCounter(*Process()).checked);
}

TEST_F(Anchoring, AnOlderTpmIsFound) {
  AnchorOrDie();
  swtpm_.Stop();
  std::filesystem::path memory;
  for (const auto& file : std::filesystem::recursive_directory_iterator(swtpm_.folder())) {
    if (file.path().filename() == "tpm2-00.permall") memory = file.path();
  }
  const std::string copy = state_.folder.path + "/permall";
  std::filesystem::copy_file(memory, copy);
  swtpm_.Start();
  AnchorOrDie();
  swtpm_.Stop();
  std::filesystem::copy_file(copy, memory, std::filesystem::copy_options::overwrite_existing);
  swtpm_.Start();
  const auto refused = Anchor();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kAnchorMismatch);
  EXPECT_NE(refused.error().message().find("memory was put back"), std::string::npos);
}

TEST_F(Anchoring, ACounterThatIsGoneIsMadeAnewOnRequestAlone) {
  AnchorOrDie();
  ASSERT_EQ(swtpm_.Tool("tpm2_nvundefine -C o 0x1804b45"), 0);
  EXPECT_EQ(Anchor().error().code(), ErrorCode::kAnchorMissing);
  EXPECT_EQ(CheckCounter(*Process()).error->code(), ErrorCode::kAnchorMissing);
  const auto renewed = Anchor({.renew = true});
  ASSERT_TRUE(renewed) << renewed.error().message();
  EXPECT_TRUE(renewed->made);
  EXPECT_EQ(Anchor({.renew = true}).error().code(), ErrorCode::kAlreadyExists);
}

TEST_F(Anchoring, OneProcessAtATimeCounts) {
  AnchorOrDie();
  const auto lock = StateLock::Take(state_.state);
  ASSERT_TRUE(lock);
  EXPECT_EQ(Anchor().error().code(), ErrorCode::kStoreBusy);
  const AnchorCheck check = CheckCounter(*Process());
  EXPECT_FALSE(check.checked);
  EXPECT_FALSE(check.error) << "that another one counts is no finding";
}

TEST_F(Anchoring, ACommitInBetweenHasTheNewerCheckpointCertified) {
  AnchorOrDie();
  bool wrote = false;
  fault_->before = [&](std::size_t, ByteView command) -> Status {
    if (!wrote && command[8] == 0x01 && command[9] == 0x84) {
      wrote = true;
      auto journal = state_.Open();
      EXPECT_TRUE(journal);
      audit::Event event;
      event.type = audit::EventType::kVerifyPassed;
      EXPECT_TRUE(journal->Append(std::move(event)));
    }
    return Ok();
  };
  AnchorOrDie();
  EXPECT_TRUE(wrote);
  fault_->before = nullptr;
  AnchorOrDie();
  EveryCertificateHolds();
}

TEST_F(Anchoring, AStateWithACounterReadsBack) {
  AnchorOrDie();
  const auto identity = LoadAgentIdentity(state_.state);
  ASSERT_TRUE(identity) << identity.error().message();
  ASSERT_TRUE(identity->anchor);
  EXPECT_EQ(identity->anchor->key.nv_index, tpm::kFirstAnchorIndex);
}

}  // namespace
}  // namespace keyescrow::agent
