#include "agent/usecases/init.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <optional>

#include "agent/config/paths.h"
#include "agent/usecases/event_order.h"
#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/process_facts.h"
#include "envelope/base/ed25519.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kSeedSizeBytes = 32;

// TpmKey: the agent key made in this host's TPM.
struct TpmKey {
  Bytes srk_public;
  TpmAgentKeyBlob blob;
  P256Point public_key;
  bool simulator = false;
};

Result<std::optional<TpmKey>> MakeTpmKey(const Environment& environment, bool required,
                                         const SecretBytes& auth,
                                         std::vector<std::string>& findings, Progress& progress) {
  Devices& devices = *environment.devices;
  devices.UseTpm(environment.tcti, {});
  progress.Step("making the agent key in the tpm");
  auto tpm = devices.Tpm();
  if (!tpm) {
    if (required) return std::move(tpm).error();
    return std::optional<TpmKey>();
  }
  RETURN_IF_ERROR(devices.PersistSrk());
  ASSIGN_OR_RETURN(Bytes srk_public, (*tpm)->StorageParent());
  ASSIGN_OR_RETURN(TpmAgentKeyBlob blob, devices.CreateAgentKey(auth));
  ASSIGN_OR_RETURN(SecretBytes auth_copy, SecretBytes::CopyOf(auth.Expose()));
  ASSIGN_OR_RETURN(const auto key, devices.OpenAgentKey(blob, std::move(auth_copy)));
  auto state = (*tpm)->Inspect();
  if (state && !state->lockout_auth_set) {
    findings.push_back(
        "the tpm has no lockoutAuth: anybody on this host can reset its dictionary-attack lockout "
        "('keyescrow doctor' says how to set one)");
  }
  if (state && state->simulator) {
    findings.push_back("the tpm is a simulator: it protects nothing");
  }
  return std::optional(
      TpmKey{std::move(srk_public), std::move(blob), key->PublicKey(), state && state->simulator});
}

Status RecordStart(const Environment& environment, bool tpm_simulator) {
  ASSIGN_OR_RETURN(const auto agent, Agent::Open(environment));
  audit::Event event;
  event.type = audit::EventType::kAgentStarted;
  event.reason = StartReason(KEYESCROW_VERSION, tpm_simulator);
  store::Change change;
  if (const std::string machine = MachineId(); !machine.empty()) {
    change.settings.push_back({std::string(kMachineSetting), machine});
  }
  if (!environment.tcti.empty()) {
    change.settings.push_back({"tcti", environment.tcti});
  }
  if (tpm_simulator) change.settings.push_back({std::string(kTpmSimulatorSetting), "yes"});
  environment.devices->LastSignature();
  RETURN_IF_ERROR(agent->journal().Append(std::move(event), change));
  return Ok();
}

// MakeFoldersAbove makes what is missing above the state folder where that is the default one.
Status MakeFoldersAbove(const std::string& state_dir) {
  const auto get_environment = [](const char* name) -> const char* { return std::getenv(name); };
  const auto paths = ResolvePaths({}, get_environment, geteuid());
  if (!paths || !paths->state_is_default || paths->state_folder != state_dir) return Ok();
  for (std::size_t end = state_dir.find('/', 1); end != std::string::npos;
       end = state_dir.find('/', end + 1)) {
    const std::string folder = state_dir.substr(0, end);
    if (mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST) continue;
    // A folder that is there may answer with another error (a read-only file system).
    struct stat info {};
    const int error_number = errno;
    if (stat(folder.c_str(), &info) == 0) continue;
    return ErrnoError(ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
                      folder + " cannot be made", "name a state folder with --state", error_number);
  }
  return Ok();
}

}  // namespace

Result<InitResult> Init(const Environment& environment, bool tpm_required, Progress& progress) {
  if (auto existing = LoadAgentIdentity(environment.state_dir); existing) {
    return Error(ErrorCode::kAlreadyInitialized, Action::kFixInput,
                 "there is a state in " + environment.state_dir + " already, of the agent " +
                     existing->Thumbprint(),
                 "use it, or name another folder with --state");
  } else if (existing.error().code() != ErrorCode::kNotInitialized) {
    return std::move(existing).error();
  }
  std::vector<std::string> findings;
  RandomSource& random = *environment.random;
  AgentSecrets secrets;
  ASSIGN_OR_RETURN(secrets.ed25519_seed, RandomSecret(random, kSeedSizeBytes));
  ASSIGN_OR_RETURN(secrets.tpm_auth, RandomSecret(random, kSeedSizeBytes));
  ASSIGN_OR_RETURN(secrets.fingerprint_key, RandomSecret(random, kSeedSizeBytes));
  ASSIGN_OR_RETURN(auto tpm_key,
                   MakeTpmKey(environment, tpm_required, secrets.tpm_auth, findings, progress));
  std::optional<P256KeyPair> file_key;
  if (!tpm_key) {
    ASSIGN_OR_RETURN(file_key, P256KeyPair::Generate());
    ASSIGN_OR_RETURN(secrets.p256_scalar, file_key->Scalar());
    secrets.tpm_auth = SecretBytes();
  }
  const P256Point public_key = tpm_key ? tpm_key->public_key : file_key->Public();
  const std::string host = ThisHost(*environment.config);
  ASSIGN_OR_RETURN(const Bytes32 ed25519, Ed25519PublicKey(secrets.ed25519_seed));
  AgentIdentity identity{host,
                         audit::LogOrigin(host, JwkThumbprint(public_key)),
                         FormatUtc(environment.clock->NowUnixSeconds()),
                         public_key,
                         tpm_key ? AgentKeyPlace::kTpm : AgentKeyPlace::kFile,
                         tpm_key ? tpm_key->blob.object_public : Bytes(),
                         tpm_key ? tpm_key->blob.object_private : Bytes(),
                         tpm_key ? tpm_key->srk_public : Bytes(),
                         ed25519};
  RETURN_IF_ERROR(MakeFoldersAbove(environment.state_dir));
  RETURN_IF_ERROR(CreateAgentState(environment.state_dir, identity, secrets));
  RETURN_IF_ERROR(RecordStart(environment, tpm_key && tpm_key->simulator));
  return InitResult{identity, environment.state_dir, std::move(findings)};
}

}  // namespace keyescrow::agent
