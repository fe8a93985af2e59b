#include "agent/usecases/pack_log.h"

#include <fmt/core.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "agent/audit/proof.h"
#include "agent/usecases/interrupted_restores.h"
#include "agent/usecases/number_text.h"
#include "agent/usecases/pack_documents.h"
#include "agent/usecases/pack_fields.h"
#include "agent/usecases/pack_policy.h"
#include "agent/usecases/registration_check.h"

namespace keyescrow::agent {
namespace {

using audit::LogFault;

constexpr std::uint64_t kNoticedAtATime = 4096;

// ForLines visits the lines of a folder's files in their order.
Status ForLines(const report::TarReader& pack, std::string_view folder,
                const std::function<Status(std::string_view line)>& visit) {
  const std::string prefix = std::string(folder) + "/";
  for (auto it = pack.members().lower_bound(prefix);
       it != pack.members().end() && it->first.starts_with(prefix); ++it) {
    ASSIGN_OR_RETURN(const std::string text, pack.Read(it->first));
    const auto lines = SplitLines(text);
    if (!lines) return report::PackDamaged(it->first + ": " + lines.error().message());
    for (const std::string_view line : *lines) RETURN_IF_ERROR(visit(line));
  }
  return Ok();
}

struct PackCheckpoint {
  std::uint64_t size = 0;
  std::string note;
};

// PackCheckpoints walks the checkpoints one at a time, a file's worth in memory.
class PackCheckpoints {
 public:
  explicit PackCheckpoints(const report::TarReader& pack)
      : pack_(pack), next_(pack.members().lower_bound(kPrefix)) {}

  // Current returns the checkpoint that comes next, or null.
  Result<const PackCheckpoint*> Current() {
    while (at_ == items_.size()) {
      if (next_ == pack_.members().end() || !next_->first.starts_with(kPrefix)) return nullptr;
      RETURN_IF_ERROR(ReadFile(next_->first));
      ++next_;
    }
    return &items_[at_];
  }
  void Advance() { ++at_; }

 private:
  static constexpr std::string_view kPrefix = "checkpoints/";

  Status ReadFile(const std::string& name) {
    items_.clear();
    at_ = 0;
    ASSIGN_OR_RETURN(const std::string text, pack_.Read(name));
    const auto lines = SplitLines(text);
    if (!lines) return report::PackDamaged(name + ": " + lines.error().message());
    for (const std::string_view line : *lines) {
      const auto json = ParsePackJson(line);
      PackFields fields(json);
      PackCheckpoint item{fields.NumberOf<std::uint64_t>("size"), fields.Text("note")};
      if (!fields.good()) return report::PackDamaged(name + " has a line that is none");
      items_.push_back(std::move(item));
    }
    return Ok();
  }

  const report::TarReader& pack_;
  std::map<std::string, report::TarReader::Member, std::less<>>::const_iterator next_;
  std::vector<PackCheckpoint> items_;
  std::size_t at_ = 0;
};

}  // namespace

Status PackLog::Verify() {
  ASSIGN_OR_RETURN(checkpoint_, pack_.Read("checkpoint"));
  RETURN_IF_ERROR(ReadSummaries());
  ASSIGN_OR_RETURN(const std::string status, pack_.Read("status.json"));
  ASSIGN_OR_RETURN(claims_, StatusClaims::Parse(status));
  ASSIGN_OR_RETURN(const std::string recovery_keys, pack_.Read("keys/recovery-keys.json"));
  ASSIGN_OR_RETURN(recovery_keys_, RecoveryKeyList::Parse(recovery_keys));
  audit::LogVerifier verifier(
      options_.origin, options_.keys,
      [this](unsigned level, std::uint64_t index) { return Tile(level, index); });
  if (options_.since) verifier.SinceCheckpoint(*options_.since);
  RETURN_IF_ERROR(ReadEntries(verifier));
  order_.Add(std::move(noticed_), findings_);
  order_.Finish(findings_);
  ASSIGN_OR_RETURN(report_, verifier.Finish());
  findings_.Append({std::move(report_.findings), report_.num_findings, report_.num_damages});
  RETURN_IF_ERROR(CheckHistory());
  return CompareCheckpoint();
}

Status PackLog::CheckHistory() {
  claims_.Finish(order_, findings_);
  CheckDestroyed();
  ASSIGN_OR_RETURN(const std::string text, pack_.Read("keys/trusted-agents.json"));
  ASSIGN_OR_RETURN(const auto rows, ParseTrustedAgents(text));
  CompareTrust(rows, order_.trust(), findings_);
  ASSIGN_OR_RETURN(const std::string token_text, pack_.Read("keys/tokens.json"));
  ASSIGN_OR_RETURN(const auto tokens, ParseTokens(token_text));
  CompareTokens(tokens, order_.tokens(), findings_);
  std::vector<const EnvelopeSummary*> newest;
  for (const auto& [seq, created] : NewestInUse(summaries_, order_.life())) {
    newest.push_back(&summaries_.at(seq));
  }
  recovery_keys_.Finish(order_.recovery_keys(), newest, findings_);
  CheckSummaries(summaries_, imported_, TrustTimeline(options_.agents, order_.trust(), rows),
                 order_.life(), findings_);
  num_trusted_ = rows.size();
  num_tokens_ = tokens.size();
  return Ok();
}

void PackLog::CheckDestroyed() {
  const auto& destroyed = order_.life().destroyed();
  for (const auto& [seq, version] : unmatched_) {
    if (destroyed.contains(version)) continue;
    findings_.Add(LogFault::kPackContents, seq,
                  fmt::format("the envelope of entry {} has no summary", seq));
  }
  for (const auto& [seq, summary] : summaries_) {
    const auto entry = destroyed.find({summary.key_name, summary.key_version});
    if (entry == destroyed.end()) continue;
    findings_.Add(LogFault::kDestroyed, entry->second,
                  fmt::format("entry {} destroys {} version {}, and the pack has its facts",
                              entry->second, summary.key_name, summary.key_version));
  }
}

Status PackLog::CompareCheckpoint() {
  const auto num_tiles = static_cast<std::uint64_t>(
      std::count_if(pack_.names().begin(), pack_.names().end(),
                    [](std::string_view name) { return name.starts_with("tile/"); }));
  if (num_tiles != report_.num_tiles) {
    findings_.Add(
        LogFault::kTile, 0,
        fmt::format("the log needs {} tiles, the pack has {}", report_.num_tiles, num_tiles));
  }
  if (num_matched_ != summaries_.size()) {
    findings_.Add(LogFault::kPackContents, 0,
                  fmt::format("{} summaries are of no entry that escrowed an envelope",
                              summaries_.size() - num_matched_));
  }
  if (report_.num_entries != options_.size) {
    return report::PackDamaged(fmt::format("entries/ has {} entries, MANIFEST.sig says {}",
                                           report_.num_entries, options_.size));
  }
  if (last_note_ != checkpoint_) {
    return report::PackDamaged("checkpoint is not the newest of checkpoints/");
  }
  return Ok();
}

Result<Bytes> PackLog::Tile(unsigned level, std::uint64_t index) const {
  // A tile's name tells its width: it follows from the size.
  std::uint64_t at_level = options_.size;
  for (unsigned i = 0; i < level; ++i) at_level /= audit::kTileWidth;
  const std::uint64_t first = index * audit::kTileWidth;
  if (first >= at_level) return Bytes();
  const auto width = static_cast<unsigned>(std::min(audit::kTileWidth, at_level - first));
  const auto bytes = pack_.Read(audit::TilePath(level, index, width));
  return bytes ? ToBytes(AsBytes(*bytes)) : Bytes();
}

Status PackLog::ReadSummaries() {
  return ForLines(pack_, "summaries", [&](std::string_view line) -> Status {
    ASSIGN_OR_RETURN(EnvelopeSummary summary, ParseSummary(line));
    const std::uint64_t seq = summary.log_seq;
    const auto [added, is_new] = summaries_.emplace(seq, std::move(summary));
    if (!is_new) {
      return report::PackDamaged(fmt::format("two summaries are of entry {}", seq));
    }
    drills_.AddEnvelope(added->second);
    return Ok();
  });
}

Status PackLog::ReadEntries(audit::LogVerifier& verifier) {
  PackCheckpoints checkpoints(pack_);
  std::optional<std::uint64_t> last_size;
  const auto feed_up_to = [&](std::uint64_t size) -> Status {
    for (;;) {
      ASSIGN_OR_RETURN(const PackCheckpoint* const next, checkpoints.Current());
      if (next == nullptr || next->size > size) return Ok();
      if (last_size && next->size <= *last_size) {
        findings_.Add(
            LogFault::kPackContents, next->size,
            fmt::format("checkpoints/ has one at {} behind one at {}", next->size, *last_size));
      }
      last_size = next->size;
      verifier.Checkpoint(next->size, next->note);
      if (const auto parsed = audit::ParseCheckpoint(audit::NoteText(next->note))) {
        roots_[parsed->size] = parsed->root;
      }
      last_note_ = next->note;
      checkpoints.Advance();
    }
  };
  std::uint64_t seq = 0;
  const auto feed_entry = [&](std::string_view line) -> Status {
    RETURN_IF_ERROR(feed_up_to(seq));
    const audit::EventFacts* const facts =
        verifier.Entry(seq, AsBytes(line), audit::LeafHash(AsBytes(line)));
    if (facts != nullptr) {
      noticed_.Notice(seq, *facts);
      ReadEntry(seq, line, *facts);
    }
    if (++seq % kNoticedAtATime == 0) order_.Add(std::exchange(noticed_, {}), findings_);
    return Ok();
  };
  RETURN_IF_ERROR(ForLines(pack_, "entries", feed_entry));
  return feed_up_to(UINT64_MAX);
}

void PackLog::ReadEntry(std::uint64_t seq, std::string_view line, const audit::EventFacts& facts) {
  const bool stateless = facts.source == audit::kStatelessSource;
  const bool escrows = facts.type == audit::EventType::kEscrowCreated ||
                       facts.type == audit::EventType::kEscrowRewrapped;
  if (escrows && !stateless && facts.has_envelope && facts.has_key) {
    MatchSummary(seq, line, facts);
    if (facts.reason.starts_with(kImportedReason)) imported_.insert(seq);
  }
  if (facts.type == audit::EventType::kPolicyChanged && !stateless) {
    const auto event = audit::ParseEvent(line);
    if (event && event->policy && event->outcome == audit::Outcome::kSuccess) {
      policies_.push_back(*event->policy);
    }
  }
  const bool has_drill = facts.event != nullptr && facts.event->drill;
  const bool proof_fails = has_drill && CheckDrill(seq, *facts.event);
  claims_.Notice(seq, facts, proof_fails, findings_);
  if (facts.source != audit::kStatelessSource) recovery_keys_.Notice(line, facts);
  if (ReportHistory::Tells(facts.type)) {
    if (const auto event = audit::ParseEvent(line)) history_.Read(seq, *event);
  }
  if (facts.event == nullptr) return;  // a plain line is no certificate
  anchor_lines_ += AnchorLine(seq, line, *facts.event);
}

void PackLog::MatchSummary(std::uint64_t seq, std::string_view line,
                           const audit::EventFacts& facts) {
  const auto found = summaries_.find(seq);
  if (found == summaries_.end()) {
    unmatched_.emplace(seq, KeyVersion(facts.key_name, facts.key_version));
    return;
  }
  const EnvelopeSummary& summary = found->second;
  ++num_matched_;
  if (summary.key_name != facts.key_name || summary.key_version != facts.key_version ||
      summary.envelope_id != facts.envelope_id || summary.revision != facts.revision ||
      summary.sha256 != facts.envelope_sha256) {
    findings_.Add(LogFault::kPackContents, seq,
                  fmt::format("the summary of entry {} is of another envelope", seq));
  }
  const auto event = audit::ParseEvent(line);
  if (!event || !PathsOfEntry(summary, event->paths)) {
    findings_.Add(LogFault::kPackContents, seq,
                  fmt::format("the summary of entry {} has other paths than the entry", seq));
  }
}

bool PackLog::CheckDrill(std::uint64_t seq, const audit::Event& event) {
  const PackDrills::Checked checked = drills_.Add(seq, event);
  if (checked.verdict == PackDrills::Verdict::kUnknownEnvelope) {
    ++num_unknown_drills_;
    return false;
  }
  std::string fault = checked.fault;
  if (fault.empty() && event.drill->size > 0) {
    const auto root = roots_.find(event.drill->size);
    if (root == roots_.end() || root->second != event.drill->root) {
      fault = "it is of another log";
    }
  }
  if (fault.empty()) {
    ++num_drills_;
    if (options_.sample != nullptr) options_.sample->Notice(seq, event);
    return false;
  }
  const bool imported = event.source == audit::kStatelessSource;
  findings_.Add(imported ? LogFault::kImportedDrill : LogFault::kDrillProof, seq,
                fmt::format("entry {} proves no path: {}", seq, fault));
  return true;
}

void PackLog::SayChecked(std::vector<std::string>& checked,
                         std::vector<std::string>& not_checked) const {
  checked.push_back(fmt::format("{}: each body hashed, its shape, number and chain",
                                Plural(report_.num_entries, "entry", "entries")));
  checked.push_back(fmt::format("{} and {}: each root rebuilt from the bodies; {} verified",
                                Plural(report_.num_checkpoints, "checkpoint", "checkpoints"),
                                Plural(report_.num_tiles, "tile", "tiles"),
                                Plural(report_.num_signatures, "signature", "signatures")));
  checked.push_back(fmt::format("the facts of {}, each against the entry that escrowed it",
                                Plural(summaries_.size(), "envelope", "envelopes")));
  checked.push_back(
      fmt::format("{} of paths, each with its signature", Plural(num_drills_, "proof", "proofs")));
  checked.push_back(fmt::format("{}, each with its end{}",
                                Plural(order_.num_releases(), "restore", "restores"),
                                InterruptedText(order_.num_interrupted())));
  checked.push_back(fmt::format("{} and {} of status.json, each by its entry",
                                Plural(claims_.num_proofs(), "proven path", "proven paths"),
                                Plural(claims_.num_releases(), "release", "releases")));
  checked.push_back(fmt::format("{}, {} and {}, each by its entry",
                                Plural(num_tokens_, "token", "tokens"),
                                Plural(recovery_keys_.size(), "recovery key", "recovery keys"),
                                Plural(num_trusted_, "trusted agent", "trusted agents")));
  if (order_.num_anchors() > 0) {
    checked.push_back(fmt::format("{} of the TPM's counter",
                                  Plural(order_.num_anchors(), "certificate", "certificates")));
  }
  if (order_.num_unchecked_anchors() > 0) {
    not_checked.push_back(
        fmt::format("{} of the TPM's counter: by a key that is not among those that were given",
                    Plural(order_.num_unchecked_anchors(), "certificate", "certificates")));
  }
  if (num_unknown_drills_ > 0) {
    not_checked.push_back(fmt::format("{} of paths of envelopes that are not in the pack",
                                      Plural(num_unknown_drills_, "proof", "proofs")));
  }
  if (options_.since) {
    checked.emplace_back("the log against the checkpoint that you kept");
  }
}

}  // namespace keyescrow::agent
