#include "agent/usecases/report_history.h"

#include <algorithm>

#include "agent/usecases/interrupted_restores.h"

namespace keyescrow::agent {
namespace {

using audit::EventType;

std::string ActorText(const audit::Event& event) {
  if (!event.actor) return "unknown";
  const audit::Actor& actor = *event.actor;
  std::string text = actor.name.empty() ? "uid " + std::to_string(actor.uid) : actor.name;
  if (actor.login_uid && *actor.login_uid != actor.uid) {
    text += " (login uid " + std::to_string(*actor.login_uid) + ")";
  }
  return text;
}

}  // namespace

bool ReportHistory::Tells(EventType type) {
  switch (type) {
    case EventType::kRestoreRequested:
    case EventType::kRestoreCompleted:
    case EventType::kRestoreFailed:
    case EventType::kRestoreReleased:
    case EventType::kRestoreDenied:
    case EventType::kDrillPassed:
    case EventType::kDrillFailed:
    case EventType::kVerifyPassed:
    case EventType::kVerifyFailed: return true;
    default: return false;
  }
}

void ReportHistory::Read(std::uint64_t seq, const audit::Event& event) {
  switch (event.type) {
    case EventType::kRestoreRequested: Request(seq, event); break;
    case EventType::kRestoreCompleted: Conclude(seq, event, "completed"); break;
    case EventType::kRestoreFailed: Conclude(seq, event, "failed"); break;
    case EventType::kRestoreReleased: Interrupt(seq, event); break;
    case EventType::kRestoreDenied: Conclude(seq, event, "denied"); break;
    case EventType::kDrillPassed: ++num_drills_passed_; break;
    case EventType::kDrillFailed: ++num_drills_failed_; break;
    case EventType::kVerifyPassed:
    case EventType::kVerifyFailed:
      verifications_.push_back({seq, event.time, event.type == EventType::kVerifyPassed,
                                ActorText(event), event.reason, event.error});
      break;
    default: break;
  }
}

ReportHistory::Matching ReportHistory::MatchingOf(const audit::Event& event) {
  return {event.source == audit::kStatelessSource, event.boot_id,
          event.actor ? event.actor->pid : 0, event.key ? event.key->name : "",
          event.key ? event.key->version : 0};
}

report::Release& ReportHistory::Add(std::uint64_t seq, const audit::Event& event) {
  report::Release& release = releases_.emplace_back();
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
  release.imported = event.source == audit::kStatelessSource;
  return release;
}

void ReportHistory::Request(std::uint64_t seq, const audit::Event& event) {
  Add(seq, event);
  open_[MatchingOf(event)] = releases_.size() - 1;
}

void ReportHistory::Conclude(std::uint64_t seq, const audit::Event& event,
                             std::string_view outcome) {
  const auto found = open_.find(MatchingOf(event));
  // A restore that fails before its intent (a wrong password) has an outcome alone.
  report::Release& release = found == open_.end() ? Add(seq, event) : releases_[found->second];
  if (found != open_.end()) open_.erase(found);
  release.outcome_seq = seq;
  release.outcome = outcome;
  release.error = event.error;
}

void ReportHistory::Interrupt(std::uint64_t seq, const audit::Event& event) {
  if (event.outcome != audit::Outcome::kPending) return;
  const auto request = InterruptedSeq(event.type, event.outcome, event.reason);
  const auto found = std::find_if(open_.begin(), open_.end(), [&](const auto& item) {
    return releases_[item.second].seq == request;
  });
  report::Release& release = found == open_.end() ? Add(seq, event) : releases_[found->second];
  if (found != open_.end()) open_.erase(found);
  release.outcome_seq = seq;
  release.outcome = "interrupted";
}

}  // namespace keyescrow::agent
