#include "agent/policy/evaluate.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/policy/rule_evaluator.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent::policy {
namespace {

using envelope::FactorKind;

bool ExceptionHolds(const Exception& exception, const Rule& rule, std::string_view key_name,
                    std::string_view key_host, std::int64_t now) {
  return exception.rule == rule.name && now < exception.until &&
         (exception.host.empty() || exception.host == key_host) &&
         envelope::NamePatternMatches(exception.key, key_name);
}

bool IsExempted(const Policy& policy, const Rule& rule, std::string_view key_name,
                std::string_view key_host, std::int64_t now) {
  return std::any_of(policy.exceptions.begin(), policy.exceptions.end(),
                     [&](const Exception& exception) {
                       return ExceptionHolds(exception, rule, key_name, key_host, now);
                     });
}

// DeviceEvaluator holds the key's tokens, recovery keys and TPM against what the policy pins.
class DeviceEvaluator {
 public:
  DeviceEvaluator(const Policy& policy, const KeyFacts& key, const Facts& facts, bool as_enforced,
                  std::vector<Finding>& findings)
      : policy_(policy),
        key_(key),
        facts_(facts),
        severity_(as_enforced || policy.mode == Mode::kEnforce ? Severity::kCritical
                                                               : Severity::kWarning),
        findings_(findings) {}

  void Evaluate() {
    for (const PathFacts& path : key_.paths) {
      for (const TokenUse& token : path.tokens) Token(path, token);
      RecoveryKey(path);
      Tpm(path);
    }
  }

 private:
  void Token(const PathFacts& path, const TokenUse& token) {
    const TokenPin* pin = nullptr;
    for (const TokenPin& candidate : policy_.tokens) {
      if (candidate.spki_sha256 == token.spki_sha256) pin = &candidate;
      if (candidate.name == token.name && candidate.spki_sha256 != token.spki_sha256) {
        Add("token_not_pinned", severity_,
            fmt::format("the path {} uses a token {} that is not the one that the policy pins",
                        path.id, token.name),
            fmt::format("register the right token as {} and back the key up again", token.name));
      }
    }
    const auto known = std::find_if(
        facts_.tokens.begin(), facts_.tokens.end(),
        [&](const TokenEvidence& other) { return other.spki_sha256 == token.spki_sha256; });
    const TokenEvidence* evidence = known == facts_.tokens.end() ? nullptr : &*known;
    if (pin != nullptr) CheckAssurance(*pin, evidence);
    if (evidence != nullptr && evidence->simulator) {
      Simulator(
          fmt::format("the token {} is a simulator: its keys are files on this host", token.name),
          "use a token of hardware");
    }
  }

  void CheckAssurance(const TokenPin& pin, const TokenEvidence* evidence) {
    if (pin.assurance == Assurance::kSoftware) return;
    if (evidence != nullptr && evidence->assurance && *evidence->assurance >= pin.assurance) return;
    std::string known = "nothing is known of it here";
    if (evidence != nullptr) {
      known = evidence->assurance
                  ? fmt::format("what is known is \"{}\"", AssuranceName(*evidence->assurance))
                  : "its key was never looked at with a PIN";
    }
    Add("token_assurance", severity_,
        fmt::format("the policy asks for the assurance \"{}\" of the token {}, and {}",
                    AssuranceName(pin.assurance), pin.name, known),
        AssuranceRemedy(pin, evidence));
  }

  static std::string AssuranceRemedy(const TokenPin& pin, const TokenEvidence* evidence) {
    if (evidence != nullptr && evidence->simulator) {
      return "use a token of hardware: the keys of this one are files";
    }
    if (pin.assurance == Assurance::kAttested) {
      return "this version reads no maker's attestation: the policy can ask for \"asserted\"";
    }
    if (evidence != nullptr && evidence->assurance) {
      return "use a key that was made on its token and cannot leave it: 'keyescrow token keygen' "
             "makes one, and the policy then pins that";
    }
    return fmt::format(
        "let its key be looked at: 'keyescrow token add {} URI --module SO --pin-file FILE'{}",
        evidence != nullptr ? evidence->name : pin.name,
        evidence != nullptr ? ", as when it was registered" : "");
  }

  void RecoveryKey(const PathFacts& path) {
    for (const envelope::FactorTerm& term : path.expression.factors) {
      if (term.kind != FactorKind::kRecoveryKey) continue;
      for (const RecoveryKeyPin& pin : policy_.recovery_keys) {
        if (pin.name != term.name || pin.public_thumbprint == path.recovery_thumbprint) continue;
        Add("recovery_key_not_pinned", severity_,
            fmt::format("the path {} goes to a recovery key {} that is not the one that the policy "
                        "pins",
                        path.id, term.name),
            "import the right recovery key and back the key up again");
      }
    }
  }

  void Tpm(const PathFacts& path) {
    if (!facts_.tpm_simulator || key_.host != facts_.host) return;
    for (const envelope::FactorTerm& term : path.expression.factors) {
      if (term.kind == FactorKind::kTpm && (term.name.empty() || term.name == key_.host)) {
        Simulator("the tpm is a simulator: it protects nothing",
                  "run the agent on a host with a TPM");
      }
    }
  }

  void Simulator(const std::string& what, const std::string& remedy) {
    if (policy_.simulators == Simulators::kAllowed) return;
    Add("simulator", policy_.simulators == Simulators::kForbidden ? severity_ : Severity::kWarning,
        what, remedy);
  }

  // Add says each thing once, whatever the number of paths.
  void Add(std::string rule, Severity severity, std::string what, std::string remedy) {
    if (severity_ == Severity::kWarning) what += " (reported, not enforced)";
    Finding finding{std::move(rule), key_.name,       key_.host,
                    severity,        std::move(what), std::move(remedy)};
    if (std::find(findings_.begin(), findings_.end(), finding) == findings_.end()) {
      findings_.push_back(std::move(finding));
    }
  }

  const Policy& policy_;
  const KeyFacts& key_;
  const Facts& facts_;
  Severity severity_;
  std::vector<Finding>& findings_;
};

}  // namespace

bool Evaluation::Complies() const { return FirstCritical() == nullptr; }

const Finding* Evaluation::FirstCritical() const {
  const auto found = std::find_if(findings.begin(), findings.end(), [](const Finding& finding) {
    return finding.severity == Severity::kCritical;
  });
  return found == findings.end() ? nullptr : &*found;
}

std::vector<const Rule*> MatchingRules(const Policy& policy, std::string_view key_name,
                                       std::string_view key_host, std::int64_t now) {
  std::vector<const Rule*> rules;
  for (const Rule& rule : policy.rules) {
    if (envelope::NamePatternMatches(rule.match, key_name) &&
        !IsExempted(policy, rule, key_name, key_host, now)) {
      rules.push_back(&rule);
    }
  }
  return rules;
}

std::optional<std::int64_t> DrillPeriod(const std::vector<const Rule*>& rules,
                                        std::string_view path_id) {
  std::optional<std::int64_t> shortest;
  for (const Rule* rule : rules) {
    const bool named = rule->drill_paths.empty() ||
                       std::find(rule->drill_paths.begin(), rule->drill_paths.end(), path_id) !=
                           rule->drill_paths.end();
    if (!rule->drill_every_s || !named) continue;
    shortest = std::min(shortest.value_or(*rule->drill_every_s), *rule->drill_every_s);
  }
  return shortest;
}

std::vector<envelope::PathExpression> RequiredPaths(const std::vector<const Rule*>& rules) {
  std::vector<envelope::PathExpression> paths;
  for (const Rule* rule : rules) {
    for (const envelope::PathExpression& path : rule->require) {
      if (std::find(paths.begin(), paths.end(), path) == paths.end()) paths.push_back(path);
    }
  }
  return paths;
}

std::vector<PasswordRule> PasswordRulesOf(const Policy& policy,
                                          const std::vector<const Rule*>& rules) {
  std::vector<PasswordRule> profiles;
  for (const Rule* rule : rules) {
    if (rule->password_profile.empty()) continue;
    const bool known = std::any_of(
        profiles.begin(), profiles.end(),
        [&](const PasswordRule& other) { return other.name == rule->password_profile; });
    if (known) continue;
    if (const PasswordRule* named = policy.FindPassword(rule->password_profile)) {
      profiles.push_back(*named);
    } else {
      PasswordRule& builtin = profiles.emplace_back();
      builtin.name = rule->password_profile;
      builtin.profile = envelope::ParsePasswordProfile(rule->password_profile)
                            .value_or(envelope::PasswordProfile::kNist80063b);
    }
  }
  if (profiles.empty()) profiles.emplace_back().name = "nist-800-63b";
  return profiles;
}

Evaluation EvaluateKey(const Policy& policy, const KeyFacts& key, const Facts& facts,
                       const EvaluateOptions& options) {
  Evaluation evaluation;
  std::vector<envelope::PathExpression> paths;
  std::vector<envelope::PathExpression> opened_by;
  for (const PathFacts& path : key.paths) {
    paths.push_back(NameByPins(policy, key, path, path.expression));
    opened_by.push_back(NameByPins(policy, key, path, path.OpenedBy()));
  }
  const RuleEvaluator::Subject subject{policy, key, facts, paths, opened_by, options.as_enforced};
  for (const Rule& rule : policy.rules) {
    if (!envelope::NamePatternMatches(rule.match, key.name)) continue;
    if (IsExempted(policy, rule, key.name, key.host, facts.now)) {
      evaluation.exempted.push_back(rule.name);
      continue;
    }
    evaluation.rules.push_back(rule.name);
    RuleEvaluator evaluator(rule, subject, evaluation.findings);
    evaluator.EvaluateShape();
    if (!options.shape_only) evaluator.EvaluateTime();
  }
  DeviceEvaluator(policy, key, facts, options.as_enforced, evaluation.findings).Evaluate();
  // What is another token or recovery key breaks the rules that name it: the cause comes first.
  std::stable_partition(
      evaluation.findings.begin(), evaluation.findings.end(), [](const Finding& finding) {
        return finding.rule == "token_not_pinned" || finding.rule == "recovery_key_not_pinned";
      });
  if (evaluation.rules.empty() && evaluation.exempted.empty() && !options.shape_only) {
    const bool enforced = options.as_enforced || policy.mode == Mode::kEnforce;
    evaluation.findings.push_back(
        {"no_rule_matches", key.name, key.host, enforced ? Severity::kCritical : Severity::kWarning,
         fmt::format("no rule of the policy {} matches the key", policy.name),
         "add a [[rule]] whose match covers its name, and sign the policy again"});
  }
  return evaluation;
}

std::vector<Finding> EvaluatePolicy(const Policy& policy, const Facts& facts) {
  std::vector<Finding> findings;
  if (policy.expires && facts.now >= *policy.expires) {
    findings.push_back({"policy_expired", "", facts.host, Severity::kWarning,
                        fmt::format("the policy {} serial {} expired on {}; it still holds",
                                    policy.name, policy.serial, FormatUtc(*policy.expires)),
                        "have its signers review it and sign one with a greater serial"});
  }
  return findings;
}

std::vector<Finding> EvaluateRelease(const Policy& policy, const Release& release,
                                     const Facts& facts) {
  std::vector<Finding> findings;
  KeyFacts key;
  key.name = release.key_name;
  key.host = release.key_host;
  const std::vector<envelope::PathExpression> no_paths;
  const RuleEvaluator::Subject subject{policy, key, facts, no_paths, no_paths, false};
  for (const Rule* rule : MatchingRules(policy, key.name, key.host, facts.now)) {
    RuleEvaluator(*rule, subject, findings).EvaluateRelease(release);
  }
  return findings;
}

}  // namespace keyescrow::agent::policy
