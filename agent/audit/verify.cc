#include "agent/audit/verify.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "envelope/base/hash.h"

namespace keyescrow::agent::audit {
namespace {

Bytes32 RootOf(const std::vector<Bytes32>& leaves) {
  CompactRange range;
  for (const Bytes32& leaf : leaves) range.Append(leaf);
  return range.Root();
}

}  // namespace

// ---- LogJoiner

Bytes32 LogJoiner::Root() const {
  if (open_tile_.empty()) return tiles_.Root();
  return tiles_.Range().RootWith(RootOf(open_tile_));
}

Status LogJoiner::CompareTile(const Tile& tile, const TileReader& read) {
  ASSIGN_OR_RETURN(const Bytes kept, read(tile.level + 1, tile.index));
  ++report_.num_tiles;
  if (kept != tile.bytes) {
    const auto width = static_cast<unsigned>(tile.bytes.size() / 32);
    findings_.Add(
        LogFault::kTile, tile.index * kTileWidth,
        fmt::format("{} is not that of the entries", TilePath(tile.level + 1, tile.index, width)));
  }
  return Ok();
}

void LogJoiner::CompareSince(const SegmentResult& segment) {
  if (!context_.since || since_compared_) return;
  std::optional<Bytes32> root;
  if (context_.since->size == segment.first) {
    root = Root();
  } else if (segment.since_root) {
    root = tiles_.Range().RootWith(*segment.since_root);
  }
  if (!root) return;
  since_compared_ = true;
  if (*root != context_.since->root) {
    findings_.Add(LogFault::kSinceMismatch, context_.since->size,
                  fmt::format("the first {} entries are not those of the checkpoint that was kept",
                              context_.since->size));
  }
}

void LogJoiner::AddCheckpoint(const CheckpointFacts& facts) {
  // One changed body changes every later root: said once.
  const bool root_differs = facts.kept_root != tiles_.Range().RootWith(facts.segment_root);
  if (root_differs && !in_other_root_run_) {
    findings_.Add(LogFault::kRoot, facts.size,
                  fmt::format("from the checkpoint at {} on the roots are others", facts.size));
  }
  in_other_root_run_ = root_differs;
  report_.latest = Checkpoint{context_.origin, facts.size, facts.kept_root};
  report_.latest_has_p256 = facts.has_p256;
  // A checkpoint that the agent key signs vouches for everything before it: the run ends.
  if (facts.has_p256) {
    missing_p256_since_.reset();
  } else {
    ++report_.num_missing_p256;
    if (!missing_p256_since_) missing_p256_since_ = facts.size;
  }
}

void LogJoiner::Add(SegmentResult segment) {
  CompareSince(segment);
  for (const CheckpointFacts& facts : segment.checkpoints) AddCheckpoint(facts);
  if (segment.num_checkpoints > 0) last_checkpoint_size_ = segment.last_checkpoint_size;
  for (const Bytes32& root : segment.tile_roots) tiles_.Append(root);
  size_ = segment.first + segment.tile_roots.size() * kTileWidth + segment.open_tile.size();
  report_.num_tiles += segment.tile_roots.size() + (segment.open_tile.empty() ? 0 : 1);
  open_tile_ = std::move(segment.open_tile);
  report_.num_entries += segment.num_entries;
  report_.num_checkpoints += segment.num_checkpoints;
  report_.num_signatures += segment.num_signatures;
  findings_.Append(std::move(segment.findings));
}

Result<LogReport> LogJoiner::Finish(const TileReader* read) {
  if (context_.since && !since_compared_) {
    if (context_.since->size == size_) {
      SegmentResult end;
      end.first = size_;
      CompareSince(end);
    } else {
      findings_.Add(LogFault::kLogCut, context_.since->size,
                    fmt::format("the log has {} entries, the checkpoint that was kept {}", size_,
                                context_.since->size));
    }
  }
  if (last_checkpoint_size_ != size_) {
    findings_.Add(
        LogFault::kUncovered, size_,
        fmt::format("the newest checkpoint covers {} of {} entries", last_checkpoint_size_, size_));
  }
  if (missing_p256_since_) {
    findings_.Add(LogFault::kMissingP256, *missing_p256_since_,
                  fmt::format("from the checkpoint at {} on the agent key's signature is missing",
                              *missing_p256_since_));
  }
  report_.root = Root();
  if (read != nullptr) {
    for (const Tile& tile : tiles_.ChangedTiles()) RETURN_IF_ERROR(CompareTile(tile, *read));
  }
  report_.findings = std::move(findings_.list);
  report_.num_findings = findings_.num_all;
  report_.num_damages = findings_.num_damages;
  return std::move(report_);
}

// ---- LogVerifier

LogVerifier::LogVerifier(std::string origin, std::vector<NoteKey> keys, TileReader read)
    : context_{std::move(origin), std::move(keys), std::nullopt, 0},
      read_(std::move(read)),
      joiner_(context_) {}

LogSegment& LogVerifier::Segment() {
  if (!segment_) segment_.emplace(context_, num_entries_, checkpoint_before_, Reader());
  return *segment_;
}

void LogVerifier::EndSegment() {
  auto result = segment_->Finish();
  segment_.reset();
  if (!result) {
    if (read_status_) read_status_ = std::move(result).error();
    return;
  }
  checkpoint_before_ = result->last_checkpoint_hash;
  joiner_.Add(std::move(*result));
}

const EventFacts* LogVerifier::Entry(std::uint64_t seq, ByteView bytes,
                                     const Bytes32& kept_leaf_hash) {
  // Checkpoints at a segment's end belong to it, so it ends with the next entry.
  if (segment_ && num_entries_ % kSegmentEntries == 0) EndSegment();
  if (seq != num_entries_) {
    findings_.Add(LogFault::kSequence, seq,
                  fmt::format("entry {} stands where entry {} should", seq, num_entries_));
  }
  return Segment().Entry(num_entries_++, bytes, kept_leaf_hash);
}

void LogVerifier::Checkpoint(std::uint64_t size, std::string_view note) {
  Segment().Checkpoint(size, note);
}

Result<LogReport> LogVerifier::Finish() {
  if (segment_) EndSegment();
  RETURN_IF_ERROR(std::move(read_status_));
  ASSIGN_OR_RETURN(LogReport report, joiner_.Finish(Reader()));
  findings_.Append({std::move(report.findings), report.num_findings, report.num_damages});
  report.findings = std::move(findings_.list);
  report.num_findings = findings_.num_all;
  report.num_damages = findings_.num_damages;
  return report;
}

}  // namespace keyescrow::agent::audit
