#include "agent/usecases/doctor_needs.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "agent/key_locations/luks_location.h"
#include "agent/report/qr_code.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/recovery_key_failure.h"
#include "agent/usecases/registered_recovery_key.h"
#include "agent/usecases/token_sessions.h"
#include "envelope/base/hash.h"
#include "envelope/path_expression.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMaxNamed = 5;  // keys that one check names

// Keys: which keys need a thing, for a sentence.
class Keys {
 public:
  void Add(const std::string& name) { names_.insert(name); }
  std::string Text() const {
    std::string text;
    std::size_t number = 0;
    for (const std::string& name : names_) {
      if (++number <= kMaxNamed) text += (text.empty() ? "" : ", ") + name;
    }
    if (number > kMaxNamed) text += fmt::format(" and {} more", number - kMaxNamed);
    return text;
  }

 private:
  std::set<std::string> names_;
};

class Needs {
 public:
  Needs(const Environment& environment, Agent* agent) : environment_(environment), agent_(agent) {}

  Needed Take() {
    CheckVolumes();
    if (agent_ == nullptr) return {std::move(checks_), {}};
    if (Status read = Read(); !read) {
      Bad("store", read.error());
      return {std::move(checks_), {}};
    }
    CheckPolicy();
    CheckSheets();
    CheckRecoveryKeys();
    std::set<Bytes32> officers = CheckOfficers();
    return {std::move(checks_), std::move(officers)};
  }

 private:
  void Good(std::string area, std::string what) {
    checks_.push_back({std::move(area), CheckOutcome::kGood, std::move(what), "", ""});
  }
  void Warn(std::string area, std::string what, std::string remedy) {
    checks_.push_back(
        {std::move(area), CheckOutcome::kWarning, std::move(what), std::move(remedy), ""});
  }
  void Bad(std::string area, const Error& error) {
    checks_.push_back({std::move(area), CheckOutcome::kBad, error.message(), error.hint(),
                       std::string(ErrorCodeName(error.code()))});
  }

  void CheckVolumes() {
    Keys keys;
    bool any = false;
    for (const DeclaredKey& key : environment_.config->keys) {
      if (!key.source.starts_with("luks:")) continue;
      keys.Add(key.name);
      any = true;
    }
    if (!any) return;
    if (Status there = CheckLibcryptsetup(); !there) {
      Bad("luks", std::move(there).error().WithContext(keys.Text()));
    } else {
      Good("luks", "libcryptsetup is there, for " + keys.Text());
    }
  }

  void CheckPolicy() {
    const auto in_force = agent_->Policy();
    if (!in_force) return Bad("policy", in_force.error());
    const policy::Policy& policy = (*in_force)->policy;
    if ((*in_force)->IsBuiltin()) {
      Good("policy", "no policy was set: " + policy.name + ", which comes with keyescrow, holds");
    } else {
      Good("policy", fmt::format("{} serial {} is in force since {} and {}; its signatures hold",
                                 policy.name, policy.serial, FormatUtc((*in_force)->set_time),
                                 policy.mode == policy::Mode::kEnforce ? "enforces" : "reports"));
    }
    for (const Finding& finding : (*in_force)->findings) {
      Warn("policy", finding.what, finding.remedy);
    }
    policy::Facts facts;
    facts.host = agent_->identity().host;
    facts.now = agent_->Now();
    for (const Finding& finding : policy::EvaluatePolicy(policy, facts)) {
      Warn("policy", finding.what, finding.remedy);
    }
  }

  void CheckSheets() {
    if (headers_.empty()) return;
    if (const auto encoder = report::QrEncoder::Load(); !encoder) {
      Warn("sheet", "no recovery sheet with QR codes can be made: " + encoder.error().message(),
           encoder.error().hint());
    } else {
      Good("sheet", "recovery sheets can be drawn with QR codes");
    }
  }

  // Read reads the tokens, the recovery keys, and of envelopes the newest of each key; of those
  // under the same paths, one.
  Status Read() {
    store::EscrowStore& store = agent_->store();
    ASSIGN_OR_RETURN(tokens_, store.Tokens());
    ASSIGN_OR_RETURN(recovery_keys_, store.RecoveryKeys());
    for (const store::RecoveryKeyRecord& row : recovery_keys_) {
      ASSIGN_OR_RETURN(auto failure, FindFailure(store, row));
      if (failure) failures_.emplace(row.name, std::move(*failure));
    }
    std::vector<std::pair<std::string, std::optional<Bytes32>>> newest;
    RETURN_IF_ERROR(store.PathSets("", [&](const store::PathSetRow& row) {
      if (newest.empty() || newest.back().first != row.key_name) {
        newest.emplace_back(row.key_name, std::nullopt);
      }
      newest.back().second = row.path_set;
      return true;
    }));
    ASSIGN_OR_RETURN(const auto trust, TrustFor(agent_, "", true));
    std::set<Bytes32> seen;
    for (const auto& [name, path_set] : newest) {
      if (path_set && !seen.insert(*path_set).second) continue;
      ASSIGN_OR_RETURN(const auto record, store.FindEnvelope(name, std::nullopt));
      auto sealed = envelope::SealedEnvelope::Read(record.bytes, trust);
      if (sealed)
        headers_.push_back(sealed->header());  // one that does not read is verify's to say
    }
    return Ok();
  }

  const store::RecoveryKeyRecord* FindRecoveryKey(const std::string& name) const {
    for (const store::RecoveryKeyRecord& row : recovery_keys_) {
      if (row.name == name) return &row;
    }
    return nullptr;
  }

  void CheckRecoveryKeys() {
    for (const store::RecoveryKeyRecord& row : recovery_keys_) {
      const std::string name = "recovery-key:" + row.name;
      if (row.retired) continue;
      if (const auto key = ReadRegistered(row); !key) {
        Bad("recovery key", Error(key.error()).WithContext(name));
      } else if (const auto failure = failures_.find(row.name); failure != failures_.end()) {
        Warn("recovery key",
             fmt::format("{} did not open on {} ({}){}: every path under it is broken", name,
                         FormatUtc(failure->second.time), failure->second.code,
                         row.drilled ? ", and was opened last " + FormatUtc(*row.drilled) : ""),
             "'keyescrow drill " + name +
                 "' where its factors are whole; else make another recovery key, and back up what "
                 "goes to this one");
      } else if (!row.drilled) {
        Warn(
            "recovery key",
            name + " was never opened here: nothing shows that its people can open what goes to it",
            "'keyescrow drill " + name + "' proves it, and every envelope under it at once");
      } else {
        Good("recovery key", name + " was opened last " + FormatUtc(*row.drilled));
      }
    }
    // What is declared and cannot be escrowed is found here, and not by tonight's timer.
    std::map<std::string, Keys> gone;
    for (const DeclaredKey& key : environment_.config->keys) {
      const auto& paths = key.paths.empty() ? environment_.config->default_paths : key.paths;
      const auto options = envelope::ParsePathOptions(paths);
      if (!options) continue;  // none, or one that the next backup tells of
      for (const envelope::PathOption& option : *options) {
        for (const envelope::FactorTerm& term : option.expression.factors) {
          if (term.kind != envelope::FactorKind::kRecoveryKey) continue;
          const store::RecoveryKeyRecord* row = FindRecoveryKey(term.name);
          if (row == nullptr || row->retired) gone[term.name].Add(key.name);
        }
      }
    }
    for (const auto& [name, keys] : gone) {
      const bool retired = FindRecoveryKey(name) != nullptr;
      Bad("recovery key",
          Error(ErrorCode::kNotFound, Action::kFixInput,
                fmt::format("recovery-key:{} is {}, and {} cannot be escrowed to it", name,
                            retired ? "retired" : "not registered here", keys.Text()),
                retired ? "declare other paths for them in agent.toml"
                        : "take its record with 'keyescrow recovery-key import FILE', which "
                          "'recovery-key export' wrote where it was made"));
    }
    std::map<std::string, Keys> lost;
    for (const envelope::Header& header : headers_) {
      if (header.agent != agent_->identity().Thumbprint()) continue;
      for (const envelope::PathRecord& path : header.paths) {
        if (path.recovery_key && FindRecoveryKey(path.recovery_key->name) == nullptr) {
          lost[path.recovery_key->name].Add(header.key_name);
        }
      }
    }
    for (const auto& [name, keys] : lost) {
      if (gone.contains(name)) continue;
      Warn("recovery key",
           fmt::format("the record of recovery-key:{} is not registered here, and {} went to it",
                       name, keys.Text()),
           "their envelopes hold its record of then; take it with 'keyescrow recovery-key import "
           "FILE'");
    }
  }

  // CheckOfficers returns the keys that shares alone are for.
  std::set<Bytes32> CheckOfficers() {
    std::set<Bytes32> registered;
    for (const store::TokenRecord& token : tokens_) registered.insert(Sha256(token.spki));
    std::map<std::string, Keys> unknown;
    std::set<Bytes32> shared;
    std::set<Bytes32> direct;
    for (const envelope::Header& header : headers_) {
      for (const envelope::PathRecord& path : header.paths) {
        for (const envelope::FactorRecord& factor : path.factors) {
          const auto* shares = std::get_if<envelope::SharesRecord>(&factor);
          if (shares == nullptr) {
            if (const auto token = IdentityOf(factor)) direct.insert(Sha256(*token->spki));
            continue;
          }
          for (const envelope::ShareMember& member : shares->members) {
            const envelope::FactorRecord record = std::visit(
                [](const auto& row) { return envelope::FactorRecord(row); }, member.factor);
            const Bytes32 key = Sha256(*IdentityOf(record)->spki);
            shared.insert(key);
            if (!registered.contains(key)) unknown[member.name].Add(header.key_name);
          }
        }
      }
    }
    for (const auto& [name, keys] : unknown) {
      Warn("officer",
           fmt::format("no registered module serves the token of the officer {}, who holds a share "
                       "of {}",
                       name, keys.Text()),
           "register it with 'keyescrow token add " + name +
               " URI --module SO', or have the module's path at hand for --module");
    }
    for (const Bytes32& key : direct) shared.erase(key);
    return shared;
  }

  const Environment& environment_;
  Agent* agent_;
  std::vector<Check> checks_;
  std::vector<store::TokenRecord> tokens_;
  std::vector<store::RecoveryKeyRecord> recovery_keys_;
  std::map<std::string, RecoveryKeyFailure> failures_;  // of these, by name
  std::vector<envelope::Header> headers_;
};

}  // namespace

Needed CheckNeeds(const Environment& environment, Agent* agent) {
  return Needs(environment, agent).Take();
}

}  // namespace keyescrow::agent
