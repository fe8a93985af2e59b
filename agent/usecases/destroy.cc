#include "agent/usecases/destroy.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <set>
#include <thread>

#include "agent/key_locations/apply_command.h"
#include "agent/key_locations/crash_safe_file.h"
#include "agent/usecases/backup_plan.h"
#include "agent/usecases/fingerprint.h"
#include "agent/usecases/luks_binding.h"
#include "agent/usecases/policy_checks.h"
#include "agent/usecases/rotation_errors.h"
#include "agent/usecases/rotation_record.h"
#include "envelope/base/clock.h"
#include "envelope/base/pause_point.h"

namespace keyescrow::agent {
namespace {

// The file whose presence says that Scrub has still to be done; it names the key.
constexpr std::string_view kScrubFile = "scrub.pending";
constexpr char kTurn[] = "/destroy";                         // no key's name
constexpr std::string_view kSheetReason = "recovery sheet";  // of the entry of one

std::string ScrubPath(const Agent& agent) {
  return fmt::format("{}/{}", agent.environment().state_dir, kScrubFile);
}

// ScrubPending returns the keys whose traces may still be there.
std::set<std::string> ScrubPending(const Agent& agent) {
  std::ifstream file(ScrubPath(agent));
  std::set<std::string> names;
  for (std::string name; std::getline(file, name);) names.insert(name);
  return names;
}

Status WritePending(const Agent& agent, const std::string& key_name) {
  std::set<std::string> names = ScrubPending(agent);
  names.insert(key_name);
  std::string text;
  for (const std::string& name : names) text += name + "\n";
  DurableWriteOptions options;
  options.mode = 0600;
  const Status written = WriteFileDurably(ScrubPath(agent), AsBytes(text), options);
  if (written) return Ok();
  return Error(
      ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
      "nothing was destroyed, since the state folder takes no file: " + written.error().message(),
      "make room in the state folder, and check that it can be written");
}

// TakeTurn waits until no other key is destroyed: each removes the traces of all that were, and
// says for all that this is done.
Result<RotationLock> TakeTurn(const Agent& agent) {
  constexpr int kNumTries = 500;
  constexpr std::chrono::milliseconds kPause{20};
  for (int i = 0; i < kNumTries; ++i) {
    auto turn = RotationLock::Take(agent.environment().state_dir, kTurn);
    if (turn || turn.error().code() != ErrorCode::kStoreBusy) return turn;
    std::this_thread::sleep_for(kPause);
  }
  return Error(ErrorCode::kStoreBusy, Action::kRetry,
               "another process destroys a key at this moment; nothing was destroyed",
               "wait for it to end");
}

bool Exists(const std::string& path) {
  struct stat status {};
  return !path.empty() && lstat(path.c_str(), &status) == 0;
}

std::string By(const audit::Event& event) {
  if (!event.actor) return "somebody unknown";
  return event.actor->name.empty() ? fmt::format("uid {}", event.actor->uid) : event.actor->name;
}

std::string ReasonText(const std::string& reason) {
  return reason.empty() ? "" : " (" + reason + ")";
}

// WhatIsLeft names what this agent knows of and cannot shred.
Result<std::vector<std::string>> WhatIsLeft(Agent& agent, const std::string& key_name) {
  std::vector<std::string> left;
  struct Written {
    std::uint64_t num = 0;
    std::int64_t newest = 0;
  };
  Written files;
  Written sheets;
  EventFilter filter;
  filter.key_name = key_name;
  filter.types = {audit::EventType::kAuditExported};
  RETURN_IF_ERROR(agent.journal().Events(filter, [&](const LoggedEvent& logged) {
    Written& written = logged.event->reason == kSheetReason ? sheets : files;
    ++written.num;
    written.newest = logged.event->time;
    return true;
  }));
  const auto tell = [&](const char* what, const Written& written) {
    if (written.num == 0) return;
    left.push_back(
        fmt::format("{}: the log tells of {}, the last of {}; who has one and its factors opens it",
                    what, written.num, FormatUtc(written.newest)));
  };
  tell("files that 'export' and 'backup --output' wrote", files);
  tell("recovery sheets", sheets);
  left.emplace_back("what other hosts imported or adopted of them");
  left.emplace_back("copies of the store that were made before, and snapshots of its disk");
  left.emplace_back("blocks of its disk that were freed: file systems and flash keep old ones");
  const DeclaredKey* declared = agent.environment().config->FindKey(key_name);
  std::vector<std::string> live;
  if (declared != nullptr) live.push_back(SourceFilePath(declared->source));
  ASSIGN_OR_RETURN(const auto fingerprints, agent.store().Fingerprints(key_name));
  for (const store::FingerprintRecord& row : fingerprints) live.push_back(row.source);
  std::sort(live.begin(), live.end());
  live.erase(std::unique(live.begin(), live.end()), live.end());
  for (const std::string& path : live) {
    if (Exists(path)) left.push_back("the key itself, where it was escrowed from: " + path);
  }
  ASSIGN_OR_RETURN(const auto keyslots, StandingKeyslots(agent, key_name));
  for (const std::string& keyslot : keyslots) left.push_back("what it opens: " + keyslot);
  ASSIGN_OR_RETURN(const auto destinations, agent.store().Destinations());
  for (const store::DestinationRecord& row : destinations) {
    if (row.key_name != key_name || !Exists(row.previous_path)) continue;
    left.push_back("a key that was put aside: " + row.previous_path);
  }
  return left;
}

Result<std::vector<store::EnvelopeRecord>> Versions(Agent& agent, const std::string& key_name,
                                                    std::size_t* num_envelopes) {
  std::vector<store::EnvelopeRecord> newest;
  store::EscrowStore::EnvelopeQuery query;
  query.key_name = key_name;
  query.all_revisions = true;
  *num_envelopes = 0;
  RETURN_IF_ERROR(agent.store().Envelopes(query, [&](const store::EnvelopeRecord& record) {
    ++*num_envelopes;
    // Revisions ascend: the last one of a version stays.
    if (!newest.empty() && newest.back().key_version == record.key_version) newest.pop_back();
    newest.push_back(record);
    return true;
  }));
  return newest;
}

Status CheckNoCommandRuns(Agent& agent, const std::string& key_name) {
  ASSIGN_OR_RETURN(const auto open, agent.store().OpenRotation(key_name));
  if (!open || !StillRuns(open->process)) return Ok();
  return RotationIsOpen(*open);
}

// Scrub removes the traces; what stands in its way is a finding, and a later call does it.
void Scrub(Agent& agent, DestroyResult& result) {
  PausePoint("destroy-committed");
  if (Status scrubbed = agent.store().Scrub(); !scrubbed) {
    result.findings.push_back(
        fmt::format("pages of the store's files that were freed may still hold what was destroyed: "
                    "{}; 'keyescrow "
                    "destroy {}' removes them",
                    scrubbed.error().message(), result.key_name));
    return;
  }
  PausePoint("destroy-scrubbed");
  result.scrubbed = true;
  unlink(ScrubPath(agent).c_str());
}

}  // namespace

Result<DestroyPlan> PlanDestroy(Agent& agent, const DestroyRequest& request) {
  RETURN_IF_ERROR(CheckKeyName(request.key_name));
  DestroyPlan plan;
  ASSIGN_OR_RETURN(const auto versions, Versions(agent, request.key_name, &plan.num_envelopes));
  if (versions.empty()) {
    auto found = agent.store().FindEnvelope(request.key_name, std::nullopt);
    if (!found && found.error().code() == ErrorCode::kNotFound &&
        ScrubPending(agent).contains(request.key_name)) {
      plan.only_scrub = true;
      ASSIGN_OR_RETURN(plan.left, WhatIsLeft(agent, request.key_name));
      return plan;
    }
    if (!found) return TellDestroyed(agent, request.key_name, std::move(found).error());
  }
  RETURN_IF_ERROR(CheckNoCommandRuns(agent, request.key_name));
  for (const store::EnvelopeRecord& record : versions) plan.versions.push_back(record.key_version);
  ASSIGN_OR_RETURN(const auto reported,
                   CheckDestruction(agent, request.key_name, request.reason, request.ticket));
  plan.findings = FindingTexts(reported);
  ASSIGN_OR_RETURN(plan.left, WhatIsLeft(agent, request.key_name));
  return plan;
}

Result<DestroyResult> Destroy(Agent& agent, const DestroyRequest& request) {
  ASSIGN_OR_RETURN(const RotationLock lock,
                   RotationLock::Take(agent.environment().state_dir, request.key_name));
  ASSIGN_OR_RETURN(const RotationLock turn, TakeTurn(agent));
  ASSIGN_OR_RETURN(const DestroyPlan plan, PlanDestroy(agent, request));
  DestroyResult result;
  result.key_name = request.key_name;
  result.left = plan.left;
  result.findings = plan.findings;
  if (plan.only_scrub) {
    Scrub(agent, result);
    return result;
  }
  store::Change change;
  ASSIGN_OR_RETURN(const auto in_use, agent.store().VersionInUse(request.key_name));
  change.in_use_seen.push_back({request.key_name, in_use});  // a later one would be left
  ASSIGN_OR_RETURN(const auto versions, Versions(agent, request.key_name, &result.num_envelopes));
  ASSIGN_OR_RETURN(const PolicyInForce* const in_force, agent.Policy());
  std::vector<audit::Event> events;
  ASSIGN_OR_RETURN(auto open, agent.store().OpenRotation(request.key_name));
  if (open) {
    events.push_back(RotationEvent(*open, audit::Outcome::kFailure, "the key is destroyed"));
    open->step = store::RotationStep::kAbandoned;
    open->process.clear();
    if (!open->command.empty()) open->command = kEndedCommand;
    open->changed = agent.Now();
    change.rotations.push_back(std::move(*open));
  }
  for (const store::EnvelopeRecord& record : versions) {
    audit::Event event;
    event.type = audit::EventType::kKeyDestroyed;
    event.key = audit::EventKey{record.key_name, record.key_version};
    event.envelope = audit::EventEnvelope{record.envelope_id, record.revision, record.sha256};
    event.policy = in_force->Event();
    event.reason = request.reason;
    event.ticket = request.ticket;
    change.destructions.push_back({record.key_name, record.key_version, events.size()});
    result.versions.push_back(record.key_version);
    events.push_back(std::move(event));
  }
  RETURN_IF_ERROR(WritePending(agent, request.key_name));
  PausePoint("destroy-before-commit");
  auto committed = agent.journal().Append(std::move(events), change);
  if (!committed && committed.error().code() == ErrorCode::kAlreadyExists) {
    return Error(ErrorCode::kStoreBusy, Action::kRetry,
                 "another command wrote a version of " + request.key_name +
                     " in this moment; nothing was destroyed",
                 "look at 'keyescrow show " + request.key_name + "', and run the command again");
  }
  ASSIGN_OR_RETURN(const AppendReceipt receipt, std::move(committed));
  result.log_seq = receipt.seq;
  result.p256_signed = receipt.p256_signed;
  Scrub(agent, result);
  return result;
}

Result<std::vector<DestroyedKey>> DestroyedKeys(Agent& agent, const std::string& key_name) {
  std::vector<DestroyedKey> keys;
  ASSIGN_OR_RETURN(const auto records, agent.store().Destroyed(key_name));
  for (std::size_t index = 0; index < records.size(); ++index) {
    const store::DestroyedRecord& record = records[index];
    if (keys.empty() || keys.back().name != record.key_name) {
      keys.push_back({record.key_name, 0, 0, "", ""});
    }
    DestroyedKey& key = keys.back();
    ++key.num_versions;
    const bool is_last =
        index + 1 == records.size() || records[index + 1].key_name != record.key_name;
    if (!is_last) continue;
    const auto entry = agent.store().Entry(record.log_seq);
    const auto event =
        entry ? audit::ParseEvent(AsText(entry->bytes)) : Result<audit::Event>(entry.error());
    if (event) {
      key.time = event->time;
      key.by = By(*event);
      key.reason = event->reason;
    }
    // One that was escrowed again since is not gone.
    ASSIGN_OR_RETURN(const std::uint32_t highest, agent.store().HighestVersion(record.key_name));
    if (highest > record.key_version) keys.pop_back();
  }
  return keys;
}

Error TellDestroyed(Agent& agent, const std::string& key_name, Error error) {
  if (error.code() != ErrorCode::kNotFound) return error;
  const auto records = agent.store().Destroyed(key_name);
  if (!records || records->empty()) return error;
  const auto entry = agent.store().Entry(records->back().log_seq);
  if (!entry) return error;
  const auto event = audit::ParseEvent(AsText(entry->bytes));
  if (!event) return error;
  return Error(error.code(), error.action(),
               fmt::format("{} was destroyed on {} by {}{}", key_name, FormatUtc(event->time),
                           By(*event), ReasonText(event->reason)),
               error.hint());
}

Result<std::vector<Finding>> ScrubFindings(Agent& agent) {
  std::vector<Finding> findings;
  for (const std::string& name : ScrubPending(agent)) {
    // One that ended before its commit has destroyed nothing.
    ASSIGN_OR_RETURN(const auto destroyed, agent.store().Destroyed(name));
    if (destroyed.empty()) continue;
    ASSIGN_OR_RETURN(const auto in_use, agent.store().VersionInUse(name));
    findings.push_back(
        {"destroyed_not_scrubbed", name, agent.identity().host, Severity::kWarning,
         "pages of the store's files that were freed may still hold what was destroyed",
         in_use ? "the next 'keyescrow destroy' of another key removes them; one of " + name +
                      " would destroy what was escrowed since"
                : "'keyescrow destroy " + name + "' removes them"});
  }
  return findings;
}

}  // namespace keyescrow::agent
