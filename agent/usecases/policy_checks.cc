#include "agent/usecases/policy_checks.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/policy/rule_evaluator.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/registered_recovery_key.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

using envelope::FactorKind;
using envelope::FactorTerm;
using envelope::PathOption;

constexpr policy::EvaluateOptions kShape{.shape_only = true, .as_enforced = false};

std::vector<const policy::Rule*> RulesOf(Agent& agent, const PolicyInForce& in_force,
                                         const std::string& key_name) {
  return policy::MatchingRules(in_force.policy, key_name, agent.identity().host, agent.Now());
}

// Keep returns the findings, or the refusal where one of them is critical.
Result<std::vector<Finding>> Keep(const PolicyInForce& in_force, std::vector<Finding> findings) {
  for (const Finding& finding : findings) {
    if (finding.severity == Severity::kCritical) return RefusedBy(in_force, finding);
  }
  return findings;
}

// AddOfNoRule: a key that no rule matches is escrowed all the same, since it would else be nowhere,
// and under no weaker paths than without any policy.
void AddOfNoRule(const PolicyInForce& in_force, const policy::KeyFacts& key,
                 const policy::Facts& facts, std::vector<Finding>& findings) {
  const bool enforced = in_force.policy.mode == policy::Mode::kEnforce;
  for (Finding& finding : EvaluateKey(policy::BuiltinPolicy(), key, facts, kShape).findings) {
    if (finding.severity != Severity::kCritical) continue;
    finding.severity = enforced ? Severity::kCritical : Severity::kWarning;
    finding.what = "no rule of it matches the key, and without one " + finding.what;
    findings.push_back(std::move(finding));
  }
  findings.push_back({"no_rule_matches", key.name, key.host, Severity::kWarning,
                      fmt::format("no rule of the policy {} matches the key", in_force.policy.name),
                      "add a [[rule]] whose match covers its name, and sign the policy again"});
}

// VisitNewest calls `visit` with the header of the newest version of every key, until it fails.
Status VisitNewest(Agent& agent, const std::function<Status(const envelope::Header&)>& visit) {
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", true));
  std::vector<std::string> names;
  RETURN_IF_ERROR(agent.store().Envelopes({}, [&](const store::EnvelopeRecord& record) {
    if (names.empty() || names.back() != record.key_name) names.push_back(record.key_name);
    return true;
  }));
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const auto record, agent.store().FindEnvelope(name, std::nullopt));
    ASSIGN_OR_RETURN(const auto sealed, envelope::SealedEnvelope::Read(record.bytes, trust));
    RETURN_IF_ERROR(visit(sealed.header()));
  }
  return Ok();
}

// WithoutToken leaves the paths that still open when nothing of the token can be had.
policy::KeyFacts WithoutToken(policy::KeyFacts key, const Bytes32& spki_sha256) {
  std::erase_if(key.paths, [&](const policy::PathFacts& path) {
    std::vector<std::string> names;
    for (const policy::TokenUse& token : path.tokens) {
      if (token.spki_sha256 == spki_sha256) names.push_back(token.name);
    }
    const auto& factors = path.OpenedBy().factors;
    return std::any_of(factors.begin(), factors.end(), [&](const FactorTerm& term) {
      const auto lost = [&](const std::string& name) {
        return std::find(names.begin(), names.end(), name) != names.end();
      };
      if (term.kind == FactorKind::kToken) return lost(term.name);
      const auto num_left = std::count_if(term.members.begin(), term.members.end(),
                                          [&](const std::string& name) { return !lost(name); });
      return num_left < static_cast<std::ptrdiff_t>(term.threshold);
    });
  });
  return key;
}

// AddRecoveryKey adds what a header would tell of the key's own factors.
void AddRecoveryKey(const envelope::RecoveryKey& key, policy::PathFacts& path) {
  envelope::Header header;
  header.paths.emplace_back();
  header.paths.front().factors = key.factors;
  header.paths.front().recovery_key = key.record;
  policy::KeyFacts facts = policy::FactsOf(header);
  path.recovery_factors = std::move(facts.paths.front().recovery_factors);
  path.tokens = std::move(facts.paths.front().tokens);
  path.kdf = facts.paths.front().kdf;
  path.recovery_thumbprint = facts.paths.front().recovery_thumbprint;
}

}  // namespace

Error RefusedBy(const PolicyInForce& in_force, const Finding& finding) {
  const bool path = finding.rule == "password_only_path" || finding.rule == "forbidden_path" ||
                    finding.rule == "no_portable_path";
  return Error(path ? ErrorCode::kPathForbidden : ErrorCode::kPolicyRefused, Action::kFixInput,
               fmt::format("the policy {} refuses this: {}", in_force.policy.name, finding.what),
               finding.remedy);
}

std::vector<std::string> FindingTexts(const std::vector<Finding>& findings) {
  std::vector<std::string> texts;
  for (const Finding& finding : findings) texts.push_back(finding.what);
  return texts;
}

Result<std::vector<PathOption>> PlannedPaths(Agent& agent, const std::string& key_name) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  ASSIGN_OR_RETURN(const policy::Facts facts, GatherFacts(agent));
  std::vector<PathOption> options;
  for (envelope::PathExpression& path :
       policy::RequiredPaths(RulesOf(agent, *in_force, key_name))) {
    PathOption option;
    option.id = envelope::DefaultPathId(path);  // as the rules' drill_paths have it
    option.expression = policy::NameByTokens(in_force->policy, facts, std::move(path));
    options.push_back(std::move(option));
  }
  return options;
}

std::int64_t FirstCreated(Agent& agent, const std::string& key_name) {
  // Edits are rows of their own, of a later time.
  std::optional<std::int64_t> created;
  store::EscrowStore::EnvelopeQuery query;
  query.key_name = key_name;
  query.all_revisions = true;
  const Status read = agent.store().Envelopes(query, [&](const store::EnvelopeRecord& record) {
    created = record.created;
    return false;
  });
  return read && created ? *created : agent.Now();
}

Result<policy::PathFacts> PlannedFacts(Agent& agent, const PathOption& option,
                                       const PathKdfs& kdfs) {
  policy::PathFacts path;
  path.id = option.id;
  path.expression = option.expression;
  if (option.expression.Has(FactorKind::kPassword)) path.kdf = kdfs.Of(option.expression);
  for (const FactorTerm& term : option.expression.factors) {
    if (term.kind == FactorKind::kRecoveryKey) {
      ASSIGN_OR_RETURN(const auto row, agent.store().FindRecoveryKey(term.name));
      ASSIGN_OR_RETURN(const auto registered, ReadRegistered(row));
      AddRecoveryKey(registered, path);
      continue;
    }
    std::vector<std::string> names = term.members;
    if (term.kind == FactorKind::kToken) names.push_back(term.name);
    for (const std::string& name : names) {
      ASSIGN_OR_RETURN(const store::TokenRecord token, agent.store().FindToken(name));
      path.tokens.push_back({name, Sha256(token.spki)});
    }
  }
  return path;
}

Result<std::vector<Finding>> CheckPlan(Agent& agent, const std::string& key_name,
                                       const std::vector<PathOption>& paths, const PathKdfs& kdfs) {
  ASSIGN_OR_RETURN(const policy::Facts facts, GatherFacts(agent));
  std::vector<policy::PathFacts> planned;
  for (const PathOption& option : paths) {
    ASSIGN_OR_RETURN(policy::PathFacts path, PlannedFacts(agent, option, kdfs));
    planned.push_back(std::move(path));
  }
  return CheckPlan(agent, facts, key_name, std::move(planned));
}

Result<std::vector<Finding>> CheckPlan(Agent& agent, const policy::Facts& facts,
                                       const std::string& key_name,
                                       std::vector<policy::PathFacts> paths) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  policy::KeyFacts key;
  key.name = key_name;
  key.host = agent.identity().host;
  key.created = facts.now;
  key.first_created = FirstCreated(agent, key_name);
  key.paths = std::move(paths);
  policy::Evaluation evaluation = EvaluateKey(in_force->policy, key, facts, kShape);
  if (evaluation.rules.empty() && evaluation.exempted.empty()) {
    AddOfNoRule(*in_force, key, facts, evaluation.findings);
  }
  return Keep(*in_force, std::move(evaluation.findings));
}

Result<std::vector<Finding>> CheckRelease(Agent& agent, const envelope::Header& header,
                                          const std::string& reason, const std::string& ticket) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  ASSIGN_OR_RETURN(const policy::Facts facts, GatherFacts(agent));
  return Keep(*in_force,
              policy::EvaluateRelease(in_force->policy,
                                      {header.key_name, header.host, reason, ticket}, facts));
}

Result<std::vector<Finding>> CheckDestruction(Agent& agent, const std::string& key_name,
                                              const std::string& reason,
                                              const std::string& ticket) {
  if (agent.environment().config->FindKey(key_name) != nullptr) {
    return Error(
        ErrorCode::kPolicyRefused, Action::kFixInput,
        fmt::format("{} is declared in agent.toml as a key that must be escrowed", key_name),
        "take it off the list first with 'keyescrow key remove " + key_name + "'");
  }
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  std::vector<Finding> findings;
  for (const policy::Rule* rule : RulesOf(agent, *in_force, key_name)) {
    if (rule->require.empty()) continue;
    const bool enforced = in_force->policy.ModeOf(*rule) == policy::Mode::kEnforce;
    findings.push_back({"key_required", key_name, agent.identity().host,
                        enforced ? Severity::kCritical : Severity::kWarning,
                        fmt::format("the rule \"{}\" requires that it is escrowed", rule->name),
                        "have an exception for this key signed into the policy"});
  }
  ASSIGN_OR_RETURN(findings, Keep(*in_force, std::move(findings)));
  envelope::Header header;
  header.key_name = key_name;
  header.host = agent.identity().host;
  ASSIGN_OR_RETURN(auto more, CheckRelease(agent, header, reason, ticket));
  findings.insert(findings.end(), more.begin(), more.end());
  return findings;
}

Status CheckExport(Agent& agent, const envelope::Header& header) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  ASSIGN_OR_RETURN(const policy::Facts facts, GatherFacts(agent));
  policy::KeyFacts key = policy::FactsOf(header);
  key.first_created = FirstCreated(agent, header.key_name);
  RETURN_IF_ERROR(Keep(*in_force, EvaluateKey(in_force->policy, key, facts, kShape).findings));
  return Ok();
}

Result<std::vector<Finding>> CheckNewTokenKey(Agent& agent, const std::string& token_name,
                                              ByteView spki) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  std::vector<Finding> findings;
  for (const policy::TokenPin& pin : in_force->policy.tokens) {
    const bool is_key = pin.spki_sha256 == Sha256(spki);
    if (pin.name != token_name && !is_key) continue;
    if (pin.name == token_name && is_key) return findings;
    findings.push_back(
        {"token_not_pinned", "", agent.identity().host,
         in_force->policy.mode == policy::Mode::kEnforce && pin.name == token_name
             ? Severity::kCritical
             : Severity::kWarning,
         is_key ? fmt::format("the policy calls this token's key {}", pin.name)
                : fmt::format("the policy pins another key under the name {}", token_name),
         is_key ? fmt::format("register it as {}", pin.name)
                : "give this token another name, or take the one that the policy means"});
  }
  return Keep(*in_force, std::move(findings));
}

Status CheckTokenRemoval(Agent& agent, const store::TokenRecord& token) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  if (in_force->IsBuiltin()) return Ok();
  ASSIGN_OR_RETURN(const policy::Facts facts, GatherFacts(agent));
  const Bytes32 spki_sha256 = Sha256(token.spki);
  return VisitNewest(agent, [&](const envelope::Header& header) -> Status {
    policy::KeyFacts key = policy::FactsOf(header);
    key.first_created = FirstCreated(agent, header.key_name);
    const policy::KeyFacts left = WithoutToken(key, spki_sha256);
    if (left.paths.size() == key.paths.size()) return Ok();
    const auto before = EvaluateKey(in_force->policy, key, facts, kShape);
    // Without any path nothing can be evaluated, and nothing would be left to open.
    const auto after = EvaluateKey(in_force->policy, left, facts, kShape);
    for (const Finding& finding : after.findings) {
      const bool is_new = std::find(before.findings.begin(), before.findings.end(), finding) ==
                          before.findings.end();
      if (finding.severity != Severity::kCritical || !is_new) continue;
      return Error(ErrorCode::kPolicyRefused, Action::kFixInput,
                   fmt::format("the policy {} refuses this: without the token {}, {} would not "
                               "comply: {}",
                               in_force->policy.name, token.name, header.key_name, finding.what),
                   "back the key up under another token first, or have the policy changed");
    }
    return Ok();
  });
}

Status CheckTrustRemoval(Agent& agent, const std::string& thumbprint) {
  ASSIGN_OR_RETURN(const PolicyInForce* in_force, agent.Policy());
  if (in_force->IsBuiltin() || in_force->policy.mode != policy::Mode::kEnforce) return Ok();
  return VisitNewest(agent, [&](const envelope::Header& header) -> Status {
    if (header.agent != thumbprint) return Ok();
    const auto rules =
        policy::MatchingRules(in_force->policy, header.key_name, header.host, agent.Now());
    if (rules.empty()) return Ok();
    return Error(ErrorCode::kPolicyRefused, Action::kFixInput,
                 fmt::format("the policy {} refuses this: the rule \"{}\" holds for {}, whose "
                             "envelope this agent signed: it could not be restored here any more",
                             in_force->policy.name, rules.front()->name, header.key_name),
                 "back that key up again from this host first");
  });
}

}  // namespace keyescrow::agent
