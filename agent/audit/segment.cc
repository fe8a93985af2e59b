#include "agent/audit/segment.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace keyescrow::agent::audit {
namespace {

std::string MissingText(std::uint64_t first, std::uint64_t last) {
  return first == last ? fmt::format("entry {} is missing", first)
                       : fmt::format("entries {} to {} are missing", first, last);
}

}  // namespace

LogSegment::LogSegment(const LogContext& context, std::uint64_t first,
                       std::optional<Bytes32> checkpoint_before, const TileReader* read)
    : context_(context), read_(read), last_checkpoint_hash_(checkpoint_before) {
  result_.first = first;
  result_.last_checkpoint_hash = checkpoint_before;
  NoteSince();
}

Bytes32 LogSegment::SegmentRoot() const {
  return leaves_.size() == 0 ? tiles_.Root() : tiles_.RootWith(leaves_.Root());
}

void LogSegment::NoteSince() {
  // At the segment's very beginning nothing is here to fold; the joiner has that root.
  if (context_.since && context_.since->size == Position() && num_leaves_ > 0) {
    result_.since_root = SegmentRoot();
  }
}

void LogSegment::AppendLeaf(const Bytes32& leaf_hash) {
  leaves_.Append(leaf_hash);
  result_.open_tile.push_back(leaf_hash);
  ++num_leaves_;
  if (result_.open_tile.size() == kTileWidth) {
    const Bytes32 root = leaves_.Root();
    result_.tile_roots.push_back(root);
    tiles_.Append(root);
    CompareTile();
    result_.open_tile.clear();
    leaves_ = CompactRange();
  }
  NoteSince();
}

void LogSegment::CompareTile() {
  if (read_ == nullptr || !read_status_) return;
  const std::uint64_t index = (Position() - 1) / kTileWidth;
  if (missing_to_ > index * kTileWidth) return;  // of what is missing nothing can be said
  auto kept = (*read_)(0, index);
  if (!kept) {
    read_status_ = std::move(kept).error();
    return;
  }
  const ByteView leaves(reinterpret_cast<const std::uint8_t*>(result_.open_tile.data()),
                        result_.open_tile.size() * sizeof(Bytes32));
  if (!std::ranges::equal(*kept, leaves)) {
    const auto width = static_cast<unsigned>(result_.open_tile.size());
    result_.findings.Add(LogFault::kTile, index * kTileWidth,
                         fmt::format("{} is not that of the entries", TilePath(0, index, width)));
  }
}

void LogSegment::SkipTo(std::uint64_t seq) {
  const std::uint64_t first = Position();
  if (first >= seq) return;
  // Checkpoints within what is missing do not make it several findings.
  auto& found = result_.findings.list;
  if (missing_to_ == first && first > result_.first) {
    if (missing_finding_) found[*missing_finding_].text = MissingText(missing_from_, seq - 1);
  } else {
    missing_from_ = first;
    const std::size_t num_before = found.size();
    result_.findings.Add(LogFault::kSequence, first, MissingText(first, seq - 1));
    missing_finding_.reset();
    if (found.size() > num_before) missing_finding_ = num_before;
  }
  missing_to_ = seq;
  while (Position() < seq) AppendLeaf(Bytes32{});
}

const EventFacts* LogSegment::Entry(std::uint64_t seq, ByteView bytes, ByteView kept_leaf_hash) {
  SkipTo(seq);
  const Bytes32 leaf_hash = LeafHash(bytes);
  if (!std::ranges::equal(leaf_hash, kept_leaf_hash)) {
    result_.findings.Add(LogFault::kLeafHash, seq,
                         fmt::format("entry {}: the body is not the one hashed", seq));
  }
  AppendLeaf(leaf_hash);
  ++result_.num_entries;
  auto facts = reader_.Read(AsText(bytes));
  if (!facts) {
    const bool newer = facts.error().code() == ErrorCode::kUnsupportedHere;
    result_.findings.Add(newer ? LogFault::kUnreadable : LogFault::kEntryFormat, seq,
                         fmt::format("entry {}: {}", seq, facts.error().message()));
    return nullptr;
  }
  facts_ = *facts;
  CompareFacts(seq, facts_);
  return &facts_;
}

void LogSegment::CompareFacts(std::uint64_t seq, const EventFacts& facts) {
  if (facts.source == kStatelessSource) return;
  if (facts.source != context_.origin || facts.source_seq != seq) {
    result_.findings.Add(LogFault::kEntryChain, seq,
                         fmt::format("entry {} was written for another place", seq));
  }
  if (facts.prev_checkpoint != last_checkpoint_hash_) {
    result_.findings.Add(LogFault::kEntryChain, seq,
                         fmt::format("entry {} does not name the checkpoint before it", seq));
  }
}

void LogSegment::Checkpoint(std::uint64_t size, std::string_view note_bytes) {
  ++result_.num_checkpoints;
  const std::string_view text = NoteText(note_bytes);
  last_checkpoint_hash_ = CheckpointHash(text);
  result_.last_checkpoint_hash = last_checkpoint_hash_;
  result_.last_checkpoint_size = size;
  auto checkpoint = ParseCheckpoint(text);
  if (!checkpoint || checkpoint->origin != context_.origin || checkpoint->size != size ||
      size != Position() || num_leaves_ == 0) {
    result_.findings.Add(
        LogFault::kCheckpointFormat, size,
        fmt::format("the checkpoint at {} is not one of this log at that size", size));
    return;
  }
  CheckpointFacts facts;
  facts.size = size;
  facts.kept_root = checkpoint->root;
  facts.segment_root = SegmentRoot();
  VerifySignatures(note_bytes, facts);
  result_.checkpoints.push_back(facts);
}

void LogSegment::VerifySignatures(std::string_view note_bytes, CheckpointFacts& facts) {
  const std::uint64_t size = facts.size;
  auto note = ParseNote(note_bytes);
  if (!note) {
    result_.findings.Add(
        LogFault::kCheckpointFormat, size,
        fmt::format("the checkpoint at {} is not one of this log at that size", size));
    return;
  }
  if (size < context_.signatures_from) {
    facts.has_p256 = note->signatures.size() > 1;
    return;
  }
  auto verified = VerifyNote(*note, context_.keys);
  if (!verified) {
    result_.findings.Add(LogFault::kSignature, size,
                         fmt::format("the checkpoint at {}: {}", size, verified.error().message()));
    return;
  }
  bool ed25519 = false;
  for (std::size_t i = 0; i < context_.keys.size(); ++i) {
    if (!(*verified)[i]) continue;
    ++result_.num_signatures;
    (context_.keys[i].ed25519 ? ed25519 : facts.has_p256) = true;
  }
  facts.verified = ed25519;
  if (!ed25519) {
    result_.findings.Add(LogFault::kSignature, size,
                         fmt::format("the checkpoint at {} lacks the log key's signature", size));
  }
}

Result<SegmentResult> LogSegment::Finish() {
  if (!result_.open_tile.empty()) CompareTile();
  RETURN_IF_ERROR(std::move(read_status_));
  return std::move(result_);
}

}  // namespace keyescrow::agent::audit
