#include "agent/usecases/pack_history.h"

#include <fmt/core.h>

#include <cstdlib>
#include <tuple>

#include "agent/report/report_read.h"
#include "agent/usecases/pack_fields.h"
#include "agent/usecases/registration_check.h"

namespace keyescrow::agent {
namespace {

using Json = nlohmann::ordered_json;
using audit::EventType;
using audit::LogFault;

// EndOf returns how status.json names what an entry of a release says; "" where it is of none.
std::string_view EndOf(EventType type, audit::Outcome outcome) {
  switch (type) {
    case EventType::kRestoreReleased:
      return outcome == audit::Outcome::kPending ? "interrupted" : "";
    case EventType::kRestoreRequested: return "requested";
    case EventType::kRestoreCompleted: return "completed";
    case EventType::kRestoreFailed: return "failed";
    case EventType::kRestoreDenied: return "denied";
    default: return "";
  }
}

constexpr std::string_view kToRecoveryKey = "recovery-key:";

std::string TextOrNone(const Json& value) {
  return value.is_string() ? value.get<std::string>() : std::string();
}

// IsAfter: a failure counts where it is not before the last opening, by its entry and by its clock.
bool IsAfter(std::uint64_t seq, std::int64_t time, std::uint64_t opened_seq,
             std::int64_t opened_time) {
  return seq > opened_seq && time >= opened_time;
}

}  // namespace

void CheckSummaries(const Summaries& summaries, const std::set<std::uint64_t>& imported,
                    const TrustTimeline& trust, const VersionLife& life,
                    audit::LogFindings& findings) {
  std::map<std::tuple<std::string_view, std::uint32_t, std::uint32_t>, std::uint64_t> in_order;
  for (const auto& [seq, summary] : summaries) {
    const auto [other, is_new] = in_order.emplace(
        std::tuple(std::string_view(summary.key_name), summary.key_version, summary.revision), seq);
    if (!is_new) {
      findings.Add(LogFault::kPackContents, seq,
                   fmt::format("entries {} and {} escrow {} version {} revision {}", other->second,
                               seq, summary.key_name, summary.key_version, summary.revision));
    }
    envelope::Header header;
    header.agent = summary.agent;
    header.host = summary.host;
    header.key_name = summary.key_name;
    if (!trust.Allows(header, seq)) {
      findings.Add(
          LogFault::kEnvelopeSignature, seq,
          fmt::format("{} version {} revision {}: its agent {} was not trusted for it",
                      summary.key_name, summary.key_version, summary.revision, summary.agent));
    }
  }
  const EnvelopeSummary* before = nullptr;
  for (const auto& [place, seq] : in_order) {
    const EnvelopeSummary& summary = summaries.at(seq);
    const std::string what = fmt::format("{} version {} revision {}", summary.key_name,
                                         summary.key_version, summary.revision);
    const bool same_name = before != nullptr && before->key_name == summary.key_name;
    const bool same_version = same_name && before->key_version == summary.key_version;
    const bool follows =
        same_version
            ? summary.revision == before->revision + 1
            : summary.revision == 1 &&
                  summary.key_version == 1 + (same_name ? before->key_version
                                                        : life.HighestDestroyed(summary.key_name));
    if (!follows && !imported.contains(seq)) {
      findings.Add(LogFault::kVersionGap, seq, what + ": what comes before it is not in the pack");
    }
    if (same_version && summary.revision == before->revision + 1 &&
        summary.previous != EncodeBase64Url(before->sha256)) {
      findings.Add(LogFault::kRevisionChain, seq,
                   what + ": it does not name the revision before it");
    }
    before = &summary;
  }
}

Result<StatusClaims> StatusClaims::Parse(std::string_view status) {
  const Json json = ParsePackJson(status);
  PackFields fields(json);
  StatusClaims claims;
  // Another form may tell conditions otherwise, and is not made anew either.
  const bool has_conditions = report::FormOf(status) == report::kReportForm;
  const std::string own_agent = has_conditions ? fields.Text("agent") : "";
  OnePerName names("status.json");
  for (const Json& item : fields.List("keys")) {
    PackFields key(item);
    const std::string name = key.Text("name");
    RETURN_IF_ERROR(names.Add(name));
    if (key.Of("escrowed") != true) continue;
    const auto version = key.NumberOf<std::uint32_t>("version");
    const auto revision = key.NumberOf<std::uint32_t>("revision");
    for (const Json& path_item : key.List("paths")) {
      PackFields path(path_item);
      const bool current = path.Text("condition") == "proven";
      const std::string id = path.Text("id");
      if (!path.Of("proven").is_null()) {
        claims.proofs_[{name, id}] = {version, current ? std::optional(revision) : std::nullopt,
                                      path.Time("proven"), false};
      } else {
        key.Need(!current);
      }
      key.Need(path.good());
      if (!has_conditions) continue;
      Key& of = claims.keys_[name];
      of.version = version;
      of.is_own = key.Text("agent") == own_agent;
      Path& stated = of.paths[id];
      stated.is_broken = path.Text("condition") == "broken";
      stated.failure = TextOrNone(path.Of("failure"));
      const std::string factors = path.Text("factors");
      if (factors.starts_with(kToRecoveryKey)) {
        stated.recovery_key = factors.substr(kToRecoveryKey.size());
      }
      if (!path.Of("covered_since").is_null()) stated.covered_since = path.Time("covered_since");
      key.Need(path.good());
    }
    fields.Need(key.good());
  }
  for (const Json& item : fields.List("releases")) {
    PackFields release(item);
    const std::string name = release.Text("key");
    const auto version = release.NumberOf<std::uint32_t>("version");
    const auto seq = release.NumberOf<std::uint64_t>("seq");
    const std::string outcome = release.Text("outcome");
    const bool open = release.Of("outcome_seq").is_null();
    const std::uint64_t end = open ? seq : release.NumberOf<std::uint64_t>("outcome_seq");
    bool good = open == (outcome == "pending");
    if (open || end != seq)
      good = claims.steps_.try_emplace(seq, name, version, "requested").second && good;
    if (!open) good = claims.steps_.try_emplace(end, name, version, outcome).second && good;
    fields.Need(good && release.good());
    ++claims.num_releases_;
  }
  if (!fields.good()) return MisshapenPart("status.json");
  return claims;
}

void StatusClaims::Notice(std::uint64_t seq, const audit::EventFacts& facts, bool proof_fails,
                          audit::LogFindings& findings) {
  NoticeCondition(seq, facts);
  const bool opened =
      facts.type == EventType::kDrillPassed || facts.type == EventType::kRestoreCompleted;
  if (opened && facts.outcome == audit::Outcome::kSuccess &&
      facts.source != audit::kStatelessSource && !proof_fails) {
    const auto found = proofs_.find({std::string(facts.key_name), std::string(facts.path_id)});
    if (found != proofs_.end()) {
      Proof& proof = found->second;
      proof.told = proof.told || (facts.key_version == proof.version &&
                                  (!proof.revision || facts.revision == *proof.revision) &&
                                  std::llabs(facts.time - proof.time) <= kProofToleranceSeconds);
    }
  }
  const std::string_view end = EndOf(facts.type, facts.outcome);
  if (end.empty()) return;
  const auto step = steps_.find(seq);
  if (step == steps_.end() || step->second != Step(facts.key_name, facts.key_version, end)) {
    findings.Add(LogFault::kPackContents, seq,
                 fmt::format("status.json does not tell of entry {}, a restore", seq));
  } else {
    steps_.erase(step);
  }
}

void StatusClaims::NoticeCondition(std::uint64_t seq, const audit::EventFacts& facts) {
  const bool escrows =
      facts.type == EventType::kEscrowCreated || facts.type == EventType::kEscrowRewrapped;
  const bool opens =
      facts.type == EventType::kDrillPassed || facts.type == EventType::kRestoreCompleted;
  const bool edits =
      facts.type == EventType::kFactorEnrolled || facts.type == EventType::kFactorRemoved;
  const bool succeeds = facts.outcome == audit::Outcome::kSuccess;
  const bool matters = succeeds ? escrows || opens || edits : !facts.error.empty();
  if (!matters || !facts.has_key || facts.source == audit::kStatelessSource) return;
  const auto found = keys_.find(facts.key_name);
  if (found == keys_.end() || found->second.version != facts.key_version) return;
  Key& key = found->second;
  if (escrows && succeeds) {
    key.newest = facts.envelope_sha256;
    const bool makes = facts.type == EventType::kEscrowCreated;
    if (makes && !facts.reason.starts_with(kImportedReason)) key.made = seq;
    return;
  }
  if (!succeeds) {
    for (auto& [id, path] : key.paths) {
      path.failure_told = path.failure_told || path.failure == facts.error;
    }
  }
  const auto named = key.paths.find(std::string(facts.path_id));
  if (named == key.paths.end()) return;
  Path& path = named->second;
  if (FailsAPath(facts) && facts.envelope_sha256 == key.newest) {
    path.failed =
        PathFailure{seq, facts.time, std::string(facts.error), facts.revision, key.newest};
  }
  if (!succeeds) return;
  path.failed.reset();
  if (!opens) return;
  path.opened = true;
  path.opened_seq = seq;
  path.opened_time = facts.time;
}

void StatusClaims::CompareCondition(const std::string& key_name, const Key& key,
                                    const std::string& path_id, const EventOrder& order,
                                    audit::LogFindings& findings) const {
  const Path& path = key.paths.at(path_id);
  const auto& failed_keys = order.failed_recovery_keys();
  const auto failed_key = failed_keys.find(path.recovery_key);
  const bool has_failed_key = failed_key != failed_keys.end();
  if (path.is_broken) {
    if (path.failure_told || (has_failed_key && failed_key->second.error == path.failure)) return;
    findings.Add(LogFault::kPackContents, 0,
                 fmt::format("{}: no entry tells that the path {} is broken, as status.json says",
                             key_name, path_id));
    return;
  }
  std::optional<std::uint64_t> broken_by;
  // That another host's TPM is not here was never taken for a failure.
  if (path.failed && (path.opened || !path.failed->error.starts_with("tpm_")) &&
      IsAfter(path.failed->seq, path.failed->time, path.opened_seq, path.opened_time) &&
      path.covered_since.value_or(path.failed->time) <= path.failed->time) {
    broken_by = path.failed->seq;
  }
  const auto enrolled = order.recovery_keys().find(path.recovery_key);
  if (has_failed_key && enrolled != order.recovery_keys().end() && key.is_own && key.made) {
    const FailedRecoveryKey& failed = failed_key->second;
    const TokenChange& registered = enrolled->second;
    // What was escrowed since the record was registered has a copy of that record.
    const bool is_of_it = registered.added && registered.seq < *key.made && failed.sha256 &&
                          failed.sha256 == registered.key_sha256;
    if (is_of_it && IsAfter(failed.seq, failed.time, path.opened_seq, path.opened_time)) {
      broken_by = failed.seq;
    }
  }
  if (!broken_by) return;
  findings.Add(
      LogFault::kPackContents, *broken_by,
      fmt::format("{}: entry {} tells that the path {} is broken, and status.json does not "
                  "say so",
                  key_name, *broken_by, path_id));
}

void StatusClaims::Finish(const EventOrder& order, audit::LogFindings& findings) const {
  for (const auto& [name, key] : keys_) {
    for (const auto& [id, path] : key.paths) CompareCondition(name, key, id, order, findings);
  }
  for (const auto& [path, proof] : proofs_) {
    if (proof.told) continue;
    findings.Add(
        LogFault::kProofUnlogged, 0,
        fmt::format("{} version {}: no entry proves the path {} at {}, as status.json says",
                    path.first, proof.version, path.second, FormatUtc(proof.time)));
  }
  for (const auto& [seq, step] : steps_) {
    findings.Add(LogFault::kPackContents, seq,
                 fmt::format("status.json tells of a restore at entry {} that is none", seq));
  }
}

}  // namespace keyescrow::agent
