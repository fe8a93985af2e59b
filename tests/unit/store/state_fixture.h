// A state folder of its own for each test, with a log key and an agent key in files.
#pragma once

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "agent/audit/checkpoint.h"
#include "agent/usecases/agent_state.h"
#include "agent/usecases/journal.h"
#include "envelope/base/ed25519.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {

struct TemporaryFolder {
  TemporaryFolder() {
    char name[] = "/tmp/keyescrow-test-XXXXXX";
    path = mkdtemp(name);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string path;
};

// FailingSigner is the agent key on a device that died: it counts who asks.
class FailingSigner final : public envelope::Signer {
 public:
  explicit FailingSigner(const P256Point& key) : key_(key) {}
  const P256Point& PublicKey() const override { return key_; }
  Result<Bytes64> SignDigest(const Bytes32&) override {
    ++num_calls;
    return Error(ErrorCode::kTpmTimeout, Action::kCheckSystemState, "the TPM did not answer",
                 "look at the TPM");
  }
  int num_calls = 0;

 private:
  P256Point key_;
};

inline AgentIdentity MakeIdentity(const SecretBytes& seed, const P256Point& p256) {
  AgentIdentity identity;
  identity.host = "db1";
  identity.origin = audit::LogOrigin("db1", JwkThumbprint(p256));
  identity.created = "2026-01-01T00:00:00Z";
  identity.p256 = p256;
  identity.ed25519 = *Ed25519PublicKey(seed);
  return identity;
}

struct StateFixture {
  TemporaryFolder folder;
  std::string state = folder.path + "/state";

  StateFixture() {
    AgentSecrets secrets;
    secrets.ed25519_seed = *RandomSecret(SystemRandom(), 32);
    P256KeyPair pair = *P256KeyPair::Generate();
    secrets.p256_scalar = *pair.Scalar();
    const auto status =
        CreateAgentState(state, MakeIdentity(secrets.ed25519_seed, pair.Public()), secrets);
    EXPECT_TRUE(status) << (status ? "" : status.error().message());
    signer.emplace(*FileSigner::Load(state, *LoadAgentIdentity(state)));
  }

  Result<Journal> OpenWith(envelope::Signer* with, store::SqliteOptions store_options = {}) const {
    JournalOptions options;
    options.state_dir = state;
    auto identity = LoadAgentIdentity(state);
    if (!identity) return std::move(identity).error();
    options.identity = std::move(*identity);
    options.ed25519_seed = *LoadEd25519Seed(state);
    options.signer = with;
    options.store = store_options;
    return Journal::Open(std::move(options));
  }
  Result<Journal> Open(store::SqliteOptions store_options = {}) {
    return OpenWith(&*signer, store_options);
  }
  std::string StoreFile() const { return state + "/store.db"; }

  // Tamper runs SQL as somebody with the file and a stock SQLite would: triggers dropped first
  // where the statement needs it. Returns SQLite's result code.
  int Tamper(const std::string& sql) const {
    sqlite3* handle = nullptr;
    sqlite3_open(StoreFile().c_str(), &handle);
    const int code = sqlite3_exec(handle, sql.c_str(), nullptr, nullptr, nullptr);
    sqlite3_close(handle);
    return code;
  }

  std::optional<FileSigner> signer;
};

inline audit::Event MakeEvent(audit::EventType type, std::string key = "prod/db") {
  audit::Event event;
  event.type = type;
  event.key = audit::EventKey{std::move(key), 1};
  return event;
}

// MakeEnvelope is a row with the event that escrows it; the envelope hash is SHA-256 of the bytes.
inline store::EnvelopeRecord MakeEnvelope(std::string key, std::uint32_t version,
                                          std::uint32_t revision) {
  store::EnvelopeRecord row;
  row.key_name = std::move(key);
  row.key_version = version;
  row.revision = revision;
  row.envelope_id = "AAAAAAAAAAAAAAAAAAAAAA";
  row.created = 1'700'000'000;
  row.bytes = Bytes(3000, static_cast<std::uint8_t>('a' + version + revision));
  row.sha256 = Sha256(row.bytes);
  return row;
}

inline Status Escrow(Journal& journal, const store::EnvelopeRecord& row) {
  audit::Event event = MakeEvent(audit::EventType::kEscrowCreated, row.key_name);
  event.key->version = row.key_version;
  event.envelope = audit::EventEnvelope{row.envelope_id, row.revision, row.sha256};
  store::Change change;
  change.envelopes.push_back(row);
  RETURN_IF_ERROR(journal.Append(std::move(event), change));
  return Ok();
}

}  // namespace keyescrow::agent
