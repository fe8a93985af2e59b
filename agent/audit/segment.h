// A log is verified in segments, each by itself and on any thread: bodies, shapes, chain, tiles and
// signatures. LogJoiner then takes the segments in order and compares every root.
//
// A segment knows the tree to its own left edge alone: of each checkpoint it keeps the root of the
// segment's own leaves below it, and the joiner folds what lies to the left onto that.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/audit/checkpoint.h"
#include "agent/audit/event_facts.h"
#include "agent/audit/log_faults.h"
#include "agent/audit/merkle.h"
#include "agent/audit/note.h"

namespace keyescrow::agent::audit {

// A segment begins at a multiple of this many entries.
inline constexpr std::uint64_t kSegmentEntries = 16 * kTileWidth;

// LogContext: what all segments share; it outlives them.
struct LogContext {
  std::string origin;
  std::vector<NoteKey> keys;
  std::optional<Checkpoint> since;  // the auditor's own older checkpoint
  // Signatures are verified of the checkpoints of at least this size; of all where it is 0.
  std::uint64_t signatures_from = 0;
};

struct CheckpointFacts {
  std::uint64_t size = 0;
  Bytes32 kept_root{};     // as the checkpoint says
  Bytes32 segment_root{};  // of the segment's leaves below it
  bool has_p256 = false;   // the line verified, or where signatures are not checked, is there
  bool verified = false;   // the Ed25519 line verified
};

struct SegmentResult {
  std::uint64_t first = 0;
  std::uint64_t num_entries = 0;
  std::uint64_t num_checkpoints = 0;
  std::uint64_t num_signatures = 0;  // that were verified
  std::vector<Bytes32> tile_roots;   // of the full tiles of 256
  std::vector<Bytes32> open_tile;    // the leaves past them
  std::vector<CheckpointFacts> checkpoints;
  std::optional<Bytes32> since_root;  // where LogContext::since's size lies here
  std::optional<Bytes32> last_checkpoint_hash;
  std::uint64_t last_checkpoint_size = 0;
  LogFindings findings;
};

// LogSegment is fed the entries from `first` on and, as soon as `size` entries precede it, each
// checkpoint. Used from one thread.
class LogSegment {
 public:
  // `checkpoint_before` is the hash of the newest checkpoint of at most `first` entries. Where
  // `read` is given, the tiles of the segment are compared.
  LogSegment(const LogContext& context, std::uint64_t first,
             std::optional<Bytes32> checkpoint_before, const TileReader* read = nullptr);

  // Entry returns the entry's facts, null where it is none that this version reads; they last until
  // the next call. Entries that are missing before it are a finding, and their place is kept.
  const EventFacts* Entry(std::uint64_t seq, ByteView bytes, ByteView kept_leaf_hash);
  void Checkpoint(std::uint64_t size, std::string_view note);
  // SkipTo keeps the places of missing entries up to `seq`; a finding where there are any.
  void SkipTo(std::uint64_t seq);
  // Finish ends the segment. Errors: those of `read`.
  Result<SegmentResult> Finish();

 private:
  std::uint64_t Position() const { return result_.first + num_leaves_; }
  Bytes32 SegmentRoot() const;
  void AppendLeaf(const Bytes32& leaf_hash);
  void CompareTile();
  void CompareFacts(std::uint64_t seq, const EventFacts& facts);
  void NoteSince();
  void VerifySignatures(std::string_view note_bytes, CheckpointFacts& facts);

  const LogContext& context_;
  const TileReader* read_;
  Status read_status_;
  SegmentResult result_;
  std::uint64_t num_leaves_ = 0;
  // The newest run of missing entries: where it begins and ends, and its finding where it was kept.
  std::uint64_t missing_from_ = 0;
  std::uint64_t missing_to_ = 0;
  std::optional<std::size_t> missing_finding_;
  CompactRange tiles_;   // over the segment's full tiles
  CompactRange leaves_;  // of the open tile
  std::optional<Bytes32> last_checkpoint_hash_;
  EventReader reader_;
  EventFacts facts_;
};

}  // namespace keyescrow::agent::audit
