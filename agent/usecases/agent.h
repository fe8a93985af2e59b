// Agent: an initialised state, opened: who we are, the journal, and whom we trust.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/config/config.h"
#include "agent/usecases/agent_state.h"
#include "agent/usecases/devices.h"
#include "agent/usecases/journal.h"
#include "agent/usecases/state_use.h"
#include "envelope/base/clock.h"
#include "envelope/base/random.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {

struct PolicyInForce;

// Environment: what every use case works in. All pointers outlive it.
struct Environment {
  std::string state_dir;
  std::string tcti;  // --tpm or agent.toml's; "": what init recorded
  const AgentConfig* config = nullptr;
  Devices* devices = nullptr;
  Clock* clock = nullptr;
  RandomSource* random = nullptr;  // asked by several threads at once
  store::SqliteOptions store = {};
  std::string journald_socket = {};  // "": entries are not told to the systemd journal
};

// kMachineSetting names the setting that holds the MachineId of the machine that made the state.
inline constexpr std::string_view kMachineSetting = "machine";

class Agent {
 public:
  // Open loads the identity, claims the state for this machine and opens the store. No device is
  // touched before it is needed. Errors: kNotInitialized, kStatePermissions, kStore*; kStoreBusy
  // where another machine works in the state at this moment.
  static Result<std::unique_ptr<Agent>> Open(const Environment& environment);
  ~Agent();

  const Environment& environment() const { return environment_; }
  // tcti: the TPM in use: as asked for, else as init recorded it; "" for the kernel's.
  const std::string& tcti() const { return tcti_; }
  const AgentIdentity& identity() const { return identity_; }
  Journal& journal() { return *journal_; }
  store::EscrowStore& store() { return journal_->store(); }
  // cannot_log: why nothing can be logged: the log's key is not there, or another's.
  const std::optional<Error>& cannot_log() const { return cannot_log_; }
  // SetAnchor records the log's counter in agent.json.
  Status SetAnchor(AnchorIdentity anchor);
  // signer is the agent key; a key in the TPM is opened at its first signature. Thread-safe.
  envelope::Signer& signer();
  std::int64_t Now() const { return environment_.clock->NowUnixSeconds(); }
  // warning says that another machine used the state last, "" where none did.
  const std::string& warning() const { return use_->warning(); }

  // TrustedAgents: this agent itself, and those that `trust add` registered.
  Result<std::vector<envelope::TrustedAgent>> TrustedAgents();

  // Policy returns the policy in force, read once: policy_in_force.h. Errors: LoadPolicy's.
  Result<const PolicyInForce*> Policy();
  // ForgetPolicy has the next Policy read it again.
  void ForgetPolicy();

  // FindToken returns the registered token whose public key is `spki`, if any.
  Result<std::optional<store::TokenRecord>> FindTokenByKey(ByteView spki);

 private:
  class LazySigner;
  Agent(Environment environment, AgentIdentity identity);

  Environment environment_;
  AgentIdentity identity_;
  std::string tcti_;
  std::unique_ptr<LazySigner> signer_;
  std::optional<StateUse> use_;  // until the store is closed
  std::optional<Journal> journal_;
  std::optional<Error> cannot_log_;
  std::unique_ptr<PolicyInForce> policy_;
};

// ThisHost returns agent.toml's host or the machine's name, made a name of the format.
std::string ThisHost(const AgentConfig& config);

// EventPaths describes paths for an event: kinds, names, key hashes, KDF costs; no salt, no blob.
std::vector<audit::EventPath> DescribePaths(const std::vector<const envelope::PathRecord*>& paths);

// KdfCost returns e.g. "argon2id t=4 m=262144 p=4".
std::string KdfCost(const envelope::KdfParameters& kdf);

}  // namespace keyescrow::agent
