#include "agent/usecases/gate.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "agent/audit/event.h"
#include "agent/audit/proof.h"
#include "agent/usecases/event_order.h"
#include "agent/usecases/policy_in_force.h"
#include "envelope/base/clock.h"
#include "envelope/password.h"

namespace keyescrow::agent {
namespace {

constexpr std::int64_t kOverrideShownSeconds = 7 * 86400;

Error Damaged(std::string message) {
  return Error(ErrorCode::kLogDamaged, Action::kCallOperator, std::move(message),
               "run 'keyescrow verify', and compare the store with a copy");
}

// CheckInclusion: the entry that escrowed the envelope names it, and is in the newest checkpoint.
Status CheckInclusion(Agent& agent, const KeyView& key) {
  ASSIGN_OR_RETURN(const store::EnvelopeRecord record,
                   agent.store().FindEnvelope(key.name, key.version));
  if (record.sha256 != key.envelope_hash) {
    return Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
                 "the store's envelope of " + key.name + " is not the one that its row names",
                 "run 'keyescrow verify', and compare the store with a copy");
  }
  auto text = agent.journal().ProveEnvelope(record);  // verified there, with the log's keys
  if (!text && text.error().code() == ErrorCode::kNotFound) {
    return Damaged("the log has no entry for the envelope of " + key.name);
  }
  if (!text) return std::move(text).error();
  ASSIGN_OR_RETURN(const audit::TlogProof proof, audit::ParseTlogProof(*text));
  ASSIGN_OR_RETURN(const audit::Event event, audit::ParseEvent(AsText(proof.extra)));
  const bool escrows = event.type == audit::EventType::kEscrowCreated ||
                       event.type == audit::EventType::kEscrowRewrapped;
  if (!escrows || !event.key || event.key->name != key.name || event.key->version != key.version ||
      !event.envelope || event.envelope->sha256 != key.envelope_hash) {
    return Damaged("the log's entry for " + key.name + " tells of another envelope");
  }
  return Ok();
}

void Refuse(GateResult& result, std::string rule, std::string what, std::string remedy) {
  Finding finding;
  finding.rule = std::move(rule);
  finding.key = result.key_name;
  finding.severity = Severity::kCritical;
  finding.what = std::move(what);
  finding.remedy = std::move(remedy);
  result.refusals.push_back(std::move(finding));
}

// IsUnknown: what is a warning for status, where nothing starts by it, and a refusal here.
bool IsUnknown(const Finding& finding) {
  return finding.rule == "source_unreadable" || finding.rule == "fingerprint_missing";
}

// Refuses: so is other bytes at the place where a key that nobody declared was read last.
bool Refuses(const Finding& finding) {
  return finding.severity == Severity::kCritical || IsUnknown(finding) ||
         finding.rule == "key_drift";
}

// IsOfARule: of a critical finding, that a rule of the policy is enforced and broken.
bool IsOfARule(const Finding& finding) { return !finding.policy_rule.empty(); }

// CheckUndeclared tells what status leaves out: that there is nothing, or nothing that can be read,
// where the last backup of a key that agent.toml does not name found it.
Status CheckUndeclared(Agent& agent, const GateRequest& request, const KeyView& key,
                       GateResult& result) {
  if (key.in_use != KeyInUse::kMissing && key.in_use != KeyInUse::kUnreadable) return Ok();
  ASSIGN_OR_RETURN(const DriftChecker checker,
                   DriftChecker::Make(agent, key.name, {request.run_commands}));
  const std::string source = checker.BackedUpFrom(key.name, key.version);
  if (source.empty()) return Ok();
  ASSIGN_OR_RETURN(const DriftResult drift, checker.Check(key.name, key.version, source));
  for (const DriftFinding& found : drift.findings) {
    if (found.rule != "source_missing" && found.rule != "source_unreadable") continue;
    Refuse(result, std::string(found.rule), found.what, found.remedy);
  }
  return Ok();
}

std::string RulesOf(const std::vector<Finding>& findings) {
  std::vector<std::string> rules;
  for (const Finding& finding : findings) {
    if (std::ranges::find(rules, finding.rule) == rules.end()) rules.push_back(finding.rule);
  }
  std::string text;
  for (const std::string& rule : rules) text += (text.empty() ? "" : ", ") + rule;
  return text;
}

Result<std::uint64_t> RecordOverride(Agent& agent, const GateRequest& request,
                                     const GateResult& result) {
  audit::Event event;
  event.type = audit::EventType::kGateOverridden;
  event.key = audit::EventKey{result.key_name, result.key_version};
  event.reason = OverrideReason(RulesOf(result.refusals), request.override_reason);
  store::Change change;
  change.gate_overrides.push_back(
      {result.key_name, result.key_version, agent.Now(), request.override_reason});
  agent.environment().devices->LastSignature();
  ASSIGN_OR_RETURN(const AppendReceipt receipt, agent.journal().Append(std::move(event), change));
  return receipt.seq;
}

}  // namespace

std::string_view GateDecisionName(GateDecision decision) {
  switch (decision) {
    case GateDecision::kComplies: return "complies";
    case GateDecision::kRefused: return "refused";
    case GateDecision::kOverridden: return "overridden";
    case GateDecision::kNotEnforced: return "not_enforced";
  }
  return "refused";
}

Result<GateResult> Gate(Agent& agent, const GateRequest& request) {
  if (!request.override_reason.empty() && envelope::IsBlankText(request.override_reason)) {
    return Error(ErrorCode::kUsage, Action::kFixInput, "--override has no reason",
                 "say why, as it should stand in the log");
  }
  ASSIGN_OR_RETURN(StatusReport report,
                   EvaluateStatus(agent, request.key_name, {request.run_commands}));
  GateResult result;
  result.key_name = request.key_name;
  for (Finding& finding : report.findings) {
    if (!finding.key.empty() && finding.key != request.key_name) continue;
    (Refuses(finding) ? result.refusals : result.warnings).push_back(std::move(finding));
  }
  if (!report.keys.empty()) {
    const KeyView& key = report.keys.front();
    result.key_version = key.version;
    RETURN_IF_ERROR(CheckInclusion(agent, key));
    if (key.source.empty()) RETURN_IF_ERROR(CheckUndeclared(agent, request, key, result));
    if (key.in_use.value_or(KeyInUse::kNotCompared) == KeyInUse::kNotCompared &&
        std::ranges::none_of(result.refusals, IsUnknown)) {
      const bool command = key.source.starts_with("exec:");
      Refuse(result, "not_compared",
             command ? "whether the key in use is the escrowed one is not known: its source is a "
                       "command, which was not run"
                     : "whether the key in use is the escrowed one is not known: where it lives is "
                       "not declared",
             command ? "add --exec-sources"
                     : "'keyescrow key add " + key.name + " --source FILE' declares it");
    }
  } else if (result.refusals.empty()) {
    Refuse(result, "declared_not_escrowed", "the key is not escrowed",
           "run 'keyescrow backup " + request.key_name + "'");
  }
  // Under a policy that reports, a rule that enforces by itself refuses all the same, and is named
  // first; what no rule asks for does not.
  const auto in_force = agent.Policy();
  const bool reports = in_force && (*in_force)->policy.mode == policy::Mode::kReport;
  if (reports) std::stable_partition(result.refusals.begin(), result.refusals.end(), IsOfARule);
  if (result.refusals.empty()) {
    result.decision = GateDecision::kComplies;
  } else if (reports && !IsOfARule(result.refusals.front())) {
    result.decision = GateDecision::kNotEnforced;
  } else if (!request.override_reason.empty()) {
    ASSIGN_OR_RETURN(result.log_seq, RecordOverride(agent, request, result));
    result.decision = GateDecision::kOverridden;
  }
  return result;
}

Status AddOverrideFindings(Agent& agent, const std::string& key_name,
                           std::vector<Finding>& findings) {
  ASSIGN_OR_RETURN(const auto overrides, agent.store().GateOverrides());
  std::vector<Finding> added;
  for (const store::GateOverrideRecord& record : overrides) {
    if (!key_name.empty() && record.key_name != key_name) continue;
    const bool breaks_a_rule = std::ranges::any_of(findings, [&](const Finding& finding) {
      return finding.key == record.key_name && finding.severity == Severity::kCritical;
    });
    if (!breaks_a_rule && agent.Now() - record.time >= kOverrideShownSeconds) continue;
    Finding finding;
    finding.rule = "gate_overridden";
    finding.key = record.key_name;
    finding.severity = Severity::kWarning;
    finding.what = "its service was started against the gate at " + FormatUtc(record.time) +
                   " (\"" + record.reason + "\")";
    finding.remedy =
        "make the key comply; the finding ends then, 7 days after the override at the "
        "earliest";
    added.push_back(std::move(finding));
  }
  std::ranges::move(added, std::back_inserter(findings));
  return Ok();
}

}  // namespace keyescrow::agent
