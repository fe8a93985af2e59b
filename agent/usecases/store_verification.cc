#include "agent/usecases/store_verification.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "agent/audit/segment.h"
#include "agent/usecases/drill_check.h"
#include "agent/usecases/envelope_check.h"
#include "agent/usecases/event_counts.h"
#include "agent/usecases/event_order.h"
#include "agent/usecases/imported_counts.h"
#include "agent/usecases/registration_check.h"
#include "agent/usecases/worker_threads.h"

namespace keyescrow::agent {
namespace {

using audit::LogFault;
using store::StoreReader;

constexpr int kOpenTries = 20;
constexpr std::int64_t kEnvelopesAtATime = 1024;
constexpr std::int64_t kMaxRanges = 4096;
constexpr std::uint64_t kMinEntryBytes = 32;  // no row is smaller
// How many segments may wait for an earlier one before they are joined.
constexpr std::uint64_t kSegmentsAhead = 16;

// Order holds rows to their numbers: pages that lead to one another give some again, without an
// end.
class Order {
 public:
  Status Next(std::int64_t number) {
    const auto before = std::exchange(last_, number);
    if (!before || *before < number) return Ok();
    return Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
                 fmt::format("the store's pages lead to row {} again", number),
                 "get another copy of the store, and keep this one for the inquiry");
  }

 private:
  std::optional<std::int64_t> last_;
};

// KeptCheckpoint: one row, kept while the entries before it are read.
struct KeptCheckpoint {
  std::uint64_t size = 0;
  std::string note;
};

struct SegmentOutput {
  audit::SegmentResult log;
  EventCounts counts;
  NoticedSegment noticed;
  DrillTally drills;
};

// IsSignedByP256: the note has a line of the agent key; none where that key is not known.
std::optional<bool> IsSignedByP256(std::string_view text,
                                   const std::vector<audit::NoteKey>& log_keys) {
  const auto key = std::ranges::find_if(
      log_keys, [](const audit::NoteKey& other) { return other.p256.has_value(); });
  const auto note = audit::ParseNote(text);
  if (key == log_keys.end() || !note) return std::nullopt;
  return std::ranges::any_of(note->signatures, [&](const envelope::NoteSignature& line) {
    return line.name == key->name && line.id == key->id;
  });
}

class StoreVerifier {
 public:
  explicit StoreVerifier(const StoreVerifyOptions& options)
      : options_(options), order_(options.anchor_keys) {}
  Result<StoreVerification> Run();

 private:
  Result<StoreVerification> ReadAll();
  Status OpenReaders();
  Status Prepare();
  // The three passes, in which threads take ranges until none is left.
  Status ReadEntries();
  Status ReadEnvelopes();
  Status ReadRegistrations();

  Status EntryWorker(unsigned worker);
  Result<SegmentOutput> ReadSegment(StoreReader& reader, std::uint64_t first, KeyedSum& keys);
  void JoinSegment(std::uint64_t first, SegmentOutput output);
  Status CheckCounts();
  Status CheckMissing();
  Status Parallel(const std::function<Status(unsigned)>& body);

  const StoreVerifyOptions& options_;
  std::vector<std::unique_ptr<StoreReader>> readers_;
  store::StoreExtent extent_;
  audit::LogContext context_;
  SipKey key_;
  std::optional<ExpectedEnvelopes> expected_;
  std::optional<audit::TileReader> read_tile_;
  std::optional<audit::LogJoiner> joiner_;
  EventOrder order_;
  std::optional<TrustTimeline> trust_;
  std::optional<PolicyTimeline> policies_;
  std::optional<KeyedSum> entry_keys_;
  std::optional<KeyedSum> envelope_keys_;
  audit::LogFindings findings_;
  EventCounts counts_;
  StoreVerification result_;

  std::mutex mutex_;
  std::condition_variable joined_;
  std::map<std::uint64_t, SegmentOutput> waiting_;  // by first entry
  std::uint64_t next_to_join_ = 0;
  bool failed_ = false;
  std::atomic<std::uint64_t> next_range_{0};
  std::atomic<std::uint64_t> done_{0};
};

Status StoreVerifier::Parallel(const std::function<Status(unsigned)>& body) {
  const std::uint64_t total =
      extent_.num_entries +
      static_cast<std::uint64_t>(std::max<std::int64_t>(extent_.max_envelope_id, 0));
  return RunThreads(static_cast<unsigned>(readers_.size()), body, [&] {
    if (options_.progress) options_.progress(std::min(done_.load(), total), total);
  });
}

Status StoreVerifier::OpenReaders() {
  const unsigned count = std::max(1U, options_.num_threads);
  // A live store grows: all readers must see the same end of it.
  for (int tries = 0; tries < kOpenTries; ++tries) {
    readers_.clear();
    bool same = true;
    for (unsigned i = 0; i < count && same; ++i) {
      ASSIGN_OR_RETURN(auto reader, StoreReader::Open(options_.state_dir, options_.mode));
      same = readers_.empty() || reader->extent() == readers_.front()->extent();
      readers_.push_back(std::move(reader));
    }
    if (!same) continue;
    extent_ = readers_.front()->extent();
    return Ok();
  }
  return Error(ErrorCode::kStoreBusy, Action::kRetry,
               "the store grew faster than it could be opened",
               "try again, or copy the state folder and verify the copy");
}

Status StoreVerifier::Prepare() {
  ASSIGN_OR_RETURN(key_, SipKey::Generate(SystemRandom()));
  // A number that the file cannot hold must not decide how much memory is taken.
  const std::uint64_t max_entries = readers_.front()->file_bytes() / kMinEntryBytes;
  if (extent_.num_entries > max_entries) {
    findings_.Add(LogFault::kSequence, extent_.num_entries,
                  fmt::format("entries are numbered up to {}, more than the file can hold",
                              extent_.num_entries - 1));
    extent_.num_entries = max_entries;
  }
  expected_.emplace(extent_.num_entries, key_);
  entry_keys_.emplace(key_);
  envelope_keys_.emplace(key_);
  context_.origin = options_.origin;
  context_.keys = options_.log_keys;
  context_.since = options_.since;
  if (options_.quick) context_.signatures_from = extent_.checkpoint_size;
  read_tile_ = [this](unsigned level, std::uint64_t index) {
    return readers_.front()->Tile(level, index);
  };
  joiner_.emplace(context_);
  ASSIGN_OR_RETURN(const auto differences, readers_.front()->SchemaDifferences());
  for (const std::string& difference : differences) findings_.Add(LogFault::kSchema, 0, difference);
  if (extent_.min_seq < 0) {
    findings_.Add(LogFault::kSequence, 0, "entries stand before the first one");
  }
  return Ok();
}

Result<SegmentOutput> StoreVerifier::ReadSegment(StoreReader& reader, std::uint64_t first,
                                                 KeyedSum& keys) {
  const std::uint64_t last = std::min(first + audit::kSegmentEntries, extent_.num_entries);
  const bool is_last = last == extent_.num_entries;
  std::optional<Bytes32> before;
  if (first > 0) {
    ASSIGN_OR_RETURN(const auto note, reader.NewestCheckpoint(first));
    if (note) before = audit::CheckpointHash(audit::NoteText(*note));
  }
  SegmentOutput output;
  std::vector<KeptCheckpoint> checkpoints;
  Status status;
  Order checkpoints_in_order;
  RETURN_IF_ERROR(reader.Checkpoints(
      first == 0 ? INT64_MIN : static_cast<std::int64_t>(first),
      is_last ? INT64_MAX : static_cast<std::int64_t>(last), [&](const store::CheckpointRow& row) {
        checkpoints.push_back({row.size, std::string(row.note)});
        if (IsSignedByP256(row.note, options_.log_keys).value_or(row.p256_signed) !=
            row.p256_signed) {
          output.noticed.findings.Add(
              LogFault::kCheckpointFormat, row.size,
              fmt::format("the row of the checkpoint at {} says that the agent key {} it", row.size,
                          row.p256_signed ? "signed" : "did not sign"));
        }
        status = checkpoints_in_order.Next(static_cast<std::int64_t>(row.size));
        return status.has_value();
      }));
  RETURN_IF_ERROR(std::move(status));
  const audit::TileReader read = [&reader](unsigned level, std::uint64_t index) {
    return reader.Tile(level, index);
  };
  audit::LogSegment segment(context_, first, before, &read);
  std::size_t next = 0;
  const auto feed_up_to = [&](std::uint64_t size) {
    for (; next < checkpoints.size() && checkpoints[next].size <= size; ++next) {
      segment.SkipTo(std::min(checkpoints[next].size, last));
      segment.Checkpoint(checkpoints[next].size, checkpoints[next].note);
    }
  };
  std::uint64_t num_read = 0;
  DrillChecker drills(reader);
  status = Ok();
  Order entries_in_order;
  RETURN_IF_ERROR(reader.Entries(first, last, [&](const store::EntryRow& row) {
    status = entries_in_order.Next(static_cast<std::int64_t>(row.seq));
    if (!status) return false;
    feed_up_to(row.seq);
    const audit::EventFacts* facts = segment.Entry(row.seq, row.bytes, row.leaf_hash);
    output.counts.Add(AsText(row.bytes));
    if (!row.key_name.empty()) keys.Add(row.key_name, row.seq);
    if ((++num_read & 0xFF) == 0) done_.fetch_add(0x100, std::memory_order_relaxed);
    if (facts == nullptr) return true;
    // An entry without a name of its own is found by its envelope's.
    const bool found_by_envelope = row.key_name.empty() && EscrowsEnvelope(*facts);
    if (row.key_name != facts->key_name && !found_by_envelope &&
        facts->source != audit::kStatelessSource) {
      output.noticed.findings.Add(LogFault::kEntryColumn, row.seq,
                                  fmt::format("entry {} is of {}, its row says {}", row.seq,
                                              facts->has_key ? facts->key_name : "no key",
                                              row.key_name.empty() ? "none" : row.key_name));
    }
    expected_->Expect(row.seq, *facts);
    output.noticed.Notice(row.seq, *facts);
    if (!options_.quick && facts->event != nullptr && facts->event->drill) {
      status = drills.Check(row.seq, *facts->event, output.noticed.findings);
    }
    return status.has_value();
  }));
  RETURN_IF_ERROR(std::move(status));
  output.drills = drills.tally();
  done_.fetch_add(num_read & 0xFF, std::memory_order_relaxed);
  feed_up_to(is_last ? UINT64_MAX : last);
  segment.SkipTo(last);
  ASSIGN_OR_RETURN(output.log, segment.Finish());
  return output;
}

void StoreVerifier::JoinSegment(std::uint64_t first, SegmentOutput output) {
  const std::lock_guard lock(mutex_);
  waiting_.emplace(first, std::move(output));
  while (!waiting_.empty() && waiting_.begin()->first == next_to_join_) {
    SegmentOutput next = std::move(waiting_.begin()->second);
    waiting_.erase(waiting_.begin());
    next_to_join_ += audit::kSegmentEntries;
    joiner_->Add(std::move(next.log));
    result_.drills.Add(next.drills);
    counts_.Append(next.counts);
    for (const NoticedEvent& event : next.noticed.events) {
      // What is wrong with one is for order_ to say.
      if (event.anchor) static_cast<void>(result_.anchors.Add(*event.anchor));
    }
    order_.Add(std::move(next.noticed), findings_);
  }
  joined_.notify_all();
}

Status StoreVerifier::EntryWorker(unsigned worker) {
  KeyedSum keys(key_);
  Status status;
  while (true) {
    const std::uint64_t first = next_range_.fetch_add(1) * audit::kSegmentEntries;
    if (first >= extent_.num_entries && first > 0) break;
    {
      std::unique_lock lock(mutex_);
      joined_.wait(lock, [&] {
        return failed_ || first < next_to_join_ + kSegmentsAhead * audit::kSegmentEntries;
      });
      if (failed_) break;
    }
    auto output = ReadSegment(*readers_[worker], first, keys);
    if (!output) {
      status = std::move(output).error();
      break;
    }
    JoinSegment(first, std::move(*output));
  }
  const std::lock_guard lock(mutex_);
  entry_keys_->Add(keys);
  if (!status) {
    failed_ = true;
    joined_.notify_all();
  }
  return status;
}

Status StoreVerifier::ReadEntries() {
  next_range_ = 0;
  RETURN_IF_ERROR(Parallel([this](unsigned worker) { return EntryWorker(worker); }));
  order_.Finish(findings_);
  result_.num_releases = order_.num_releases();
  result_.num_interrupted = order_.num_interrupted();
  result_.num_anchors = order_.num_anchors();
  result_.num_unchecked_anchors = order_.num_unchecked_anchors();
  return Ok();
}

Status StoreVerifier::ReadEnvelopes() {
  ASSIGN_OR_RETURN(auto rows, readers_.front()->Trust());
  trust_.emplace(options_.agents, order_.trust(), std::move(rows));
  ASSIGN_OR_RETURN(const auto policies, readers_.front()->Policies());
  policies_.emplace(order_.policies(), policies, findings_);
  result_.num_policies = policies_->num_policies();
  result_.num_unread_policies = policies_->num_unread();
  // Numbers of rows have no gaps; where somebody made some, the ranges are longer and not more.
  const std::int64_t max_id = std::max<std::int64_t>(extent_.max_envelope_id, 0);
  const std::int64_t span = std::max(kEnvelopesAtATime, max_id / kMaxRanges + 1);
  const auto num_ranges = static_cast<std::uint64_t>(max_id / span) + 1;
  next_range_ = 0;
  return Parallel([&](unsigned worker) -> Status {
    EnvelopeChecker checker(*readers_[worker], *expected_, *trust_, *policies_, order_.life(),
                            options_.quick);
    KeyedSum keys(key_);
    for (;;) {
      const std::uint64_t range = next_range_.fetch_add(1);
      if (range >= num_ranges) break;
      const std::int64_t first =
          range == 0 ? INT64_MIN : static_cast<std::int64_t>(range) * span + 1;
      const std::int64_t last =
          range + 1 == num_ranges ? INT64_MAX : (static_cast<std::int64_t>(range) + 1) * span;
      Status status;
      Order in_order;
      std::uint64_t num_read = 0;
      RETURN_IF_ERROR(readers_[worker]->Envelopes(first, last, [&](const store::EnvelopeRow& row) {
        status = in_order.Next(row.id);
        if (!status) return false;
        keys.Add(row.key_name, static_cast<std::uint64_t>(row.key_version),
                 static_cast<std::uint64_t>(row.revision), static_cast<std::uint64_t>(row.id));
        ++num_read;
        status = checker.Check(row);
        return status.has_value();
      }));
      RETURN_IF_ERROR(std::move(status));
      done_.fetch_add(num_read, std::memory_order_relaxed);
    }
    const std::lock_guard lock(mutex_);
    EnvelopeTally& tally = checker.tally();
    result_.num_envelopes += tally.num_envelopes;
    result_.num_destroyed += tally.num_destroyed;
    result_.num_envelope_signatures += tally.num_signatures;
    result_.num_paths += tally.num_paths;
    result_.num_tpm_objects += tally.num_tpm_objects;
    result_.num_held_to_policy += tally.num_held_to_policy;
    findings_.Append(std::move(tally.findings));
    envelope_keys_->Add(keys);
    return Ok();
  });
}

Status StoreVerifier::CheckCounts() {
  ASSIGN_OR_RETURN(const auto counts, readers_.front()->NewestCounts());
  if (!counts) return Ok();
  const EventCounts kept = EventCounts::Parse(*counts);
  const bool same = CountsAreOfOwn(*counts)
                        ? kept.Text() == counts_.Text()
                        : CountsWithImported(kept.Text()) == CountsWithImported(counts_.Text());
  if (!same) {
    findings_.Add(LogFault::kCheckpointFormat, extent_.checkpoint_size,
                  "the counts of events beside the newest checkpoint are not those of the entries");
  }
  return Ok();
}

Status StoreVerifier::CheckMissing() {
  Status status;
  expected_->Missing([&](std::uint64_t seq) {
    std::string name;
    if (findings_.list.size() < audit::kMaxFindings && status) {
      auto bytes = readers_.front()->EntryBytes(seq);
      if (!bytes) {
        status = std::move(bytes).error();
        return;
      }
      const auto event = audit::ParseEvent(AsText(*bytes ? ByteView(**bytes) : ByteView()));
      if (event && event->key) {
        name = fmt::format("{} version {}", event->key->name, event->key->version);
      }
    }
    findings_.Add(
        LogFault::kEnvelopeMissing, seq,
        fmt::format("entry {} escrows {}, and its envelope is not in the store", seq, name));
  });
  return status;
}

Status StoreVerifier::ReadRegistrations() {
  RegistrationChecker checker(order_, *entry_keys_, *envelope_keys_, result_.drills.not_held, key_,
                              options_.quick);
  // The scans of the indexes are long; the rest is some rows.
  std::vector<std::function<Status(StoreReader&)>> parts;
  parts.emplace_back([&](StoreReader& reader) { return checker.CheckEnvelopeIndex(reader); });
  parts.emplace_back([&](StoreReader& reader) { return checker.CheckEntryIndex(reader); });
  parts.emplace_back([&](StoreReader& reader) { return checker.CheckRows(reader); });
  next_range_ = 0;
  const auto run_parts = [&](unsigned worker) -> Status {
    for (std::uint64_t part = next_range_.fetch_add(1); part < parts.size();
         part = next_range_.fetch_add(1)) {
      RETURN_IF_ERROR(parts[part](*readers_[worker]));
    }
    return Ok();
  };
  RETURN_IF_ERROR(Parallel(run_parts));
  const auto num_readers = static_cast<unsigned>(readers_.size());
  RETURN_IF_ERROR(Parallel([&](unsigned worker) {
    return checker.CheckProofs(*readers_[worker], worker, num_readers);
  }));
  RegistrationTally tally = checker.Take();
  result_.num_keys = tally.num_keys;
  result_.num_tokens = tally.num_tokens;
  result_.num_trusted = tally.num_trusted;
  result_.num_imported = tally.num_imported;
  result_.num_rotations = tally.num_rotations;
  result_.num_proofs = tally.num_proofs;
  result_.num_signed_proofs = tally.num_signed_proofs;
  result_.unlogged_settings = std::move(tally.settings);
  findings_.Append(std::move(tally.findings));
  return Ok();
}

Result<StoreVerification> StoreVerifier::Run() {
  auto read = ReadAll();
  if (options_.mode != store::ReaderMode::kEvidence) return read;
  // What is written to while it is read looks damaged, and is not.
  const bool changed = std::ranges::any_of(
      readers_, [](const auto& reader) { return reader != nullptr && !reader->Unchanged(); });
  if (changed) return StoreReader::WrittenTo();
  return read;
}

Result<StoreVerification> StoreVerifier::ReadAll() {
  const auto start = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(OpenReaders());
  RETURN_IF_ERROR(Prepare());
  RETURN_IF_ERROR(ReadEntries());
  RETURN_IF_ERROR(CheckCounts());
  RETURN_IF_ERROR(ReadEnvelopes());
  RETURN_IF_ERROR(CheckMissing());
  RETURN_IF_ERROR(ReadRegistrations());
  ASSIGN_OR_RETURN(result_.log, joiner_->Finish(&*read_tile_));
  ASSIGN_OR_RETURN(const std::uint64_t num_tiles, readers_.front()->CountTiles());
  if (num_tiles != result_.log.num_tiles) {
    findings_.Add(
        LogFault::kTile, 0,
        fmt::format("the log needs {} tiles, the store has {}", result_.log.num_tiles, num_tiles));
  }
  // What the log's own entries say comes first.
  audit::LogFindings all;
  all.Append({std::move(result_.log.findings), result_.log.num_findings, result_.log.num_damages});
  all.Append(std::move(findings_));
  result_.log.findings = std::move(all.list);
  result_.log.num_findings = all.num_all;
  result_.log.num_damages = all.num_damages;
  result_.file_bytes = readers_.front()->file_bytes();
  result_.num_threads = static_cast<unsigned>(readers_.size());
  result_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return std::move(result_);
}

}  // namespace

Result<StoreVerification> VerifyStore(const StoreVerifyOptions& options) {
  StoreVerifier verifier(options);
  return verifier.Run();
}

unsigned DefaultVerifyThreads() { return std::clamp(NumProcessors(), 1U, 4U); }

}  // namespace keyescrow::agent
