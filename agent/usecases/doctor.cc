#include "agent/usecases/doctor.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>

#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {
namespace {

// A build's sources are never newer than its clock; an earlier time means a clock that was not set.
constexpr std::int64_t kEarliestPlausibleTime = 1767225600;  // 2026-01-01
constexpr rlim_t kWantedLockedBytes = 1U << 20;

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

void CheckTpm(const Environment& environment, Examination& examination) {
  auto tpm = environment.devices->Tpm();
  if (!tpm) {
    if (environment.tcti == "none") {
      examination.Skip("tpm", "not looked at: --tpm none", "leave --tpm out");
    } else {
      examination.Bad("tpm", tpm.error());
    }
    return;
  }
  auto state = (*tpm)->Inspect();
  if (!state) {
    examination.Bad("tpm", state.error());
    return;
  }
  examination.Good("tpm", "answers: " + state->manufacturer + " " + state->vendor);
  if (state->simulator) {
    examination.Warn("tpm", "this is a simulator: it protects nothing",
                     "use /dev/tpmrm0 for keys that matter");
  }
  if (!state->lockout_auth_set) {
    examination.Warn("tpm",
                     "lockoutAuth is empty: anybody on this host can reset the lockout, so it "
                     "does not slow down guessing",
                     "set it with 'tpm2_changeauth -c lockout' and keep it off this host");
  }
  const std::string tries = std::to_string(state->lockout_counter) + " of " +
                            std::to_string(state->max_auth_fail) + " tries used";
  if (state->in_lockout || state->lockout_counter >= state->max_auth_fail) {
    examination.Warn("tpm", "locked out: " + tries,
                     state->lockout_interval_s == 0
                         ? "it does not heal by waiting: 'tpm2_dictionarylockout -c' with the "
                           "lockoutAuth ends it"
                         : "one try is freed every " + std::to_string(state->lockout_interval_s) +
                               " s of powered-on time, or 'tpm2_dictionarylockout -c' ends it");
  } else {
    examination.Good("tpm", tries);
  }
  if (state->owner_auth_set) {
    examination.Warn("tpm", "the owner hierarchy has a password: the storage key cannot be made",
                     "make the SRK persistent at 0x81000001 once, with the owner's password");
  }
  if (state->srk_persistent) {
    examination.Good("tpm", "the storage root key is at 0x81000001");
  } else if (state->srk_handle_occupied) {
    examination.Warn("tpm", "0x81000001 holds another key: ours is made anew at each use",
                     "this works; it costs a command at each use. Nothing of others is evicted");
  } else {
    examination.Warn("tpm", "no storage root key is at 0x81000001",
                     "'keyescrow init' makes it persistent; until then each use makes it anew");
  }
  if (auto parent = (*tpm)->StorageParent(); !parent) examination.Bad("tpm", parent.error());
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

void CheckState(const Environment& environment, const std::string& module,
                Examination& examination) {
  struct stat status {};
  if (stat(environment.state_dir.c_str(), &status) != 0) {
    examination.Skip("state", "there is no state in " + environment.state_dir,
                     "run 'keyescrow init', or restore from a file: that needs none");
    CheckTpm(environment, examination);
    return;
  }
  auto agent = Agent::Open(environment);
  if (!agent) {
    examination.Bad("state", agent.error());
    CheckTpm(environment, examination);
    return;
  }
  examination.Good("state", environment.state_dir + ": agent " + (*agent)->identity().Thumbprint());
  if (Status writable = (*agent)->store().CheckWritable(); !writable) {
    examination.Bad("store", writable.error());
  } else {
    examination.Good("store", "can be written");
  }
  if (auto health = (*agent)->journal().Health(); !health) {
    examination.Bad("log", health.error());
  } else if (health->p256_missing) {
    examination.Warn("log",
                     "the newest checkpoint lacks the agent key's signature since " +
                         health->missing_since_time + " (" + health->missing_cause + ")",
                     "bring the tpm back; the next entry that it signs ends the finding");
  } else {
    examination.Good("log", std::to_string(health->size) + " entries, signed");
  }
  CheckTpm(environment, examination);
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
}

}  // namespace

std::vector<Check> Doctor(const Environment& environment, const std::string& module,
                          const std::optional<Error>& config_error) {
  Examination examination;
  if (config_error) {
    examination.Bad("configuration", *config_error);
  } else if (environment.config->present) {
    examination.Good("configuration", environment.config->file);
  }
  CheckMemory(examination);
  CheckClock(environment, examination);
  environment.devices->UseTpm(environment.tcti, {});
  CheckState(environment, module, examination);
  if (!module.empty()) CheckModule(environment, module, examination);
  return examination.Take();
}

}  // namespace keyescrow::agent
