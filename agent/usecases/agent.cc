#include "agent/usecases/agent.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>

#include "agent/usecases/log_seed.h"
#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/process_facts.h"
#include "envelope/base/hash.h"
#include "envelope/header.h"

namespace keyescrow::agent {
namespace {

// kTctiSetting keeps the TCTI that init was given, so that later commands need no --tpm.
constexpr std::string_view kTctiSetting = "tcti";

constexpr std::chrono::milliseconds kOtherMachinePatience{500};

constexpr const char* kLostKey =
    "bring that tpm back; if it is gone or was cleared, restore by a path without tpm, make a new "
    "state with 'keyescrow init --state DIR', and 'keyescrow adopt' there each key from its "
    "exported file, or back it up again";

Error KeyUnavailable(const Error& cause) {
  // A key that its TPM lost is not enrolled again: its agent ends here.
  const bool is_lost = cause.action() == Action::kWrongDevice;
  Error error(ErrorCode::kAgentKeyUnavailable, cause.action(),
              "the agent key cannot be used: " + cause.message(),
              is_lost ? kLostKey : cause.hint());
  return std::move(error).WithNative(cause.native_domain(), cause.native_code());
}

}  // namespace

// LazySigner opens the agent key at its first signature: commands that only read never touch the
// TPM, and one that hangs costs its deadline where a signature is wanted, once. A TPM takes one
// command at a time, so that threads wait for each other here.
class Agent::LazySigner final : public envelope::Signer {
 public:
  explicit LazySigner(const Agent& agent) : agent_(agent) {}

  const P256Point& PublicKey() const override { return agent_.identity_.p256; }

  Result<Bytes64> SignDigest(const Bytes32& digest) override {
    const std::lock_guard lock(mutex_);
    if (!signer_) {
      auto opened = OpenKey();
      if (!opened) return std::move(opened).error();
      signer_ = std::move(*opened);
    }
    return signer_->SignDigest(digest);
  }

 private:
  Result<std::unique_ptr<envelope::Signer>> OpenKey() {
    const AgentIdentity& identity = agent_.identity_;
    const std::string& state_dir = agent_.environment_.state_dir;
    if (identity.place == AgentKeyPlace::kFile) {
      ASSIGN_OR_RETURN(FileSigner signer, FileSigner::Load(state_dir, identity));
      return std::unique_ptr<envelope::Signer>(std::make_unique<FileSigner>(std::move(signer)));
    }
    ASSIGN_OR_RETURN(SecretBytes auth, LoadAgentTpmAuth(state_dir));
    auto opened = agent_.environment_.devices->OpenAgentKey(
        {identity.tpm_public, identity.tpm_private}, std::move(auth));
    if (!opened) return KeyUnavailable(opened.error());
    if ((*opened)->PublicKey() != identity.p256) {
      return Error(ErrorCode::kAgentKeyUnavailable, Action::kCallOperator,
                   "the agent key in the TPM is not the one that agent.json names",
                   "restore agent.json from a backup of the state folder");
    }
    return opened;
  }

  const Agent& agent_;
  std::mutex mutex_;
  std::unique_ptr<envelope::Signer> signer_;
};

Agent::Agent(Environment environment, AgentIdentity identity)
    : environment_(std::move(environment)), identity_(std::move(identity)) {}
Agent::~Agent() = default;

envelope::Signer& Agent::signer() { return *signer_; }

Result<std::unique_ptr<Agent>> Agent::Open(const Environment& environment) {
  ASSIGN_OR_RETURN(AgentIdentity identity, LoadAgentIdentity(environment.state_dir));
  auto agent = std::unique_ptr<Agent>(new Agent(environment, std::move(identity)));
  agent->signer_ = std::make_unique<LazySigner>(*agent);
  ASSIGN_OR_RETURN(StateUse use, StateUse::Claim(environment.state_dir,
                                                 {BootId(), MachineId(), agent->identity_.host},
                                                 kOtherMachinePatience));
  agent->use_.emplace(std::move(use));
  auto seed = LoadLogSeed(environment.state_dir, agent->identity_);
  // Where it is lost, or another's, the state is read as ever, and each commit says what is wrong:
  // nothing that opens a key hangs on it.
  if (!seed && !IsLogSeedLost(seed.error())) return std::move(seed).error();
  if (!seed) {
    agent->cannot_log_ = std::move(seed).error();
    seed = SecretBytes();
  }
  JournalOptions options{environment.state_dir, agent->identity_,           std::move(*seed),
                         agent->signer_.get(),  environment.clock,          environment.random,
                         environment.store,     environment.journald_socket};
  auto journal = Journal::Open(std::move(options));
  if (!journal && journal.error().code() == ErrorCode::kNotInitialized) {
    return Error(ErrorCode::kStoreUnavailable, Action::kCallOperator,
                 "the state in " + environment.state_dir + " has an agent and no store",
                 "put store.db back from a copy of the state; without one, 'keyescrow init --state "
                 "DIR' makes a new agent");
  }
  if (!journal) return std::move(journal).error();
  agent->journal_.emplace(std::move(*journal));
  std::string tcti = environment.tcti;
  if (tcti.empty()) {
    ASSIGN_OR_RETURN(const auto recorded, agent->store().GetSetting(kTctiSetting));
    tcti = recorded.value_or("");
  }
  environment.devices->UseTpm(tcti, agent->identity_.srk_public);
  agent->tcti_ = std::move(tcti);
  return agent;
}

Status Agent::SetAnchor(AnchorIdentity anchor) {
  AgentIdentity changed = identity_;
  changed.anchor = std::move(anchor);
  RETURN_IF_ERROR(WriteAgentIdentity(environment_.state_dir, changed));
  identity_ = std::move(changed);
  return Ok();
}

Result<std::vector<envelope::TrustedAgent>> Agent::TrustedAgents() {
  std::vector<envelope::TrustedAgent> agents;
  agents.push_back({identity_.Thumbprint(), {}, {}});
  ASSIGN_OR_RETURN(const auto records, store().Trust());
  for (const store::TrustRecord& record : records) {
    if (!record.removed) agents.push_back({record.thumbprint, record.hosts, record.keys});
  }
  return agents;
}

Result<std::optional<store::TokenRecord>> Agent::FindTokenByKey(ByteView spki) {
  ASSIGN_OR_RETURN(auto records, store().Tokens());
  for (store::TokenRecord& record : records) {
    if (std::equal(record.spki.begin(), record.spki.end(), spki.begin(), spki.end())) {
      return std::optional(std::move(record));
    }
  }
  return std::optional<store::TokenRecord>();
}

Result<const PolicyInForce*> Agent::Policy() {
  if (policy_ == nullptr) {
    ASSIGN_OR_RETURN(PolicyInForce loaded, LoadPolicy(store(), identity_.host));
    policy_ = std::make_unique<PolicyInForce>(std::move(loaded));
  }
  return static_cast<const PolicyInForce*>(policy_.get());
}

void Agent::ForgetPolicy() { policy_.reset(); }

std::string ThisHost(const AgentConfig& config) {
  std::string name = config.host;
  if (name.empty()) {
    char buffer[256] = {};
    if (gethostname(buffer, sizeof buffer - 1) == 0) name = buffer;
  }
  for (char& character : name) {
    if (!envelope::IsName(std::string_view(&character, 1))) character = '-';
  }
  name.resize(std::min<std::size_t>(name.size(), 64));
  return name.empty() ? "host" : name;
}

std::string KdfCost(const envelope::KdfParameters& kdf) {
  if (const auto* argon2 = std::get_if<envelope::Argon2idParameters>(&kdf)) {
    return fmt::format("argon2id t={} m={} p={}", argon2->passes, argon2->memory_kib,
                       argon2->lanes);
  }
  return fmt::format("pbkdf2-sha512 iter={}", std::get<envelope::Pbkdf2Parameters>(kdf).iterations);
}

std::vector<audit::EventPath> DescribePaths(const std::vector<const envelope::PathRecord*>& paths) {
  struct Describe {
    audit::EventFactor operator()(const envelope::Pkcs11RsaRecord& record) const {
      return {"pkcs11-rsa", record.token, Sha256(record.spki), ""};
    }
    audit::EventFactor operator()(const envelope::Pkcs11EcdhRecord& record) const {
      return {"pkcs11-ecdh", record.token, Sha256(record.spki), ""};
    }
    audit::EventFactor operator()(const envelope::SharesRecord& record) const {
      return {"shares", fmt::format("{}of{}", record.threshold, record.members.size()), {}, ""};
    }
    audit::EventFactor operator()(const envelope::PasswordRecord& record) const {
      return {"password", "", {}, KdfCost(record.kdf)};
    }
    audit::EventFactor operator()(const envelope::Tpm2Record& record) const {
      return {"tpm2", record.host, Sha256(record.parent_public), ""};
    }
  };
  std::vector<audit::EventPath> described;
  for (const envelope::PathRecord* path : paths) {
    audit::EventPath entry{path->id, {}};
    for (const envelope::FactorRecord& factor : path->factors) {
      entry.factors.push_back(std::visit(Describe{}, factor));
    }
    described.push_back(std::move(entry));
  }
  return described;
}

}  // namespace keyescrow::agent
