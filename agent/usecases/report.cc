#include "agent/usecases/report.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "agent/audit/checkpoint.h"
#include "agent/usecases/event_order.h"
#include "agent/usecases/interrupted_restores.h"
#include "agent/usecases/inventory.h"
#include "agent/usecases/number_text.h"
#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/survival_text.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

std::string ActorText(const audit::Event& event) {
  if (!event.actor) return "unknown";
  const audit::Actor& actor = *event.actor;
  std::string text = actor.name.empty() ? "uid " + std::to_string(actor.uid) : actor.name;
  if (actor.login_uid && *actor.login_uid != actor.uid) {
    text += " (login uid " + std::to_string(*actor.login_uid) + ")";
  }
  return text;
}

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
    entry.condition =
        std::string(PathConditionName(path.condition.value_or(PathCondition::kUnproven)));
    entry.proven = path.proven;
    if (path.proven_by == kRecoveryKeyKind) {
      // A report tells of proofs of this very envelope alone: each has an entry.
      entry.proven.reset();
      entry.condition = PathConditionName(PathCondition::kUnproven);
    }
    entry.failure = path.failure;
  }
  return key;
}

// HistoryReader gathers what the log tells: releases with their outcomes, verifications, drills.
class HistoryReader {
 public:
  explicit HistoryReader(report::ReportModel& model) : model_(model) {}

  void Read(const LoggedEvent& logged) {
    if (!logged.event) {
      ++num_unread_;
      return;
    }
    const audit::Event& event = *logged.event;
    switch (event.type) {
      case audit::EventType::kRestoreRequested: Request(logged.seq, event); break;
      case audit::EventType::kRestoreCompleted: Conclude(logged.seq, event, "completed"); break;
      case audit::EventType::kRestoreFailed: Conclude(logged.seq, event, "failed"); break;
      case audit::EventType::kRestoreReleased: Interrupt(logged.seq, event); break;
      case audit::EventType::kRestoreDenied: Conclude(logged.seq, event, "denied"); break;
      case audit::EventType::kDrillPassed: ++model_.num_drills_passed; break;
      case audit::EventType::kDrillFailed: ++model_.num_drills_failed; break;
      case audit::EventType::kVerifyPassed:
      case audit::EventType::kVerifyFailed:
        model_.verifications.push_back({logged.seq, event.time,
                                        event.type == audit::EventType::kVerifyPassed,
                                        ActorText(event), event.reason, event.error});
        break;
      default: break;
    }
  }
  std::uint64_t num_unread() const { return num_unread_; }

 private:
  // One process does one restore at a time, and its intent and outcome name the same key.
  using Matching = std::tuple<std::string, std::int32_t, std::string, std::uint32_t>;
  static Matching MatchingOf(const audit::Event& event) {
    return {event.boot_id, event.actor ? event.actor->pid : 0, event.key ? event.key->name : "",
            event.key ? event.key->version : 0};
  }

  report::Release& Add(std::uint64_t seq, const audit::Event& event) {
    report::Release& release = model_.releases.emplace_back();
    release.seq = seq;
    release.time = event.time;
    if (event.key) {
      release.key = event.key->name;
      release.version = event.key->version;
    }
    if (!event.paths.empty()) release.path = event.paths.front().id;
    release.actor = ActorText(event);
    release.host = event.host;
    release.reason = event.reason;
    release.ticket = event.ticket;
    release.outcome = "pending";
    return release;
  }

  void Request(std::uint64_t seq, const audit::Event& event) {
    Add(seq, event);
    open_[MatchingOf(event)] = model_.releases.size() - 1;
  }

  void Conclude(std::uint64_t seq, const audit::Event& event, std::string_view outcome) {
    const auto found = open_.find(MatchingOf(event));
    // A restore that fails before its intent (a wrong password) has an outcome alone.
    report::Release& release =
        found == open_.end() ? Add(seq, event) : model_.releases[found->second];
    if (found != open_.end()) open_.erase(found);
    release.outcome_seq = seq;
    release.outcome = outcome;
    release.error = event.error;
  }

  void Interrupt(std::uint64_t seq, const audit::Event& event) {
    if (event.outcome != audit::Outcome::kPending) return;
    const auto request = InterruptedSeq(event.type, event.outcome, event.reason);
    const auto found = std::find_if(open_.begin(), open_.end(), [&](const auto& item) {
      return model_.releases[item.second].seq == request;
    });
    report::Release& release =
        found == open_.end() ? Add(seq, event) : model_.releases[found->second];
    if (found != open_.end()) open_.erase(found);
    release.outcome_seq = seq;
    release.outcome = "interrupted";
  }

  report::ReportModel& model_;
  std::map<Matching, std::size_t> open_;
  std::uint64_t num_unread_ = 0;
};

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
      "Each envelope of the population was read, its shape and ranges checked, and its signature "
      "verified.",
      "Each path’s proofs and failures are those that this host recorded, the releases, drills "
      "and verifications those of its log.",
  };
  model.not_checked = {
      "That a path opens today: nothing was opened for this report. A proof says when it last did.",
      "That the log is whole and unchanged: 'keyescrow verify' recomputes it, and so does "
      "verify.py from the evidence pack.",
      "That the log was not cut together with its checkpoints: compare with a checkpoint that you "
      "kept, by 'keyescrow verify --since FILE'.",
      "Keys that nobody declared and nobody escrowed: they are not in the population.",
      "That a release went to where it should: the log says who asked, by which path and why.",
  };
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
  for (const Finding& finding : status.findings) {
    model.findings.push_back({finding.rule, finding.key, finding.severity == Severity::kCritical,
                              finding.what, finding.remedy});
  }
  HistoryReader history(model);
  RETURN_IF_ERROR(agent.journal().Events({}, [&](const LoggedEvent& logged) {
    history.Read(logged);
    return true;
  }));
  FillLimits(model, history.num_unread());
  return model;
}

}  // namespace keyescrow::agent
