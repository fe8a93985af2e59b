#include "agent/audit/verify.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <utility>

#include "agent/audit/event.h"

namespace keyescrow::agent::audit {

std::string_view LogFaultName(LogFault fault) {
  static constexpr std::array<std::string_view, 10> kNames = {
      "leaf_hash",         "sequence",  "entry_format", "entry_chain", "root",
      "checkpoint_format", "signature", "uncovered",    "tile",        "missing_p256"};
  return kNames[static_cast<std::size_t>(fault)];
}

LogVerifier::LogVerifier(std::string origin, std::vector<NoteKey> keys, TileReader read)
    : origin_(std::move(origin)), keys_(std::move(keys)), read_(std::move(read)) {}

void LogVerifier::Add(LogFault fault, std::uint64_t position, std::string text) {
  ++report_.num_findings;
  if (fault != LogFault::kMissingP256) ++report_.num_damages;
  if (report_.findings.size() < kMaxFindings) {
    report_.findings.push_back({fault, position, std::move(text)});
  }
}

void LogVerifier::CompareSince() {
  if (!since_ || since_compared_ || since_->size != tree_.size()) return;
  since_compared_ = true;
  if (since_->root != tree_.Root()) {
    Add(LogFault::kRoot, since_->size,
        fmt::format("the first {} entries are not those of the older checkpoint", since_->size));
  }
}

void LogVerifier::CompareTile(const Tile& tile) {
  if (!read_ || !read_status_) return;
  auto kept = read_(tile.level, tile.index);
  if (!kept) {
    read_status_ = std::move(kept).error();
  } else if (*kept != tile.bytes) {
    const auto width = static_cast<unsigned>(tile.bytes.size() / 32);
    Add(LogFault::kTile, tile.index * kTileWidth,
        fmt::format("{} is not that of the entries", TilePath(tile.level, tile.index, width)));
  }
}

void LogVerifier::Entry(std::uint64_t seq, ByteView bytes, const Bytes32& kept_leaf_hash) {
  CompareSince();
  if (seq != tree_.size()) {
    Add(LogFault::kSequence, seq,
        fmt::format("entry {} stands where entry {} should", seq, tree_.size()));
  }
  const Bytes32 leaf_hash = LeafHash(bytes);
  if (leaf_hash != kept_leaf_hash) {
    Add(LogFault::kLeafHash, seq, fmt::format("entry {}: the body is not the one hashed", seq));
  }
  auto event = ParseEvent(AsText(bytes));
  if (!event && event.error().code() != ErrorCode::kUnsupportedHere) {
    Add(LogFault::kEntryFormat, seq, fmt::format("entry {}: {}", seq, event.error().message()));
  }
  if (event && event->source != kStatelessSource) {
    if (event->source != origin_ || event->source_seq != seq) {
      Add(LogFault::kEntryChain, seq, fmt::format("entry {} was written for another place", seq));
    }
    if (event->prev_checkpoint != last_checkpoint_hash_) {
      Add(LogFault::kEntryChain, seq,
          fmt::format("entry {} does not name the checkpoint before it", seq));
    }
  }
  tree_.Append(leaf_hash);
  for (const Tile& tile : tree_.TakeFilledTiles()) CompareTile(tile);
  ++report_.num_entries;
}

void LogVerifier::Checkpoint(std::uint64_t size, std::string_view note_bytes) {
  CompareSince();
  ++report_.num_checkpoints;
  const std::string_view text = NoteText(note_bytes);
  last_checkpoint_hash_ = CheckpointHash(text);
  last_checkpoint_size_ = size;
  auto note = ParseNote(note_bytes);
  auto checkpoint = ParseCheckpoint(text);
  if (!note || !checkpoint || checkpoint->origin != origin_ || checkpoint->size != size ||
      size != tree_.size()) {
    Add(LogFault::kCheckpointFormat, size,
        fmt::format("the checkpoint at {} is not one of this log at that size", size));
    return;
  }
  // One changed body changes every later root: said once.
  const bool root_differs = checkpoint->root != tree_.Root();
  if (root_differs && !in_other_root_run_) {
    Add(LogFault::kRoot, size,
        fmt::format("from the checkpoint at {} on the roots are others", size));
  }
  in_other_root_run_ = root_differs;
  report_.latest = std::move(*checkpoint);
  auto verified = VerifyNote(*note, keys_);
  if (!verified) {
    Add(LogFault::kSignature, size,
        fmt::format("the checkpoint at {}: {}", size, verified.error().message()));
    return;
  }
  bool ed25519 = false;
  bool p256 = false;
  for (std::size_t i = 0; i < keys_.size(); ++i) {
    if ((*verified)[i]) (keys_[i].ed25519 ? ed25519 : p256) = true;
  }
  if (!ed25519) {
    Add(LogFault::kSignature, size,
        fmt::format("the checkpoint at {} lacks the log key's signature", size));
  }
  // A checkpoint that the agent key signs vouches for everything before it: the run ends.
  if (p256) {
    missing_p256_since_.reset();
  } else {
    ++report_.num_missing_p256;
    if (!missing_p256_since_) missing_p256_since_ = size;
  }
}

Result<LogReport> LogVerifier::Finish() {
  CompareSince();
  if (since_ && !since_compared_) {
    Add(LogFault::kUncovered, since_->size,
        fmt::format("the log has {} entries, the older checkpoint {}: the log was cut",
                    tree_.size(), since_->size));
  }
  if (last_checkpoint_size_ != tree_.size()) {
    Add(LogFault::kUncovered, tree_.size(),
        fmt::format("the newest checkpoint covers {} of {} entries", last_checkpoint_size_,
                    tree_.size()));
  }
  if (missing_p256_since_) {
    Add(LogFault::kMissingP256, *missing_p256_since_,
        fmt::format("from the checkpoint at {} on the agent key's signature is missing",
                    *missing_p256_since_));
  }
  report_.root = tree_.Root();
  for (const Tile& tile : tree_.ChangedTiles()) CompareTile(tile);
  RETURN_IF_ERROR(std::move(read_status_));
  return std::move(report_);
}

}  // namespace keyescrow::agent::audit
