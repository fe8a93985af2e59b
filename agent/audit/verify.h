// Verification of a whole log: every body is hashed, every checkpoint compared and its signatures
// checked. Nothing is taken from the store on trust.
//
// LogJoiner puts segments (segment.h) together that were verified on any thread; LogVerifier does
// the whole in one pass on one thread. Both in constant memory.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/audit/checkpoint.h"
#include "agent/audit/log_faults.h"
#include "agent/audit/merkle.h"
#include "agent/audit/note.h"
#include "agent/audit/segment.h"
#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent::audit {

struct LogReport {
  std::uint64_t num_entries = 0;
  std::uint64_t num_checkpoints = 0;
  std::uint64_t num_signatures = 0;  // of checkpoints, that were verified
  std::uint64_t num_missing_p256 = 0;
  std::uint64_t num_tiles = 0;       // that were compared
  Bytes32 root{};                    // of the bodies
  std::optional<Checkpoint> latest;  // the last checkpoint that parsed
  bool latest_has_p256 = false;
  std::vector<LogFinding> findings;  // at most kMaxFindings; roots once a run; missing P-256 lines
                                     // once, while they last
  std::uint64_t num_findings = 0;    // all of them
  std::uint64_t num_damages = 0;

  // Intact: nothing that IsDamage was found.
  bool Intact() const { return num_damages == 0; }
};

// LogJoiner takes segments in the order of their entries, each but the last one full.
class LogJoiner {
 public:
  explicit LogJoiner(const LogContext& context) : context_(context) {}
  void Add(SegmentResult segment);
  // Finish compares what is left and reports. Where `read` is given, the tiles above the segments'
  // own are compared. Errors: those of `read`.
  Result<LogReport> Finish(const TileReader* read);
  // Root returns the root of all entries so far.
  Bytes32 Root() const;

 private:
  void AddCheckpoint(const CheckpointFacts& facts);
  void CompareSince(const SegmentResult& segment);
  Status CompareTile(const Tile& tile, const TileReader& read);

  const LogContext& context_;
  TreeAppender tiles_;  // its leaves are the roots of the full tiles of 256 entries
  std::vector<Bytes32> open_tile_;
  std::uint64_t size_ = 0;
  std::uint64_t last_checkpoint_size_ = 0;
  bool since_compared_ = false;
  bool in_other_root_run_ = false;
  std::optional<std::uint64_t> missing_p256_since_;  // size of the run's first checkpoint
  LogReport report_;
  LogFindings findings_;
};

// LogVerifier is fed checkpoints and entries in order: Entry for each index, and Checkpoint as soon
// as `size` entries were fed; then Finish.
class LogVerifier {
 public:
  // The Ed25519 key of `keys` named `origin` is required of each checkpoint; P-256 lines that are
  // missing are a finding until a later checkpoint has one. Where `read` is given, every tile is
  // compared too.
  LogVerifier(std::string origin, std::vector<NoteKey> keys, TileReader read = nullptr);
  LogVerifier(const LogVerifier&) = delete;
  LogVerifier& operator=(const LogVerifier&) = delete;
  // Entry returns what LogSegment::Entry does.
  const EventFacts* Entry(std::uint64_t seq, ByteView bytes, const Bytes32& kept_leaf_hash);
  void Checkpoint(std::uint64_t size, std::string_view note);
  // Finish compares what is left and reports. Errors: those of `read` but kLogDamaged.
  Result<LogReport> Finish();
  // SinceCheckpoint makes Finish check that the auditor's own older checkpoint is a prefix: its
  // root is compared when its size is reached. Call before the first Entry.
  void SinceCheckpoint(const agent::audit::Checkpoint& older) { context_.since = older; }

 private:
  const TileReader* Reader() const { return read_ ? &read_ : nullptr; }
  LogSegment& Segment();
  void EndSegment();

  LogContext context_;
  TileReader read_;
  LogJoiner joiner_;
  Status read_status_;
  std::optional<LogSegment> segment_;
  std::optional<Bytes32> checkpoint_before_;
  std::uint64_t num_entries_ = 0;
  LogFindings findings_;
};

}  // namespace keyescrow::agent::audit
