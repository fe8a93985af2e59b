#include "agent/usecases/doctor_tpm.h"

#include <string>
#include <utility>

namespace keyescrow::agent {
namespace {

// StorageKeyRemedy makes it and puts it where every later use finds it.
std::string StorageKeyRemedy(const std::string& owner) {
  const std::string attributes =
      "'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt'";
  return "tpm2_createprimary -C o" + owner + " -g sha256 -G ecc256:aes128cfb -a " + attributes +
         " -c srk.ctx && tpm2_evictcontrol -C o" + owner + " -c srk.ctx 0x81000001";
}

class TpmCheck {
 public:
  std::vector<Check> Run(const Environment& environment, const Bytes& known_srk) {
    auto tpm = environment.devices->Tpm();
    if (!tpm && environment.tcti == "none") {
      checks_.push_back(
          {"tpm", CheckOutcome::kSkipped, "not looked at: --tpm none", "leave --tpm out", ""});
      return std::move(checks_);
    }
    if (!tpm) return Bad(tpm.error());
    const auto state = (*tpm)->Inspect();
    if (!state) return Bad(state.error());
    Good("answers: " + state->manufacturer + " " + state->vendor);
    if (state->simulator) {
      Warn("this is a simulator: it protects nothing", "use /dev/tpmrm0 for keys that matter");
    }
    CheckLockout(*state);
    CheckStorageKey(*state);
    const auto parent = (*tpm)->StorageParent();
    if (!parent) return Bad(parent.error());
    if (known_srk.empty() || *parent == known_srk) return std::move(checks_);
    return Bad(Error(ErrorCode::kTpmWrongDevice, Action::kWrongDevice,
                     "this is not the tpm that init saw, or it was cleared since: what was sealed "
                     "to it does not open any more",
                     "restore by a path without tpm; then make a new state with 'keyescrow init "
                     "--state DIR' and back up again"));
  }

 private:
  void Good(std::string what) {
    checks_.push_back({"tpm", CheckOutcome::kGood, std::move(what), "", ""});
  }
  void Warn(std::string what, std::string remedy) {
    checks_.push_back({"tpm", CheckOutcome::kWarning, std::move(what), std::move(remedy), ""});
  }
  std::vector<Check> Bad(const Error& error) {
    checks_.push_back({"tpm", CheckOutcome::kBad, error.message(), error.hint(),
                       std::string(ErrorCodeName(error.code()))});
    return std::move(checks_);
  }

  void CheckLockout(const envelope::TpmState& state) {
    if (!state.lockout_auth_set) {
      Warn(
          "lockoutAuth is empty: anybody on this host can reset the lockout, so it does not slow "
          "down guessing",
          "set it with 'tpm2_changeauth -c lockout file:FILE', where FILE holds a password, and "
          "keep that off this host");
    }
    const std::string tries = std::to_string(state.lockout_counter) + " of " +
                              std::to_string(state.max_auth_fail) + " tries used";
    if (!state.in_lockout && state.lockout_counter < state.max_auth_fail) return Good(tries);
    // A wrong lockoutAuth, as an empty one then is, locks the command itself.
    const std::string reset = state.lockout_auth_set
                                  ? "'tpm2_dictionarylockout -c -p file:FILE', where FILE holds "
                                    "the lockoutAuth, ends it"
                                  : "'tpm2_dictionarylockout -c' ends it";
    Warn("locked out: " + tries, state.lockout_interval_s == 0
                                     ? "it does not heal by waiting: " + reset
                                     : "one try is freed every " +
                                           std::to_string(state.lockout_interval_s) +
                                           " s of powered-on time, or " + reset);
  }

  void CheckStorageKey(const envelope::TpmState& state) {
    if (state.srk_persistent) return Good("the storage root key is at 0x81000001");
    if (state.srk_handle_occupied && state.owner_auth_set) {
      return Warn(
          "0x81000001 holds another key, and under the owner's password ours cannot be made",
          "use paths without tpm");
    }
    if (state.srk_handle_occupied) {
      return Warn("0x81000001 holds another key: ours is made anew at each use",
                  "this works; it costs a command at each use. Nothing of others is evicted");
    }
    if (state.owner_auth_set) {
      return Warn("the owner hierarchy has a password: the storage key cannot be made",
                  "with the owner's password in FILE, once: " + StorageKeyRemedy(" -P file:FILE"));
    }
    Warn("no storage root key is at 0x81000001: each use makes it anew",
         "make it persistent, once: " + StorageKeyRemedy(""));
  }

  std::vector<Check> checks_;
};

}  // namespace

std::vector<Check> CheckTpm(const Environment& environment, const Bytes& known_srk) {
  return TpmCheck().Run(environment, known_srk);
}

}  // namespace keyescrow::agent
