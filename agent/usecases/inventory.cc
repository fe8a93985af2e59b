#include "agent/usecases/inventory.h"

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <set>

#include "agent/usecases/anchoring.h"
#include "agent/usecases/clock_findings.h"
#include "agent/usecases/destroy.h"
#include "agent/usecases/enroll.h"
#include "agent/usecases/foreign_escrow.h"
#include "agent/usecases/gate.h"
#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/put_aside.h"
#include "agent/usecases/recovery_keys.h"
#include "agent/usecases/rotation_record.h"

namespace keyescrow::agent {
namespace {

bool NeedsTpm(const envelope::PathRecord& path) {
  return std::any_of(path.factors.begin(), path.factors.end(),
                     [](const envelope::FactorRecord& factor) {
                       return std::holds_alternative<envelope::Tpm2Record>(factor);
                     });
}

KeyView Describe(const envelope::SealedEnvelope& sealed, std::size_t size_bytes) {
  const envelope::Header& header = sealed.header();
  KeyView view;
  view.name = header.key_name;
  view.version = header.key_version;
  view.revision = header.revision;
  view.host = header.host;
  view.policy = header.policy;
  view.created = header.created;
  view.updated = header.updated;
  view.agent = header.agent;
  view.agent_trusted = sealed.agent_trusted();
  view.envelope_id = header.envelope_id;
  view.envelope_hash = sealed.hash();
  view.note = header.note.value_or("");
  view.size_bytes = size_bytes;
  view.facts = policy::FactsOf(header);
  // Too many factors is the only way to fail here, and is shown as such.
  auto recoverability = envelope::Recoverability::Of(header.paths);
  if (recoverability) view.recoverability = std::move(*recoverability);
  for (const envelope::PathRecord& path : header.paths) {
    PathView entry;
    entry.id = path.id;
    entry.expression = PathExpressionText(path);
    entry.portable = !NeedsTpm(path);
    entry.factors = DescribePaths({&path}).front().factors;
    view.paths.push_back(std::move(entry));
  }
  return view;
}

void AddConditions(KeyView& view, const std::vector<store::PathState>& states,
                   const policy::Policy& policy, std::int64_t now) {
  AddProofs(view.facts, view.revision, states);
  const auto rules = policy::MatchingRules(policy, view.name, view.host, now);
  for (PathView& path : view.paths) {
    const std::optional<std::int64_t> period = policy::DrillPeriod(rules, path.id);
    path.condition = PathCondition::kUnproven;
    for (const store::PathState& state : states) {
      if (state.key_name != view.name || state.key_version != view.version ||
          state.path_id != path.id) {
        continue;
      }
      path.proven = state.proven;
      path.proven_by = state.proven_by;
      path.proof_seq = state.proof_seq;
      if (state.failed && (!state.proven || *state.failed >= *state.proven)) {
        path.condition = PathCondition::kBroken;
        path.failure = state.failure;
      } else if (state.proven) {
        const bool fresh =
            (!period || now - *state.proven <= *period) && state.proven_revision == view.revision;
        path.condition = fresh ? PathCondition::kProven : PathCondition::kStale;
      }
    }
  }
}

// Collector collects the findings that no policy's rule asks for.
class Collector {
 public:
  Collector(std::string host, std::vector<Finding>& findings)
      : host_(std::move(host)), findings_(findings) {}

  void Add(std::string rule, std::string key, Severity severity, std::string what,
           std::string remedy) {
    findings_.push_back(
        {std::move(rule), std::move(key), host_, severity, std::move(what), std::move(remedy)});
  }

 private:
  std::string host_;
  std::vector<Finding>& findings_;
};

// CheckedPaths: what CheckPaths said of declared paths, which many keys share.
using CheckedPaths = std::map<std::vector<std::string>, Status>;

// AddUnusablePaths tells of declared paths that the next backup will refuse.
Status AddUnusablePaths(Agent& agent, const DeclaredKey& declared, CheckedPaths& checked,
                        Collector& collector) {
  if (declared.paths.empty()) return Ok();
  const auto [entry, is_new] = checked.try_emplace(declared.paths, Ok());
  if (is_new) {
    entry->second = [&]() -> Status {
      ASSIGN_OR_RETURN(const auto paths, envelope::ParsePathOptions(declared.paths));
      return CheckPaths(agent, paths);
    }();
  }
  if (entry->second) return Ok();
  const Error& error = entry->second.error();
  if (error.action() != Action::kFixInput) return error;
  collector.Add("declared_path_unusable", declared.name, Severity::kWarning,
                "the next backup by the paths that are declared will fail: " + error.message(),
                error.hint());
  return Ok();
}

// AddPolicyFindings holds the keys against the policy in force.
Status AddPolicyFindings(Agent& agent, const std::vector<KeyView>& keys,
                         std::vector<Finding>& findings) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  ASSIGN_OR_RETURN(const policy::Facts facts, GatherFacts(agent));
  const auto add = [&](std::vector<Finding> more) {
    findings.insert(findings.end(), std::make_move_iterator(more.begin()),
                    std::make_move_iterator(more.end()));
  };
  add(in_force->findings);
  add(policy::EvaluatePolicy(in_force->policy, facts));
  for (const KeyView& key : keys) {
    policy::KeyFacts key_facts = key.facts;
    const auto rules = policy::MatchingRules(in_force->policy, key.name, key.host, facts.now);
    const bool asks = std::any_of(rules.begin(), rules.end(), [](const policy::Rule* rule) {
      return rule->rotate_after_restore_s.has_value() || rule->rotate_every_s.has_value();
    });
    if (asks) {
      ASSIGN_OR_RETURN(const KeySince since, ReadKeySince(agent, key.name, key.version));
      key_facts.made = since.made;
      key_facts.restored = since.released;
    }
    add(EvaluateKey(in_force->policy, key_facts, facts).findings);
  }
  return Ok();
}

constexpr std::string_view kFilePrefix = "file:";

// AtLastBackup words a finding of the file that a key was read from last, which may have been a
// passing copy of it: that is worth a warning, and declaring where the key lives ends the doubt.
// False: it is none, since such a copy may go.
bool AtLastBackup(const std::string& key_name, const std::string& source, DriftFinding& finding) {
  if (finding.rule == "source_missing" || finding.rule == "source_unreadable") return false;
  if (!source.starts_with(kFilePrefix)) return true;  // a volume is known by its UUID
  const std::string path = source.substr(kFilePrefix.size());
  const std::string back_up = "'keyescrow backup " + key_name + " --from " + path + "'";
  finding.critical = false;
  if (finding.rule != "key_drift") {
    finding.remedy = "if this is meant, " + back_up + " records it; if not, put it right";
    return true;
  }
  finding.remedy = "if it is the right one, " + back_up +
                   "; if the key lives elsewhere, say where: "
                   "'keyescrow key add " +
                   key_name + " --source FILE'; 'keyescrow restore " + key_name + " --to " + path +
                   " --replace' puts the escrowed one back";
  return true;
}

// AddDrift compares the key in use with the escrowed one: where it is declared, else where its last
// backup found it.
Status AddDrift(Agent& agent, const std::string& key_name, const DriftOptions& options,
                StatusReport& report) {
  ASSIGN_OR_RETURN(const DriftChecker checker, DriftChecker::Make(agent, key_name, options));
  for (KeyView& key : report.keys) {
    const bool declared = !key.source.empty();
    const std::string source = declared ? key.source : checker.BackedUpFrom(key.name, key.version);
    if (source.empty()) continue;
    ASSIGN_OR_RETURN(DriftResult drift, checker.Check(key.name, key.version, source));
    key.in_use = drift.in_use;
    for (DriftFinding& finding : drift.findings) {
      if (!declared && !AtLastBackup(key.name, source, finding)) continue;
      report.findings.push_back({std::string(finding.rule), key.name, report.host,
                                 finding.critical ? Severity::kCritical : Severity::kWarning,
                                 std::move(finding.what), std::move(finding.remedy)});
    }
  }
  return Ok();
}

}  // namespace

std::string PathExpressionText(const envelope::PathRecord& path) {
  if (path.recovery_key) return "recovery-key:" + path.recovery_key->name;
  struct Word {
    std::string operator()(const envelope::Pkcs11RsaRecord& record) const {
      return "token:" + record.token;
    }
    std::string operator()(const envelope::Pkcs11EcdhRecord& record) const {
      return "token:" + record.token;
    }
    std::string operator()(const envelope::SharesRecord& record) const {
      std::string members;
      for (const envelope::ShareMember& member : record.members) {
        members += (members.empty() ? "" : ", ") + ("token:" + member.name);
      }
      return std::to_string(record.threshold) + " of (" + members + ")";
    }
    std::string operator()(const envelope::PasswordRecord&) const { return "password"; }
    std::string operator()(const envelope::Tpm2Record& record) const {
      return "tpm:" + record.host;
    }
  };
  std::string text;
  for (const envelope::FactorRecord& factor : path.factors) {
    text += (text.empty() ? "" : " & ") + std::visit(Word{}, factor);
  }
  return text;
}

std::string_view PathConditionName(PathCondition condition) {
  switch (condition) {
    case PathCondition::kProven: return "proven";
    case PathCondition::kStale: return "stale";
    case PathCondition::kUnproven: return "unproven";
    case PathCondition::kBroken: return "broken";
  }
  return "unproven";
}

Result<std::vector<KeyView>> ListKeys(Agent& agent, const std::string& key_name) {
  // An agent that is no longer trusted must not make its envelopes disappear from the list.
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", true));
  ASSIGN_OR_RETURN(const auto states, agent.store().PathStates(key_name));
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  // The states come by name and version, as the envelopes do: each key looks at its own.
  const auto of_version = [&states](const std::string& name, std::uint32_t version) {
    const auto before = [](const store::PathState& state, const auto& wanted) {
      return std::pair(std::string_view(state.key_name), state.key_version) < wanted;
    };
    const std::pair wanted(std::string_view(name), version);
    const auto first = std::lower_bound(states.begin(), states.end(), wanted, before);
    const auto end = std::find_if_not(first, states.end(), [&](const store::PathState& state) {
      return state.key_name == name && state.key_version == version;
    });
    return std::vector<store::PathState>(first, end);
  };
  std::map<std::string_view, const DeclaredKey*> declared;
  for (const DeclaredKey& key : agent.environment().config->keys) declared.emplace(key.name, &key);
  std::vector<KeyView> keys;
  std::optional<Error> failed;
  store::EscrowStore::EnvelopeQuery query;
  query.key_name = key_name;
  query.with_bytes = true;
  RETURN_IF_ERROR(agent.store().Envelopes(query, [&](const store::EnvelopeRecord& record) {
    auto sealed = envelope::SealedEnvelope::Read(record.bytes, trust);
    if (!sealed) {
      failed = std::move(sealed).error();
      failed = std::move(*failed).WithContext(record.key_name);
      return false;
    }
    KeyView view = Describe(*sealed, record.bytes.size());
    std::vector<store::PathState> own = of_version(view.name, view.version);
    if (Status covered = AddCover(agent, sealed->header(), own); !covered) {
      failed = std::move(covered).error();
      return false;
    }
    AddConditions(view, own, in_force->policy, agent.Now());
    view.num_versions = 1;
    // Versions of one key follow each other; the one in use stays.
    if (!keys.empty() && keys.back().name == view.name) {
      if (record.standing != store::VersionStanding::kEscrowed) {
        ++keys.back().num_versions;
        return true;
      }
      view.num_versions += keys.back().num_versions;
      view.facts.first_created = keys.back().facts.first_created;
      keys.back() = std::move(view);
    } else {
      keys.push_back(std::move(view));
    }
    return true;
  }));
  if (failed) return *failed;
  for (KeyView& view : keys) {
    const auto found = declared.find(view.name);
    if (found != declared.end()) view.source = found->second->source;
  }
  return keys;
}

namespace {

// TryIsLeft: where the TPM counts wrong tries of the path's password, one more may be made.
Status TryIsLeft(const envelope::PathRecord& path, Devices& devices) {
  const bool is_counted =
      std::any_of(path.factors.begin(), path.factors.end(), [](const auto& factor) {
        const auto* tpm = std::get_if<envelope::Tpm2Record>(&factor);
        return tpm != nullptr && tpm->auth;
      });
  if (!is_counted) return Ok();
  ASSIGN_OR_RETURN(envelope::TpmFactor* const tpm, devices.Tpm());
  ASSIGN_OR_RETURN(const envelope::TpmState state, tpm->Inspect());
  if (!state.in_lockout && state.lockout_counter < state.max_auth_fail) return Ok();
  return Error(ErrorCode::kTpmLockout, Action::kWaitForLockout,
               "the tpm is locked out: " + std::to_string(state.lockout_counter) + " of " +
                   std::to_string(state.max_auth_fail) + " tries used",
               "'keyescrow doctor' says when that ends");
}

}  // namespace

Result<KeyView> ShowEnvelope(Agent* agent, const EnvelopeSource& source,
                             const envelope::ReadOptions& trust, PathOpenOptions* probe) {
  ASSIGN_OR_RETURN(const auto sealed, envelope::SealedEnvelope::Read(source.bytes, trust));
  KeyView view = Describe(sealed, source.bytes.size());
  if (agent != nullptr && source.record) {
    ASSIGN_OR_RETURN(auto states, agent->store().PathStates(view.name));
    RETURN_IF_ERROR(AddCover(*agent, sealed.header(), states));
    ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent->Policy());
    AddConditions(view, states, in_force->policy, agent->Now());
    const DeclaredKey* declared = agent->environment().config->FindKey(view.name);
    if (declared != nullptr) view.source = declared->source;
  }
  if (probe != nullptr) {
    StretchedPasswords passwords;
    PathOpener opener(sealed, *probe, passwords);
    for (std::size_t index = 0; index < view.paths.size(); ++index) {
      Status present = opener.Present(index);
      if (present) present = TryIsLeft(sealed.header().paths[index], *probe->devices);
      view.paths[index].openable = present.has_value();
      if (!present) view.paths[index].why_not = present.error().message();
    }
  }
  return view;
}

Result<std::optional<std::int64_t>> NewestEntryTime(Agent& agent) {
  ASSIGN_OR_RETURN(const store::LogHead head, agent.store().Head());
  ASSIGN_OR_RETURN(const store::LogEntry entry,
                   agent.store().Entry(head.size == 0 ? 0 : head.size - 1));
  const auto event = audit::ParseEvent(AsText(entry.bytes));
  if (!event) return std::optional<std::int64_t>();
  return std::optional(event->time);
}

namespace {

// NothingHere: a state that holds no key complies with nothing, whatever other tools escrowed.
Error NothingHere(Agent& agent) {
  std::string what = "no key is escrowed or declared here";
  std::string hint = "escrow one with 'keyescrow backup NAME --from FILE --path EXPR'";
  const auto foreign = ForeignInventory(agent);
  if (!foreign) return foreign.error();
  if (!foreign->empty()) {
    what += ", and keyescrow does not hold what other tools escrowed";
    hint += "; 'keyescrow list' shows what was imported";
  }
  return Error(ErrorCode::kNotFound, Action::kFixInput, std::move(what), std::move(hint));
}

}  // namespace

Result<StatusReport> EvaluateStatus(Agent& agent, const std::string& key_name,
                                    const DriftOptions& drift) {
  StatusReport report;
  report.host = agent.identity().host;
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  report.policy = in_force->policy.name;
  report.thumbprint = agent.identity().Thumbprint();
  ASSIGN_OR_RETURN(const JournalHealth health, agent.journal().Health());
  report.log_size = health.size;
  ASSIGN_OR_RETURN(report.keys, ListKeys(agent, key_name));
  RETURN_IF_ERROR(AddPolicyFindings(agent, report.keys, report.findings));
  Collector collector(report.host, report.findings);
  std::set<std::string> escrowed;
  for (const KeyView& key : report.keys) escrowed.insert(key.name);
  bool any_declared = false;
  CheckedPaths usable;
  for (const DeclaredKey& declared : agent.environment().config->keys) {
    if (!key_name.empty() && declared.name != key_name) continue;
    any_declared = true;
    if (!escrowed.contains(declared.name)) {
      collector.Add("declared_not_escrowed", declared.name, Severity::kCritical,
                    "the key is declared in agent.toml and not escrowed",
                    "run 'keyescrow backup " + declared.name + "'");
    }
    RETURN_IF_ERROR(AddUnusablePaths(agent, declared, usable, collector));
  }
  if (report.keys.empty() && !any_declared) {
    if (!key_name.empty()) {
      auto found = agent.store().FindEnvelope(key_name, std::nullopt);
      if (!found && found.error().code() == ErrorCode::kNotFound) {
        return TellDestroyed(agent, key_name, std::move(found).error());
      }
      return Error(ErrorCode::kKeyNotFound, Action::kFixInput,
                   "no key named " + key_name + " is escrowed or declared here",
                   "'keyescrow list' shows those that are");
    }
    return NothingHere(agent);
  }
  RETURN_IF_ERROR(AddDrift(agent, key_name, drift, report));
  ASSIGN_OR_RETURN(std::vector<Finding> rotating, RotationFindings(agent, key_name));
  for (Finding& finding : rotating) report.findings.push_back(std::move(finding));
  ASSIGN_OR_RETURN(std::vector<Finding> traces, ScrubFindings(agent));
  for (Finding& finding : traces) report.findings.push_back(std::move(finding));
  RETURN_IF_ERROR(AddOverrideFindings(agent, key_name, report.findings));
  RETURN_IF_ERROR(AddClockFindings(agent, report.keys, report.findings));
  if (const std::optional<Error>& cannot_log = agent.cannot_log()) {
    collector.Add(
        "log_key_unavailable", "", Severity::kCritical,
        "nothing can be logged, so nothing can be backed up or drilled: " + cannot_log->message(),
        cannot_log->hint());
  }
  if (health.p256_missing) {
    collector.Add("checkpoint_signature_missing", "", Severity::kWarning,
                  "the newest checkpoint lacks the agent key's signature since " +
                      health.missing_since_time + " (" + health.missing_cause + ")",
                  "look at 'keyescrow doctor'; the next entry that the agent key signs ends it");
  }
  ASSIGN_OR_RETURN(std::vector<Finding> anchoring, AnchorFindings(agent));
  for (Finding& finding : anchoring) report.findings.push_back(std::move(finding));
  ASSIGN_OR_RETURN(const auto destinations, agent.store().Destinations());
  for (const store::DestinationRecord& record : destinations) {
    struct stat status {};
    if (!key_name.empty() && record.key_name != key_name) continue;
    if (record.previous_path.empty() || lstat(record.previous_path.c_str(), &status) != 0) continue;
    ASSIGN_OR_RETURN(const PutAside aside, LookAtPutAside(agent, record));
    const std::string removes = "'keyescrow restore " + record.key_name + " --to " + record.path +
                                " --discard-previous' removes it";
    const std::string what = "the key that was replaced still lies in " + record.previous_path;
    collector.Add("previous_generation", record.key_name, Severity::kWarning,
                  aside.MayBeTheOnlyCopy() ? what + ", and " + aside.why_not : what,
                  aside.MayBeTheOnlyCopy()
                      ? "if it may be needed, escrow it under a name of its own: 'keyescrow backup "
                        "NAME --from " +
                            record.previous_path + "'; then " + removes
                      : removes);
  }
  return report;
}

}  // namespace keyescrow::agent
