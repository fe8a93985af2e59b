#include "agent/usecases/doctor.h"

#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <iterator>
#include <set>

#include "agent/audit/event.h"
#include "agent/key_locations/crash_safe_file.h"
#include "agent/key_locations/key_location.h"
#include "agent/key_locations/secret_file.h"
#include "agent/store/sqlite_store.h"
#include "agent/usecases/anchoring.h"
#include "agent/usecases/clock_findings.h"
#include "agent/usecases/destroy.h"
#include "agent/usecases/doctor_needs.h"
#include "agent/usecases/doctor_tpm.h"
#include "agent/usecases/kdf_choice.h"
#include "agent/usecases/log_seed.h"
#include "agent/usecases/process_facts.h"
#include "agent/usecases/registry.h"
#include "agent/usecases/rotation_record.h"
#include "agent/usecases/shell_word.h"
#include "envelope/base/hash.h"
#include "envelope/base/p256.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {
namespace {

// A build's sources are never newer than its clock; an earlier time means a clock that was not set.
constexpr std::int64_t kEarliestPlausibleTime = 1767225600;  // 2026-01-01
constexpr rlim_t kWantedLockedBytes = 1U << 20;
constexpr std::uint64_t kWantedFreeBytes = 16U << 20;

class Examination {
 public:
  void Good(std::string area, std::string what) {
    checks_.push_back({std::move(area), CheckOutcome::kGood, std::move(what), "", ""});
  }
  void Warn(std::string area, std::string what, std::string remedy) {
    checks_.push_back(
        {std::move(area), CheckOutcome::kWarning, std::move(what), std::move(remedy), ""});
  }
  void Skip(std::string area, std::string what, std::string remedy) {
    checks_.push_back(
        {std::move(area), CheckOutcome::kSkipped, std::move(what), std::move(remedy), ""});
  }
  void Bad(std::string area, const Error& error) {
    checks_.push_back({std::move(area), CheckOutcome::kBad, error.message(), error.hint(),
                       std::string(ErrorCodeName(error.code()))});
  }
  void Add(std::vector<Check> more) {
    checks_.insert(checks_.end(), std::make_move_iterator(more.begin()),
                   std::make_move_iterator(more.end()));
  }
  bool IsWell(std::string_view area) const {
    return std::none_of(checks_.begin(), checks_.end(), [&](const Check& check) {
      return check.area == area &&
             (check.outcome == CheckOutcome::kBad || check.outcome == CheckOutcome::kSkipped);
    });
  }
  std::vector<Check> Take() { return std::move(checks_); }

 private:
  std::vector<Check> checks_;
};

void CheckMemory(Examination& examination) {
  rlimit limit{};
  getrlimit(RLIMIT_MEMLOCK, &limit);
  auto probe = SecretBytes::Allocate(kWantedLockedBytes);
  if (!probe) {
    examination.Bad("memory", probe.error());
    return;
  }
  examination.Good("memory", limit.rlim_cur == RLIM_INFINITY
                                 ? "memory can be locked without a limit"
                                 : "memory can be locked, up to " +
                                       std::to_string(limit.rlim_cur / 1024) + " KiB");
}

void CheckEntropy(Examination& examination) {
  std::uint8_t byte = 0;
  if (getrandom(&byte, 1, GRND_NONBLOCK) == 1) {
    examination.Good("entropy", "the kernel's random generator is ready");
    return;
  }
  examination.Bad(
      "entropy",
      Error(ErrorCode::kEntropyUnavailable, Action::kCheckSystemState,
            "the kernel has not gathered enough entropy: every command would wait",
            "give a virtual machine a virtio-rng device, or wait until the boot is done"));
}

// CheckOrder finds a clock that went back: what it writes now would seem older than the log's end.
void CheckOrder(Agent& agent, Examination& examination) {
  const auto head = agent.store().Head();
  if (!head || head->size == 0) return;  // the log's own check says so
  const auto entry = agent.store().Entry(head->size - 1);
  if (!entry) return;
  const auto event = audit::ParseEvent(AsText(entry->bytes));
  if (!event || event->time <= agent.Now() + kToleratedSkewS) return;
  examination.Warn("clock",
                   "the clock went back: the log's newest entry is of " + FormatUtc(event->time) +
                       ", and now it is said to be " + FormatUtc(agent.Now()),
                   "set the clock before the next backup or restore: events carry its time");
}

// CheckSpace: a log entry and an envelope take some 100 KB; below that backups and restores fail.
void CheckSpace(const std::string& state_dir, Examination& examination) {
  struct statvfs space {};
  if (statvfs(state_dir.c_str(), &space) != 0) return;
  const auto free_bytes = static_cast<std::uint64_t>(space.f_bavail) * space.f_frsize;
  if (free_bytes >= kWantedFreeBytes) return;
  examination.Warn("store",
                   std::to_string(free_bytes / 1024) + " KiB are free on the disk of " + state_dir,
                   "free some space: a restore is logged first, and is refused where it cannot be");
}

// CheckKeyFile: a key that everybody can read protects nothing, whatever its escrow does.
void CheckKeyFile(const std::string& key, const std::string& path, Examination& examination) {
  struct stat status {};
  if (path.empty() || stat(path.c_str(), &status) != 0 || (status.st_mode & 007) == 0) return;
  examination.Warn("secrets",
                   "the key " + key + " in " + path + " can be read or written by every user",
                   "run 'chmod o= " + path + "', and replace the key if others may have seen it");
}

void CheckSecrets(const Environment& environment, Agent* agent, Examination& examination) {
  for (const DeclaredKey& key : environment.config->keys) {
    if (const auto location = ParseLocation(key.source)) {
      CheckKeyFile(key.name, (*location)->FilePath(), examination);
    }
  }
  if (agent == nullptr) return;
  if (const auto destinations = agent->store().Destinations()) {
    for (const store::DestinationRecord& row : *destinations) {
      CheckKeyFile(row.key_name, row.path, examination);
      CheckKeyFile(row.key_name, row.previous_path, examination);
    }
  }
  const auto tokens = agent->store().Tokens();
  for (std::size_t index = 0; tokens && index < tokens->size(); ++index) {
    const std::string& file = (*tokens)[index].pin_source;
    if (file.empty()) continue;
    if (const Status safe = CheckSecretFile(file); !safe) {
      examination.Bad("secrets", safe.error());
    } else {
      examination.Good("secrets", "the PIN file of " + (*tokens)[index].name + " is ours alone");
    }
  }
}

void CheckMachine(Agent& agent, Examination& examination) {
  if (!agent.warning().empty()) {
    examination.Warn("state", agent.warning(),
                     "give the other machine a state of its own ('keyescrow init --state DIR')");
  }
  const auto made_on = agent.store().GetSetting(kMachineSetting);
  const std::string here = MachineId();
  if (!made_on || !*made_on || here.empty() || **made_on == here) return;
  examination.Warn("state",
                   "the state was made on another machine: two agents that share or copied one "
                   "state write one log in two ways, which every later verify reports",
                   "use it on one machine alone; on the other, run 'keyescrow init' with a --state "
                   "of its own and 'trust add' this agent");
}

void CheckClock(const Environment& environment, Examination& examination) {
  if (environment.clock->NowUnixSeconds() < kEarliestPlausibleTime) {
    examination.Warn("clock",
                     "the clock says " + FormatUtc(environment.clock->NowUnixSeconds()) +
                         ", which is before this version was made",
                     "set the clock: events and envelopes carry its time");
    return;
  }
  timex state{};
  const int outcome = adjtimex(&state);
  if (outcome == TIME_ERROR || (state.status & STA_UNSYNC) != 0) {
    examination.Warn("clock", "the clock is not synchronised",
                     "run an NTP client such as systemd-timesyncd; events say so until then");
    return;
  }
  examination.Good("clock", "synchronised");
}

// CheckAnchor asks the TPM for the log's counter.
void CheckAnchor(Agent& agent, Examination& examination) {
  const AnchorCheck check = CheckCounter(agent);
  if (check.error) {
    examination.Bad("log", *check.error);
  } else if (!agent.identity().anchor) {
    return;
  } else if (!check.checked) {
    examination.Warn("log", check.what, check.remedy);
  } else {
    examination.Good("log", check.what);
  }
}

void DescribeToken(const TokenFacts& token, Examination& examination) {
  const std::string name = "\"" + token.label + "\" (serial " + token.serial + ")";
  if (token.locked) {
    examination.Bad("token", Error(ErrorCode::kPinLocked, Action::kCallOperator,
                                   "the PIN of " + name + " is locked",
                                   "the token's administrator must unblock it"));
  } else if (token.final_try) {
    examination.Warn("token", name + " has one PIN try left",
                     "make sure of the PIN; a wrong one locks the token");
  } else if (token.pin_count_low) {
    examination.Warn("token", name + ": a wrong PIN was entered since the last right one",
                     "make sure of the PIN before the next try");
  } else {
    examination.Good("token", name + " is there");
  }
  if (!token.unwraps_rsa && !token.derives_ecdh) {
    examination.Bad("token",
                    Error(ErrorCode::kTokenMechanism, Action::kWrongDevice,
                          name + ": the module offers neither RSA decryption nor ECDH, so no "
                                 "envelope can be opened with this token",
                          "name the module of another token, or enable the mechanisms in the "
                          "module's settings (softhsm2.conf: slots.mechanisms)"));
  } else if (!token.unwraps_rsa || !token.derives_ecdh) {
    examination.Warn(
        "token",
        name + " offers " +
            (token.unwraps_rsa ? "RSA alone, no ECDH" : "ECDH alone, no RSA decryption"),
        std::string("register ") + (token.unwraps_rsa ? "RSA keys" : "P-256 keys") +
            " of it ('token keygen --kind " + (token.unwraps_rsa ? "rsa3072')" : "p256')"));
  }
  if (token.software) {
    examination.Warn("token", name + " is SOFTWARE: its keys are files on this host",
                     "use a hardware token for keys that matter");
  }
}

void CheckModule(const Environment& environment, const std::string& module,
                 Examination& examination) {
  auto facts = environment.devices->InspectModule(module);
  if (!facts) {
    examination.Bad("module", facts.error());
    return;
  }
  examination.Good("module", module + ": " + facts->description + " " + facts->library_version);
  if (facts->tokens.empty()) {
    examination.Warn("token", "no token is in any slot of " + module,
                     "insert the token, or start the service that shows it");
  }
  for (const TokenFacts& token : facts->tokens) DescribeToken(token, examination);
}

// CheckStateFiles: the folder is closed to others, and so is each of its files, should a copy of it
// not be.
void CheckStateFiles(const std::string& state_dir, Examination& examination) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(state_dir, error)) {
    if (!entry.is_regular_file(error)) continue;
    const Status status = store::CheckPrivateFile(entry.path());
    const bool is_gone = !status && status.error().code() == ErrorCode::kNotFound;
    if (!status && !is_gone) examination.Bad("state", status.error());
  }
}

// CheckAgentKey has it sign once. What is wrong with the TPM is told of the TPM.
void CheckAgentKey(Agent& agent, Examination& examination) {
  if (agent.identity().place == AgentKeyPlace::kTpm) {
    if (auto auth = LoadAgentTpmAuth(agent.environment().state_dir); !auth) {
      examination.Bad("state", auth.error());
      return;
    }
    if (!examination.IsWell("tpm")) return;
  }
  const Bytes32 digest = Sha256(AsBytes("keyescrow doctor"));
  const auto signature = agent.signer().SignDigest(digest);
  if (!signature) {
    examination.Bad("state", signature.error());
  } else if (!VerifyEs256(agent.identity().p256, digest, *signature)) {
    examination.Bad("state", Error(ErrorCode::kAgentKeyUnavailable, Action::kCallOperator,
                                   "what the agent key signs does not verify",
                                   "put the state folder back from a copy"));
  } else {
    examination.Good("state", "the agent key signs");
  }
}

// CheckLeftovers looks for what a restore that was killed (kill -9, a power cut) left of a key.
void CheckLeftovers(Agent& agent, Examination& examination) {
  std::set<std::string> paths;
  for (const DeclaredKey& key : agent.environment().config->keys) {
    const auto source = ParseLocation(key.source);
    if (source && !(*source)->FilePath().empty()) paths.insert((*source)->FilePath());
  }
  if (const auto known = agent.store().Destinations()) {
    for (const store::DestinationRecord& record : *known) paths.insert(record.path);
  }
  for (const std::string& path : paths) {
    for (const std::string& left : LeftBeside(path)) {
      examination.Warn(
          "keys", "a write that was interrupted left " + left + ", which may hold a key",
          "run it again, which removes it; or, while no restore is running, rm " + ShellWord(left));
    }
  }
}

void CheckState(const Environment& environment, const std::string& module,
                Examination& examination) {
  struct stat status {};
  if (stat(environment.state_dir.c_str(), &status) != 0) {
    examination.Skip("state", "there is no state in " + environment.state_dir,
                     "run 'keyescrow init', or restore from a file: that needs none");
    examination.Add(CheckTpm(environment, {}));
    CheckSecrets(environment, nullptr, examination);
    examination.Add(CheckNeeds(environment, nullptr).checks);
    return;
  }
  CheckSpace(environment.state_dir, examination);
  auto agent = Agent::Open(environment);
  if (!agent) {
    examination.Bad("state", agent.error());
    examination.Add(CheckTpm(environment, {}));
    return;
  }
  examination.Good("state", environment.state_dir + ": agent " + (*agent)->identity().Thumbprint());
  CheckStateFiles(environment.state_dir, examination);
  if (Status writable = (*agent)->store().CheckWritable(); !writable) {
    examination.Bad("store", writable.error());
  } else {
    examination.Good("store", "can be written");
  }
  if (auto seed = LoadLogSeed(environment.state_dir, (*agent)->identity()); !seed) {
    examination.Bad("log", seed.error());
  } else if (auto health = (*agent)->journal().Health(); !health) {
    examination.Bad("log", health.error());
  } else if (health->p256_missing) {
    examination.Warn("log",
                     "the newest checkpoint lacks the agent key's signature since " +
                         health->missing_since_time + " (" + health->missing_cause + ")",
                     "bring the tpm back; the next entry that it signs ends the finding");
  } else {
    examination.Good("log", std::to_string(health->size) + " entries, signed");
  }
  if (const auto rotating = RotationFindings(**agent, "")) {
    for (const Finding& finding : *rotating) {
      examination.Warn("rotation", finding.key + ": " + finding.what, finding.remedy);
    }
  }
  if (const auto traces = ScrubFindings(**agent)) {
    for (const Finding& finding : *traces) {
      examination.Warn("destroy", finding.key + ": " + finding.what, finding.remedy);
    }
  }
  CheckMachine(**agent, examination);
  CheckOrder(**agent, examination);
  CheckLeftovers(**agent, examination);
  // Without the pin, which would stand for the TPM's own answer.
  environment.devices->UseTpm((*agent)->tcti(), {});
  examination.Add(CheckTpm(environment, (*agent)->identity().srk_public));
  CheckAnchor(**agent, examination);
  CheckAgentKey(**agent, examination);
  CheckSecrets(environment, agent->get(), examination);
  Needed needed = CheckNeeds(environment, agent->get());
  examination.Add(std::move(needed.checks));
  auto tokens = (*agent)->store().Tokens();
  if (!tokens) {
    examination.Bad("token", tokens.error());
    return;
  }
  std::vector<std::string> seen = {module};
  for (const store::TokenRecord& token : *tokens) {
    if (std::find(seen.begin(), seen.end(), token.module) != seen.end()) continue;
    seen.push_back(token.module);
    CheckModule(environment, token.module, examination);
  }
  for (const store::TokenRecord& token : *tokens) {
    Status located = LocateToken(token, *environment.devices);
    if (!located && located.error().code() == ErrorCode::kTokenNotFound &&
        needed.officers_keys.contains(Sha256(token.spki))) {
      examination.Warn(
          "officer",
          "token:" + token.name + " is not here: it holds a share, and its officer keeps it",
          "nothing is wrong if the officer has it: a ceremony or a drill asks for it");
    } else if (!located) {
      examination.Bad("token", std::move(located).error().WithContext("token:" + token.name));
    } else {
      examination.Good("token", "token:" + token.name + " is there with its key");
    }
  }
}

}  // namespace

std::vector<Check> Doctor(const Environment& environment, const std::string& module,
                          const std::optional<Error>& config_error) {
  Examination examination;
  if (config_error) {
    examination.Bad("configuration", *config_error);
  } else if (environment.config->present) {
    examination.Good("configuration", environment.config->file);
    if (CostsBelowDefault(environment.config->kdf_costs)) {
      examination.Warn("configuration",
                       environment.config->file +
                           " makes a guess at a password cheaper than the format's defaults",
                       "take argon2id_* and pbkdf2_iterations out of [defaults], then back up "
                       "again; a policy can ask for a least cost (kdf)");
    }
  }
  CheckMemory(examination);
  CheckEntropy(examination);
  CheckClock(environment, examination);
  environment.devices->UseTpm(environment.tcti, {});
  CheckState(environment, module, examination);
  if (!module.empty()) CheckModule(environment, module, examination);
  return examination.Take();
}

}  // namespace keyescrow::agent
