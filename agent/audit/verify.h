// Verification of a whole log: every body is hashed, every checkpoint compared and its signatures
// checked, in one pass and constant memory. Nothing is taken from the store on trust.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/audit/checkpoint.h"
#include "agent/audit/merkle.h"
#include "agent/audit/note.h"
#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent::audit {

enum class LogFault : std::uint8_t {
  kLeafHash,          // the leaf hash that is kept is not the body's
  kSequence,          // an entry is missing, doubled or out of order
  kEntryFormat,       // a body is not an event of FORMAT.md
  kEntryChain,        // source_seq or prev_checkpoint contradicts the entry's place
  kRoot,              // a checkpoint's root is not that of the bodies
  kCheckpointFormat,  // a checkpoint does not parse or is of another origin or size
  kSignature,         // a known key's line does not verify, or the Ed25519 line is missing
  kUncovered,         // entries after the last checkpoint, or a checkpoint past the last entry
  kTile,              // a tile contradicts the bodies
  kMissingP256,       // the newest P-256 lines are missing: a finding, not damage
};
std::string_view LogFaultName(LogFault fault);  // e.g. "missing_p256"

struct LogFinding {
  LogFault fault{};
  std::uint64_t position = 0;  // entry's index, or checkpoint's size
  std::string text;            // lower case, no full stop
};

struct LogReport {
  std::uint64_t num_entries = 0;
  std::uint64_t num_checkpoints = 0;
  std::uint64_t num_missing_p256 = 0;
  Bytes32 root{};                    // of the bodies
  std::optional<Checkpoint> latest;  // the last checkpoint that parsed
  std::vector<LogFinding> findings;  // at most kMaxFindings; roots once a run; missing P-256 lines
                                     // once, while they last
  std::uint64_t num_findings = 0;    // all of them

  // Intact: nothing but missing P-256 lines was found.
  bool Intact() const { return num_damages == 0; }
  std::uint64_t num_damages = 0;
};

inline constexpr std::size_t kMaxFindings = 100;

// LogVerifier is fed checkpoints and entries in order: Entry for each index, and Checkpoint as soon
// as `size` entries were fed; then Finish.
class LogVerifier {
 public:
  // The Ed25519 key of `keys` named `origin` is required of each checkpoint; P-256 lines that are
  // missing are a finding until a later checkpoint has one. Where `read` is given, every tile is
  // compared too.
  LogVerifier(std::string origin, std::vector<NoteKey> keys, TileReader read = nullptr);
  void Entry(std::uint64_t seq, ByteView bytes, const Bytes32& kept_leaf_hash);
  void Checkpoint(std::uint64_t size, std::string_view note);
  // Finish compares what is left and reports. Errors: those of `read` but kLogDamaged.
  Result<LogReport> Finish();
  // SinceCheckpoint makes Finish check that the auditor's own older checkpoint is a prefix: its
  // root is compared when its size is reached. Call before the first Entry.
  void SinceCheckpoint(const agent::audit::Checkpoint& older) { since_ = older; }

 private:
  void Add(LogFault fault, std::uint64_t position, std::string text);
  void CompareSince();
  void CompareTile(const Tile& tile);

  std::string origin_;
  std::vector<NoteKey> keys_;
  TileReader read_;
  Status read_status_;
  TreeAppender tree_;
  LogReport report_;
  std::optional<Bytes32> last_checkpoint_hash_;  // of the newest checkpoint seen
  std::uint64_t last_checkpoint_size_ = 0;
  std::optional<agent::audit::Checkpoint> since_;
  bool since_compared_ = false;
  std::optional<std::uint64_t> missing_p256_since_;  // size of the run's first checkpoint
  bool in_other_root_run_ = false;
};

}  // namespace keyescrow::agent::audit
