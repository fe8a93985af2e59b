#include "agent/usecases/agent_state.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <fstream>

#include "agent/usecases/log_seed.h"
#include "tests/unit/store/state_fixture.h"

namespace keyescrow::agent {
namespace {

TEST(AgentState, RoundTrips) {
  StateFixture fixture;
  const auto identity = LoadAgentIdentity(fixture.state);
  ASSERT_TRUE(identity);
  EXPECT_EQ(identity->host, "db1");
  EXPECT_EQ(identity->origin, "keyescrow.log/db1/" + identity->Thumbprint());
  EXPECT_EQ(identity->place, AgentKeyPlace::kFile);
  EXPECT_EQ(identity->p256, fixture.signer->PublicKey());
  const auto seed = LoadEd25519Seed(fixture.state);
  ASSERT_TRUE(seed);
  EXPECT_EQ(*Ed25519PublicKey(*seed), identity->ed25519);
  EXPECT_EQ(LoadAgentTpmAuth(fixture.state).error().code(), ErrorCode::kStoreUnavailable);
  EXPECT_FALSE(std::filesystem::exists(fixture.state + "/agent.json.new"));
}

TEST(AgentState, TpmBlobsRoundTrip) {
  TemporaryFolder folder;
  const P256KeyPair pair = *P256KeyPair::Generate();
  AgentSecrets secrets;
  secrets.ed25519_seed = *RandomSecret(SystemRandom(), 32);
  secrets.tpm_auth = *RandomSecret(SystemRandom(), 32);
  AgentIdentity identity = MakeIdentity(secrets.ed25519_seed, pair.Public());
  identity.place = AgentKeyPlace::kTpm;
  identity.tpm_public = {1, 2, 3};
  identity.tpm_private = {4, 5};
  identity.srk_public = {6};
  ASSERT_TRUE(CreateAgentState(folder.path + "/s", identity, secrets));
  const auto read = LoadAgentIdentity(folder.path + "/s");
  ASSERT_TRUE(read);
  EXPECT_EQ(read->place, AgentKeyPlace::kTpm);
  EXPECT_EQ(read->tpm_private, identity.tpm_private);
  EXPECT_EQ(read->srk_public, identity.srk_public);
  EXPECT_TRUE(LoadAgentTpmAuth(folder.path + "/s")->EqualsConstantTime(secrets.tpm_auth));
  EXPECT_EQ(LoadAgentScalar(folder.path + "/s").error().code(), ErrorCode::kStoreUnavailable);
}

TEST(AgentState, NothingThereIsNotInitialized) {
  TemporaryFolder folder;
  EXPECT_EQ(LoadAgentIdentity(folder.path).error().code(), ErrorCode::kNotInitialized);
  EXPECT_EQ(LoadAgentIdentity(folder.path + "/none").error().code(), ErrorCode::kNotInitialized);
}

TEST(AgentState, IsNotCreatedTwiceNorOverALostIdentity) {
  StateFixture fixture;
  AgentSecrets secrets;
  secrets.ed25519_seed = *RandomSecret(SystemRandom(), 32);
  const AgentIdentity identity =
      MakeIdentity(secrets.ed25519_seed, P256KeyPair::Generate()->Public());
  EXPECT_EQ(CreateAgentState(fixture.state, identity, secrets).error().code(),
            ErrorCode::kAlreadyInitialized);
  ASSERT_TRUE(fixture.Open()->Append(MakeEvent(audit::EventType::kAgentStarted)));
  std::filesystem::remove(fixture.state + "/agent.json");
  const auto status = CreateAgentState(fixture.state, identity, secrets);
  EXPECT_EQ(status.error().code(), ErrorCode::kAlreadyInitialized);
  EXPECT_FALSE(LoadEd25519Seed(fixture.state)->EqualsConstantTime(secrets.ed25519_seed));
}

TEST(AgentState, DamagedAndNewerIdentitiesAreTold) {
  StateFixture fixture;
  const auto put = [&](std::string_view text) {
    std::ofstream(fixture.state + "/agent.json", std::ios::trunc) << text;
    return LoadAgentIdentity(fixture.state).error().code();
  };
  EXPECT_EQ(put(""), ErrorCode::kStoreDamaged);
  EXPECT_EQ(put("{}"), ErrorCode::kStoreDamaged);
  EXPECT_EQ(put("{\"schema\":1}"), ErrorCode::kStoreDamaged);
  EXPECT_EQ(put("{\"schema\":2}"), ErrorCode::kStoreNewerSchema);
}

TEST(AgentState, AnIdentityThatContradictsItselfIsRefused) {
  StateFixture fixture;
  const auto changed = [&](auto change) {
    AgentIdentity identity = *LoadAgentIdentity(fixture.state);
    const AgentIdentity before = identity;
    change(identity);
    EXPECT_TRUE(WriteAgentIdentity(fixture.state, identity));
    const auto read = LoadAgentIdentity(fixture.state);
    EXPECT_TRUE(WriteAgentIdentity(fixture.state, before));
    return read ? ErrorCode::kInternal : read.error().code();
  };
  EXPECT_EQ(changed([](auto& i) { i.host = "db2"; }), ErrorCode::kStoreDamaged);
  EXPECT_EQ(changed([](auto& i) { i.origin.back() ^= 1; }), ErrorCode::kStoreDamaged);
  EXPECT_EQ(changed([](auto& i) { i.p256 = P256KeyPair::Generate()->Public(); }),
            ErrorCode::kStoreDamaged);
  EXPECT_EQ(changed([](auto&) {}), ErrorCode::kInternal);
}

TEST(AgentState, AScalarThatIsNotTheIdentitysIsRefused) {
  StateFixture fixture;
  auto identity = LoadAgentIdentity(fixture.state);
  identity->p256 = P256KeyPair::Generate()->Public();
  EXPECT_EQ(FileSigner::Load(fixture.state, *identity).error().code(),
            ErrorCode::kStoreUnavailable);
  std::ofstream(fixture.state + "/agent-p256.key", std::ios::trunc) << "short";
  EXPECT_EQ(LoadAgentScalar(fixture.state).error().code(), ErrorCode::kStoreUnavailable);
}

TEST(AgentState, ASeedThatIsNotTheIdentitysIsRefused) {
  StateFixture fixture;
  const auto identity = LoadAgentIdentity(fixture.state);
  EXPECT_TRUE(LoadLogSeed(fixture.state, *identity));
  std::ofstream(fixture.state + "/ed25519.seed", std::ios::trunc) << std::string(32, 'x');
  const auto seed = LoadLogSeed(fixture.state, *identity);
  ASSERT_FALSE(seed);
  EXPECT_EQ(seed.error().code(), ErrorCode::kAgentKeyUnavailable);
  // A journal without a seed says why it does not commit.
  JournalOptions options;
  options.state_dir = fixture.state;
  options.identity = *identity;
  auto journal = Journal::Open(std::move(options));
  const auto refused = journal->Append(MakeEvent(audit::EventType::kAgentStarted));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message(), seed.error().message());
  EXPECT_EQ(journal->store().Head()->size, 0u);
}

TEST(AgentState, AnInitThatIsKilledLeavesNothingOrAll) {
  int complete = 0;
  for (int round = 0; round < 25; ++round) {
    TemporaryFolder folder;
    const std::string state = folder.path + "/s";
    const pid_t child = fork();
    if (child == 0) {
      AgentSecrets secrets;
      secrets.ed25519_seed = *RandomSecret(SystemRandom(), 32);
      P256KeyPair pair = *P256KeyPair::Generate();
      secrets.p256_scalar = *pair.Scalar();
      const auto status =
          CreateAgentState(state, MakeIdentity(secrets.ed25519_seed, pair.Public()), secrets);
      _exit(status ? 0 : 1);
    }
    usleep(static_cast<useconds_t>(round * round * 250));  // 0 to 144 ms
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const auto identity = LoadAgentIdentity(state);
    if (identity) {
      ++complete;
      EXPECT_TRUE(FileSigner::Load(state, *identity));
      EXPECT_TRUE(LoadEd25519Seed(state));
      EXPECT_TRUE(store::SqliteStore::Open(state));
    } else {
      EXPECT_EQ(identity.error().code(), ErrorCode::kNotInitialized);
      AgentSecrets secrets;
      secrets.ed25519_seed = *RandomSecret(SystemRandom(), 32);
      P256KeyPair pair = *P256KeyPair::Generate();
      secrets.p256_scalar = *pair.Scalar();
      const auto again =
          CreateAgentState(state, MakeIdentity(secrets.ed25519_seed, pair.Public()), secrets);
      EXPECT_TRUE(again) << again.error().message();
      EXPECT_TRUE(LoadAgentIdentity(state));
    }
  }
  printf("%d of 25 were complete\n", complete);
}

}  // namespace
}  // namespace keyescrow::agent
