// Journal::VerifyAll: the log, then the envelopes that it vouches for.
#include <fmt/core.h>

#include <algorithm>
#include <vector>

#include "agent/usecases/journal.h"

namespace keyescrow::agent {
namespace {

// Checkpoints are read a batch at a time, so that one pass over the entries needs no second cursor
// inside the first one's callback and no memory that grows with the log.
constexpr std::size_t kBatch = 256;

struct KeptCheckpoint {
  std::uint64_t size = 0;
  std::string note;
};

class CheckpointCursor {
 public:
  explicit CheckpointCursor(store::EscrowStore& store) : store_(store) {}

  // Next returns the next checkpoint, or null past the last.
  Result<const KeptCheckpoint*> Next() {
    if (next_ == batch_.size()) {
      const std::uint64_t first = batch_.empty() ? 0 : batch_.back().size + 1;
      if (!batch_.empty() && batch_.size() < kBatch) return nullptr;
      batch_.clear();
      next_ = 0;
      RETURN_IF_ERROR(store_.Checkpoints(first, [&](std::uint64_t size, std::string_view note) {
        batch_.push_back({size, std::string(note)});
        return batch_.size() < kBatch;
      }));
      if (batch_.empty()) return nullptr;
    }
    return &batch_[next_];
  }
  void Advance() { ++next_; }

 private:
  store::EscrowStore& store_;
  std::vector<KeptCheckpoint> batch_;
  std::size_t next_ = 0;
};

Status FeedLog(store::EscrowStore& store, audit::LogVerifier& verifier) {
  CheckpointCursor checkpoints(store);
  // FeedUpTo feeds every checkpoint of at most `size` entries.
  const auto feed_up_to = [&](std::uint64_t size) -> Status {
    for (;;) {
      ASSIGN_OR_RETURN(const KeptCheckpoint* checkpoint, checkpoints.Next());
      if (checkpoint == nullptr || checkpoint->size > size) return Ok();
      verifier.Checkpoint(checkpoint->size, checkpoint->note);
      checkpoints.Advance();
    }
  };
  Status status;
  RETURN_IF_ERROR(store.Entries(0, "", [&](const store::LogEntry& entry) {
    status = feed_up_to(entry.seq);
    if (!status) return false;
    verifier.Entry(entry.seq, entry.bytes, entry.leaf_hash);
    return true;
  }));
  RETURN_IF_ERROR(std::move(status));
  return feed_up_to(UINT64_MAX);
}

void AddFinding(audit::LogReport& report, const store::EnvelopeRecord& row, std::string text) {
  ++report.num_findings;
  ++report.num_damages;
  if (report.findings.size() < audit::kMaxFindings) {
    report.findings.push_back({audit::LogFault::kEntryChain, row.log_seq, std::move(text)});
  }
}

Status CheckEnvelopes(store::EscrowStore& store, const Journal::EnvelopeHash& envelope_hash,
                      audit::LogReport& report) {
  store::EscrowStore::EnvelopeQuery query;
  query.all_revisions = true;
  query.with_bytes = true;
  Status status;
  RETURN_IF_ERROR(store.Envelopes(query, [&](const store::EnvelopeRecord& row) {
    const std::string name =
        fmt::format("{} version {} revision {}", row.key_name, row.key_version, row.revision);
    const auto hash = envelope_hash(row.bytes);
    if (!hash || *hash != row.sha256) {
      AddFinding(report, row, fmt::format("the kept envelope of {} was changed", name));
    }
    auto entry = store.Entry(row.log_seq);
    if (!entry && entry.error().code() != ErrorCode::kNotFound) {
      status = std::move(entry).error();
      return false;
    }
    const auto event = entry ? audit::ParseEvent(AsText(entry->bytes))
                             : Result<audit::Event>(std::move(entry).error());
    if (!event || !event->envelope || event->envelope->sha256 != row.sha256 || !event->key ||
        event->key->name != row.key_name || event->key->version != row.key_version) {
      AddFinding(report, row,
                 fmt::format("entry {} does not name the envelope of {}", row.log_seq, name));
    }
    return true;
  }));
  return status;
}

}  // namespace

Result<audit::LogReport> Journal::VerifyAll(const EnvelopeHash& envelope_hash,
                                            std::string_view since) {
  audit::LogReport report;
  const auto verify = [&]() -> Status {
    audit::LogVerifier verifier(
        identity().origin, Keys(),
        [&](unsigned level, std::uint64_t index) { return store().Tile(level, index); });
    if (!since.empty()) {
      ASSIGN_OR_RETURN(const audit::Checkpoint older, audit::OpenCheckpoint(since, Keys()));
      verifier.SinceCheckpoint(older);
    }
    RETURN_IF_ERROR(FeedLog(store(), verifier));
    ASSIGN_OR_RETURN(report, verifier.Finish());
    if (envelope_hash) RETURN_IF_ERROR(CheckEnvelopes(store(), envelope_hash, report));
    return Ok();
  };
  RETURN_IF_ERROR(store().ReadTogether(verify));
  return report;
}

}  // namespace keyescrow::agent
