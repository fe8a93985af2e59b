#include "agent/usecases/report.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/audit/checkpoint.h"
#include "agent/usecases/event_order.h"
#include "agent/usecases/foreign_escrow.h"
#include "agent/usecases/inventory.h"
#include "agent/usecases/number_text.h"
#include "agent/usecases/path_cover.h"
#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/report_history.h"
#include "agent/usecases/survival_text.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

report::ReportKey Describe(const KeyView& view) {
  report::ReportKey key;
  key.name = view.name;
  key.source = view.source;
  key.declared = !view.source.empty();
  key.escrowed = true;
  key.version = view.version;
  key.revision = view.revision;
  key.num_versions = view.num_versions;
  key.host = view.host;
  key.policy = view.policy;
  key.created = view.created;
  key.updated = view.updated;
  key.agent = view.agent;
  key.agent_trusted = view.agent_trusted;
  key.envelope_id = view.envelope_id;
  key.envelope_sha256 = EncodeBase64Url(view.envelope_hash);
  key.note = view.note;
  key.survival = SurvivalText(view.recoverability);
  for (const PathView& path : view.paths) {
    report::ReportPath& entry = key.paths.emplace_back();
    entry.id = path.id;
    entry.expression = path.expression;
    entry.portable = path.portable;
    entry.condition = ConditionName(path);
    entry.proven = path.proven;
    if (path.proven_by == kRecoveryKeyKind) {
      // A proof is of this very envelope alone: each has an entry.
      entry.proven.reset();
      entry.covered_since = path.proven;
    }
    entry.failure = path.failure;
  }
  return key;
}

// Sets: "tpm + tang:http://a or fido2".
std::string Sets(const std::vector<std::vector<std::string>>& sets, std::size_t most) {
  std::string text;
  for (std::size_t i = 0; i < std::min(sets.size(), most); ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : " or ", fmt::join(sets[i], " + "));
  }
  if (sets.size() > most) text += fmt::format(" or in {} more ways", sets.size() - most);
  return text;
}

// ForeignSurvival is SurvivalText's line of another tool's escrow.
std::string ForeignSurvival(const ForeignEscrow& escrow) {
  constexpr std::size_t kMaxSets = 2;
  if (escrow.opens_nothing()) return "opens no keyslot of the volume";
  const auto answer = ForeignRecoverability(escrow.opens_by);
  if (!answer) return "what it survives is not known";
  if (answer->open) return "anybody who has it opens it";
  const std::string losses = answer->survives == 0 ? "lost with " + Sets(answer->losses, kMaxSets)
                             : answer->survives == 1
                                 ? "survives the loss of any one"
                                 : fmt::format("survives the loss of any {}", answer->survives);
  return losses + "; opened by " + Sets(answer->thefts, kMaxSets);
}

Status FillForeign(Agent& agent, report::ReportModel& model) {
  ASSIGN_OR_RETURN(const std::vector<ForeignEscrow> inventory, ForeignInventory(agent));
  for (const ForeignEscrow& escrow : inventory) {
    model.foreign.push_back({escrow.place, escrow.item, escrow.kind, escrow.volume,
                             ForeignExpression(escrow.opens_by), ForeignSurvival(escrow),
                             ForeignCaveats(escrow.opens_by), EncodeBase64Url(escrow.sha256),
                             escrow.found.value_or(0)});
  }
  return Ok();
}

Status FillCheckpoint(Agent& agent, report::ReportCheckpoint& out) {
  ASSIGN_OR_RETURN(out.note, agent.journal().LatestCheckpoint());
  ASSIGN_OR_RETURN(const audit::Checkpoint checkpoint,
                   audit::ParseCheckpoint(audit::NoteText(out.note)));
  out.origin = checkpoint.origin;
  out.size = checkpoint.size;
  out.root = EncodeBase64(checkpoint.root);
  return Ok();
}

void FillKeys(const Agent& agent, const StatusReport& status, report::ReportModel& model) {
  for (const KeyView& view : status.keys) model.keys.push_back(Describe(view));
  for (const DeclaredKey& declared : agent.environment().config->keys) {
    const bool known = std::any_of(status.keys.begin(), status.keys.end(),
                                   [&](const KeyView& view) { return view.name == declared.name; });
    if (known) continue;
    report::ReportKey& key = model.keys.emplace_back();
    key.name = declared.name;
    key.declared = true;
    key.source = declared.source;
  }
  std::stable_sort(model.keys.begin(), model.keys.end(),
                   [](const auto& a, const auto& b) { return a.name < b.name; });
}

void FillLimits(report::ReportModel& model, std::uint64_t num_unread) {
  model.checked = {
      ("Each envelope of the population was read, its shape and ranges checked, and its signature "
       "verified."),
      ("Each path’s proofs and failures are those that this host recorded, the releases, drills "
       "and verifications those of its log."),
  };
  model.not_checked = {
      "That a path opens today: nothing was opened for this report. A proof says when it last did.",
      ("That the log is whole and unchanged: 'keyescrow verify' recomputes it, and so does "
       "verify.py from the evidence pack."),
      ("That the log was not cut together with its checkpoints: compare with a checkpoint that you "
       "kept, by 'keyescrow verify --since FILE'."),
      "Keys that nobody declared and nobody escrowed: they are not in the population.",
      "That a release went to where it should: the log says who asked, by which path and why.",
  };
  if (!model.foreign.empty()) {
    model.not_checked.emplace_back(
        "Escrows of other tools: they are listed as they say it of themselves, and were as told "
        "when they were imported.");
  }
  if (num_unread != 0) {
    model.not_checked.push_back(
        Plural(num_unread, "entry of the log that is damaged or of a newer version, and was",
               "entries of the log that are damaged or of a newer version, and were") +
        " not read.");
  }
}

}  // namespace

Result<report::ReportModel> BuildReport(Agent& agent) {
  std::optional<report::ReportModel> model;
  RETURN_IF_ERROR(agent.store().ReadTogether([&]() -> Status {
    ASSIGN_OR_RETURN(model, ReadReport(agent));
    return Ok();
  }));
  return std::move(*model);
}

Result<report::ReportModel> ReadReport(Agent& agent) {
  report::ReportModel model;
  model.now = agent.Now();
  model.version = KEYESCROW_VERSION;
  ASSIGN_OR_RETURN(const StatusReport status, EvaluateStatus(agent, ""));
  model.host = status.host;
  model.agent = status.thumbprint;
  model.policy = status.policy;
  ASSIGN_OR_RETURN(const PolicyInForce* const in_force, agent.Policy());
  for (const policy::Rule& rule : in_force->policy.rules) {
    if (!rule.drill_every_s) continue;
    const std::int64_t period = *rule.drill_every_s;
    model.drill_every_shortest_s = std::min(model.drill_every_shortest_s.value_or(period), period);
    model.drill_every_longest_s = std::max(model.drill_every_longest_s.value_or(period), period);
  }
  RETURN_IF_ERROR(FillCheckpoint(agent, model.checkpoint));
  FillKeys(agent, status, model);
  RETURN_IF_ERROR(FillForeign(agent, model));
  for (const Finding& finding : status.findings) {
    model.findings.push_back({finding.rule, finding.key, finding.severity == Severity::kCritical,
                              finding.what, finding.remedy});
  }
  ReportHistory history;
  std::uint64_t num_unread = 0;
  RETURN_IF_ERROR(agent.journal().Events({}, [&](const LoggedEvent& logged) {
    if (logged.event) {
      history.Read(logged.seq, *logged.event);
    } else {
      ++num_unread;
    }
    return true;
  }));
  model.releases = history.releases();
  model.verifications = history.verifications();
  model.num_drills_passed = history.num_drills_passed();
  model.num_drills_failed = history.num_drills_failed();
  FillLimits(model, num_unread);
  return model;
}

}  // namespace keyescrow::agent
