// Recovery keys through the use cases, with a state of their own and a P-256 token in this process:
// made, escrowed to with nothing at hand, drilled, given another password, retired.
#include "agent/usecases/recovery_keys.h"

#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <utility>

#include "agent/usecases/backup.h"
#include "agent/usecases/backup_batch.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/inventory.h"
#include "agent/usecases/recovery_key_drill.h"
#include "agent/usecases/store_verification.h"
#include "tests/unit/store/state_fixture.h"

namespace keyescrow::agent {
namespace {

Error NoDevice() {
  return Error(ErrorCode::kTokenNotFound, Action::kReconnect, "no device", "none");
}

class SoftwareToken final : public envelope::TokenFactor {
 public:
  SoftwareToken(const P256KeyPair& key, bool present) : key_(key), present_(present) {}
  Status Locate() override { return present_ ? Ok() : Status(NoDevice()); }
  Result<SecretBytes> UnwrapRsa(const envelope::Pkcs11RsaRecord&) override { return NoDevice(); }
  Result<SecretBytes> DeriveEcdh(const envelope::Pkcs11EcdhRecord& record) override {
    ASSIGN_OR_RETURN(const SecretBytes shared,
                     key_.SharedX(*P256Point::FromUncompressed(record.epk)));
    return envelope::EcdhSecret(shared, record);
  }

 private:
  const P256KeyPair& key_;
  bool present_;
};

class OneToken final : public Devices {
 public:
  P256KeyPair key = P256KeyPair::Generate().value();
  bool present = true;
  int num_sessions = 0;

  void UseTpm(const std::string&, const Bytes&) override {}
  Result<envelope::TpmFactor*> Tpm() override { return NoDevice(); }
  Status PersistSrk() override { return NoDevice(); }
  Result<TpmAgentKeyBlob> CreateAgentKey(const SecretBytes&) override { return NoDevice(); }
  Result<std::unique_ptr<envelope::Signer>> OpenAgentKey(const TpmAgentKeyBlob&,
                                                         SecretBytes) override {
    return NoDevice();
  }
  void LastSignature() override {}
  Result<TpmAnchorBlob> CreateAnchor(const SecretBytes&, const std::string&) override {
    return NoDevice();
  }
  Result<std::unique_ptr<envelope::Anchor>> OpenAnchor(const TpmAnchorBlob&, SecretBytes,
                                                       const std::string&) override {
    return NoDevice();
  }
  Result<TokenUri> ParseTokenUri(const std::string&) override { return NoDevice(); }
  Result<std::unique_ptr<envelope::TokenFactor>> StartToken(const TokenSpec&,
                                                            envelope::PinProvider&) override {
    ++num_sessions;
    return std::unique_ptr<envelope::TokenFactor>(std::make_unique<SoftwareToken>(key, present));
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
};

class TypedSecrets final : public Secrets, public envelope::PinProvider {
 public:
  std::string password = "correct horse battery staple 7";
  std::string new_password = "correct horse battery staple 7";
  int num_asked = 0;
  std::function<void()> meanwhile;  // done once, while a new password is asked for

  Result<SecretBytes> Password(std::string_view, std::string_view) override {
    ++num_asked;
    return SecretBytes::CopyOf(AsBytes(password));
  }
  Result<SecretBytes> NewPassword(std::string_view, std::string_view) override {
    ++num_asked;
    if (const auto act = std::exchange(meanwhile, nullptr)) act();
    return SecretBytes::CopyOf(AsBytes(new_password));
  }
  envelope::PinProvider& Pins() override { return *this; }
  bool HasPin(std::string_view) override { return true; }
  Status ConfirmLoss() override { return Ok(); }
  Result<SecretBytes> AskPin(const envelope::PinRequest&) override { return NoDevice(); }
  void OnReader(const envelope::PinRequest&) override {}
};

// SetBack is the system's clock, set back by some time.
class SetBack final : public Clock {
 public:
  std::int64_t seconds = 0;
  std::int64_t NowUnixSeconds() override { return SystemClock().NowUnixSeconds() - seconds; }
};

class Silence final : public Progress {
 public:
  void Step(std::string_view) override {}
  void Pause() override {}
  void Note(std::string_view) override {}
  void Warn(std::string_view) override {}
};

class RecoveryKeys : public ::testing::Test {
 protected:
  RecoveryKeys() {
    config_.kdf_costs.argon2id_memory_kib = 19456;
    config_.kdf_costs.argon2id_passes = 2;
    config_.kdf_costs.argon2id_lanes = 1;
    environment_.state_dir = fixture_.state;
    environment_.config = &config_;
    environment_.devices = &devices_;
    environment_.clock = &clock_;
    environment_.random = &SystemRandom();
    Reopen();
    store::TokenRecord token;
    token.name = "ops";
    token.uri = "pkcs11:token=ops";
    token.module = "/nowhere.so";
    const auto spki = devices_.key.Public().Spki();
    token.spki.assign(spki.begin(), spki.end());
    audit::Event event;
    event.type = audit::EventType::kFactorEnrolled;
    event.paths.push_back({"", {{"pkcs11-ecdh", "ops", std::nullopt, ""}}});
    store::Change change;
    change.tokens.push_back(token);
    EXPECT_TRUE(agent_->journal().Append(std::move(event), change));
  }

  void Reopen() {
    agent_.reset();
    agent_ = Agent::Open(environment_).value();
  }
  // Whatever was done, the log tells of it.
  void TearDown() override { EXPECT_EQ(Faults(), ""); }
  std::string Faults() {
    StoreVerifyOptions options;
    options.state_dir = fixture_.state;
    options.mode = store::ReaderMode::kLive;
    options.origin = agent_->identity().origin;
    options.log_keys = agent_->journal().Keys();
    options.agents = {agent_->identity().Thumbprint()};
    const auto found = VerifyStore(options);
    if (!found) return found.error().message();
    std::string texts;
    for (const audit::LogFinding& finding : found->log.findings) {
      const bool is_told = clock_.seconds != 0 && finding.fault == audit::LogFault::kClockBackward;
      if (!is_told) texts += finding.text + "\n";
    }
    return texts;
  }
  Result<RecoveryKeyChange> Create(const std::string& path = "password & token:ops") {
    return CreateRecoveryKey(*agent_, {"team", path, "", false}, secrets_, silence_);
  }
  // Escrow backs up `num` keys without any factor; returns the results. `sealing` is told how many
  // were begun before each.
  std::vector<BackupResult> Escrow(std::size_t num) {
    return Escrow(*agent_, num, [](std::size_t) {});
  }
  std::vector<BackupResult> Escrow(Agent& agent, std::size_t num,
                                   const std::function<void(std::size_t)>& sealing) {
    std::vector<BackupResult> results;
    std::size_t num_sealing = 0;
    auto unattended = UnattendedBackup::Begin(
        agent, [&] { sealing(num_sealing++); },
        [&](const std::string& name, Result<BackupResult> result) -> Status {
          EXPECT_TRUE(result) << name << ": " << result.error().message();
          EXPECT_EQ(name, "host/k" + std::to_string(results.size()));
          results.push_back(std::move(*result));
          return Ok();
        });
    EXPECT_TRUE(unattended);
    const std::vector<std::string> texts = {"recovery-key:team"};
    for (std::size_t index = 0; index < num; ++index) {
      DeclaredKey key;
      key.name = "host/k" + std::to_string(index);
      key.source = fixture_.state + "/../key" + std::to_string(index);
      std::ofstream(key.source) << "the key of number " << index;
      if (index % 50 == 9) key.source = "exec:cat '" + key.source + "'";
      const auto paths = ChoosePaths(agent, key.name, texts).value();
      EXPECT_TRUE(UnattendedBackup::Takes(paths));
      EXPECT_TRUE(unattended->Add(key, paths, ""));
    }
    EXPECT_TRUE(unattended->Flush());
    EXPECT_EQ(num_sealing, num);
    return results;
  }
  Result<RecoveryKeyDrillReport> Drill() {
    return DrillRecoveryKey(*agent_, {"team", ""}, secrets_, silence_);
  }
  KeyView View(const std::string& name) { return ListKeys(*agent_, name).value().front(); }
  // Opens the newest envelope of a key by what the store has registered.
  Result<SecretBytes> OpenKey(const std::string& name, store::EscrowStore* store) {
    ASSIGN_OR_RETURN(const auto record, agent_->store().FindEnvelope(name, std::nullopt));
    ASSIGN_OR_RETURN(const auto trust, TrustFor(agent_.get(), "", false));
    ASSIGN_OR_RETURN(const auto sealed, envelope::SealedEnvelope::Read(record.bytes, trust));
    PathOpenOptions options;
    options.devices = &devices_;
    options.secrets = &secrets_;
    options.progress = &silence_;
    options.store = store;
    options.module = "/nowhere.so";
    StretchedPasswords passwords;
    PathOpener opener(sealed, options, passwords);
    ASSIGN_OR_RETURN(const auto opened, opener.Open(0));
    return SecretBytes::CopyOf(opened.content().Expose());
  }

  StateFixture fixture_;
  SetBack clock_;
  AgentConfig config_;
  OneToken devices_;
  TypedSecrets secrets_;
  Silence silence_;
  Environment environment_;
  std::unique_ptr<Agent> agent_;
};

TEST_F(RecoveryKeys, AreEscrowedToWithNothingAtHandAndDrilledByOneOpening) {
  const auto made = Create();
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_TRUE(made->proven) << made->why_not;
  EXPECT_EQ(made->key.factors, "token:ops & password");
  devices_.present = false;
  devices_.num_sessions = 0;
  secrets_.num_asked = 0;
  const auto results = Escrow(200);  // more than three commits take
  ASSERT_EQ(results.size(), 200U);
  EXPECT_TRUE(results.back().covered);
  EXPECT_TRUE(results.back().Recoverable());
  EXPECT_EQ(devices_.num_sessions + secrets_.num_asked, 0);
  EXPECT_EQ(View("host/k9").paths.front().condition, PathCondition::kProven);
  EXPECT_EQ(View("host/k9").paths.front().proven_by, "recovery-key");

  EXPECT_EQ(Drill().error().code(), ErrorCode::kTokenNotFound);
  devices_.present = true;
  devices_.num_sessions = 0;
  secrets_.num_asked = 0;
  const auto report = Drill();
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_EQ(report->num_envelopes, 200U);
  EXPECT_EQ(report->num_proven, 200U);
  EXPECT_TRUE(report->Complete());
  EXPECT_EQ(devices_.num_sessions, 1);
  EXPECT_EQ(secrets_.num_asked, 1);
  EXPECT_EQ(View("host/k9").paths.front().proven_by, "drill");
  const auto key = OpenKey("host/k9", &agent_->store());
  ASSERT_TRUE(key) << key.error().message();
  EXPECT_EQ(AsText(key->Expose()), "the key of number 9");
}

TEST_F(RecoveryKeys, TakeTheNextVersionOfAKeyThatAnotherBackupWroteMeanwhile) {
  ASSERT_TRUE(Create());
  const auto other = Agent::Open(environment_).value();
  std::vector<BackupResult> others;
  const auto results = Escrow(*agent_, 3, [&](std::size_t num_sealing) {
    if (num_sealing == 2) others = Escrow(*other, 1, [](std::size_t) {});
  });
  ASSERT_EQ(others.size(), 1U);
  EXPECT_EQ(others[0].key_version, 1U);
  ASSERT_EQ(results.size(), 3U);
  EXPECT_EQ(results[0].key_version, 2U);
  EXPECT_EQ(results[1].key_version, 1U);
  EXPECT_TRUE(results[0].Recoverable());
  const auto key = OpenKey("host/k0", &agent_->store());
  ASSERT_TRUE(key) << key.error().message();
  EXPECT_EQ(AsText(key->Expose()), "the key of number 0");
}

TEST_F(RecoveryKeys, AreDrilledHonestlyAfterTheClockWasSetBack) {
  ASSERT_TRUE(Create());
  Escrow(1);
  clock_.seconds = 3600;  // the proof is older than its envelope says to be
  EXPECT_EQ(Drill()->num_proven, 1U);
  EXPECT_EQ(Faults(), "");
}

TEST_F(RecoveryKeys, KeepTheirOldPasswordInCopiesAlone) {
  const Bytes32 before = Create()->key.row.sha256;
  Escrow(2);
  secrets_.new_password = secrets_.password;
  const auto same = ChangeRecoveryKeyPassword(*agent_, {"team", "", "", false}, secrets_, silence_);
  EXPECT_EQ(same.error().code(), ErrorCode::kUsage);
  secrets_.new_password = "quite another battery staple 9";
  const auto changed =
      ChangeRecoveryKeyPassword(*agent_, {"team", "", "", false}, secrets_, silence_);
  ASSERT_TRUE(changed) << changed.error().message();
  EXPECT_TRUE(changed->proven) << changed->why_not;
  EXPECT_NE(changed->key.row.sha256, before);
  // With the registered record the new one opens, without it the old one does.
  EXPECT_EQ(OpenKey("host/k1", &agent_->store()).error().code(), ErrorCode::kWrongPassword);
  EXPECT_TRUE(OpenKey("host/k1", nullptr));
  secrets_.password = secrets_.new_password;
  EXPECT_TRUE(OpenKey("host/k1", &agent_->store()));
  EXPECT_EQ(OpenKey("host/k1", nullptr).error().code(), ErrorCode::kWrongPassword);
  const auto report = Drill();
  ASSERT_TRUE(report);
  EXPECT_EQ(report->num_opened, 2U);
  EXPECT_EQ(report->num_proven, 0U);
  Escrow(1);  // a new version, with the new record
  EXPECT_EQ(Drill()->num_proven, 1U);
}

TEST_F(RecoveryKeys, AreChangedByOneOfTwoCommandsAtOnce) {
  const auto other = Agent::Open(environment_).value();
  const auto in_the_other = [&](auto command) {
    return [&, command] {
      TypedSecrets own;
      own.new_password = "what the other command made 7";
      own.password = secrets_.password;
      const auto done = command(own);
      EXPECT_TRUE(done) << done.error().message();
    };
  };
  secrets_.meanwhile = in_the_other([&](TypedSecrets& own) {
    return CreateRecoveryKey(*other, {"team", "password & token:ops", "", true}, own, silence_);
  });
  EXPECT_EQ(Create().error().code(), ErrorCode::kAlreadyExists);
  const auto first = agent_->store().FindRecoveryKey("team").value();
  EXPECT_FALSE(first.drilled);  // the other command's, which did not open it

  secrets_.password = "what the other command made 7";
  secrets_.new_password = "quite another battery staple 9";
  secrets_.meanwhile = in_the_other([&](TypedSecrets& own) {
    own.new_password = "what the other command changed 8";
    return ChangeRecoveryKeyPassword(*other, {"team", "", "", false}, own, silence_);
  });
  const auto late = ChangeRecoveryKeyPassword(*agent_, {"team", "", "", false}, secrets_, silence_);
  EXPECT_EQ(late.error().code(), ErrorCode::kStoreBusy);
  secrets_.password = "what the other command changed 8";
  Escrow(1);
  EXPECT_TRUE(OpenKey("host/k0", &agent_->store()));
}

TEST_F(RecoveryKeys, ThatDoNotOpenAreNotRegistered) {
  ASSERT_TRUE(Create());
  const auto row = agent_->store().FindRecoveryKey("team").value();
  secrets_.new_password = "quite another battery staple 9";
  secrets_.meanwhile = [&] { devices_.key = P256KeyPair::Generate().value(); };
  const auto changed =
      ChangeRecoveryKeyPassword(*agent_, {"team", "", "", false}, secrets_, silence_);
  ASSERT_FALSE(changed);
  EXPECT_NE(changed.error().message().find("nothing was registered"), std::string::npos);
  EXPECT_EQ(agent_->store().FindRecoveryKey("team")->sha256, row.sha256);
  EXPECT_FALSE(
      CreateRecoveryKey(*agent_, {"next", "password & token:ops", "", false}, secrets_, silence_));
  EXPECT_EQ(agent_->store().FindRecoveryKey("next").error().code(), ErrorCode::kNotFound);
}

TEST_F(RecoveryKeys, ThatNobodyOpenedCoverNothing) {
  ASSERT_TRUE(
      CreateRecoveryKey(*agent_, {"team", "password & token:ops", "", true}, secrets_, silence_));
  const auto results = Escrow(1);
  EXPECT_FALSE(results.front().Recoverable());
  EXPECT_NE(results.front().findings.back().find("drill recovery-key:team"), std::string::npos);
  EXPECT_EQ(View("host/k0").paths.front().condition, PathCondition::kUnproven);
}

TEST_F(RecoveryKeys, AreRefusedWhereOneGuessWouldOpenThem) {
  EXPECT_EQ(Create("password").error().code(), ErrorCode::kPathForbidden);
  EXPECT_EQ(Create("recovery-key:team").error().code(), ErrorCode::kInvalidPath);
  EXPECT_TRUE(agent_->store().RecoveryKeys()->empty());
}

TEST_F(RecoveryKeys, AreImportedAsTheyWereConfirmed) {
  const auto made = Create();
  const std::string file = fixture_.state + "/../team.recovery-key";
  ASSERT_TRUE(ExportRecoveryKey(*agent_, "team", file));
  const auto refuse = [](const RecoveryKeyState&, const Bytes32&, bool) -> Status {
    return NoDevice();
  };
  EXPECT_TRUE(ImportRecoveryKey(*agent_, file, refuse)->already_there);
  ASSERT_TRUE(RetireRecoveryKey(*agent_, "team"));
  EXPECT_EQ(ImportRecoveryKey(*agent_, file, refuse).error().code(), ErrorCode::kTokenNotFound);
  Bytes32 seen{};
  const auto accept = [&](const RecoveryKeyState& key, const Bytes32& sha256,
                          bool is_pinned) -> Status {
    EXPECT_EQ(key.factors, "token:ops & password");
    EXPECT_FALSE(is_pinned);
    seen = sha256;
    return Ok();
  };
  ASSERT_TRUE(ImportRecoveryKey(*agent_, file, accept));
  EXPECT_EQ(seen, made->key.row.sha256);
  EXPECT_FALSE(agent_->store().FindRecoveryKey("team")->retired);
  std::ofstream(file, std::ios::app) << "x";
  EXPECT_EQ(ImportRecoveryKey(*agent_, file, accept).error().failure(), Failure::kFormat);
}

TEST_F(RecoveryKeys, AreRetiredAfterTheirUseIsTold) {
  ASSERT_TRUE(Create());
  Escrow(2);
  const auto use = UseOfRecoveryKey(*agent_, "team").value();
  EXPECT_EQ(use.num_envelopes, 2U);
  EXPECT_EQ(use.stranded.size(), 2U);
  ASSERT_TRUE(RetireRecoveryKey(*agent_, "team"));
  const std::vector<std::string> texts = {"recovery-key:team"};
  EXPECT_EQ(ChoosePaths(*agent_, "host/k0", texts).error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(RetireRecoveryKey(*agent_, "team").error().code(), ErrorCode::kNotFound);
  EXPECT_TRUE(OpenKey("host/k0", &agent_->store()));  // what is escrowed opens as before
  EXPECT_FALSE(Create()) << "a retired record is kept";
}

TEST_F(RecoveryKeys, ThatWereChangedInTheStoreAreFoundByTheLog) {
  ASSERT_TRUE(Create());
  ASSERT_EQ(Faults(), "");
  const std::string clean =
      "UPDATE recovery_key SET sha256 = (SELECT sha256 FROM kept), drilled = "
      "(SELECT drilled FROM kept), retired = NULL";
  ASSERT_EQ(fixture_.Tamper("CREATE TABLE kept AS SELECT * FROM recovery_key"), SQLITE_OK);
  ASSERT_EQ(fixture_.Tamper("UPDATE recovery_key SET sha256 = zeroblob(32)"), SQLITE_OK);
  EXPECT_NE(Faults().find("another record"), std::string::npos) << Faults();
  ASSERT_EQ(fixture_.Tamper(clean + "; UPDATE recovery_key SET drilled = drilled + 1000"),
            SQLITE_OK);
  EXPECT_NE(Faults().find("was opened at"), std::string::npos) << Faults();
  ASSERT_EQ(fixture_.Tamper(clean + "; UPDATE recovery_key SET retired = 1"), SQLITE_OK);
  EXPECT_NE(Faults().find("no entry retires"), std::string::npos) << Faults();
  ASSERT_EQ(fixture_.Tamper(clean + "; DROP TABLE kept"), SQLITE_OK);
}

TEST_F(RecoveryKeys, AreReadBackAsTheyWereRegistered) {
  ASSERT_TRUE(Create());
  const auto row = agent_->store().FindRecoveryKey("team").value();
  store::RecoveryKeyRecord other = row;
  other.thumbprint[0] = other.thumbprint[0] == 'A' ? 'B' : 'A';
  EXPECT_EQ(DescribeRecoveryKey(other).error().code(), ErrorCode::kStoreDamaged);
  other = row;
  other.sha256[0] ^= 1;
  EXPECT_EQ(DescribeRecoveryKey(other).error().code(), ErrorCode::kStoreDamaged);
  EXPECT_EQ(ParseSha256(ToHex(row.sha256)), row.sha256);
  EXPECT_FALSE(ParseSha256("abc"));
}

}  // namespace
}  // namespace keyescrow::agent
