// Journal: joins the store and the audit log. Whatever changes, changes with its log entry, and the
// entry is durable and signed when Append returns.
//
// A release asks first: Append(restore.requested) must have returned before anything is released,
// and the outcome is appended after. The agent key may be dead: its line is then left out, which
// is a finding (Health) and stops nothing. What was committed is told to the systemd journal, where
// there is one; nothing waits for that.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/audit/event.h"
#include "agent/audit/proof.h"
#include "agent/audit/verify.h"
#include "agent/store/escrow_store.h"
#include "agent/store/sqlite_store.h"
#include "agent/usecases/agent_state.h"
#include "agent/usecases/event_counts.h"
#include "envelope/base/clock.h"
#include "envelope/base/random.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/signer.h"

namespace keyescrow::agent {

struct JournalOptions {
  std::string state_dir;
  AgentIdentity identity;              // LoadAgentIdentity
  SecretBytes ed25519_seed;            // LoadEd25519Seed; empty: for reading alone
  envelope::Signer* signer = nullptr;  // not owned; null: checkpoints lack the agent key's line
  Clock* clock = nullptr;              // not owned; null: SystemClock()
  RandomSource* random = nullptr;      // not owned; null: SystemRandom()
  store::SqliteOptions store;
  std::string journald_socket = {};  // where entries are told to the systemd journal; "": nowhere
};

struct AppendReceipt {
  std::uint64_t seq = 0;   // of the first event
  std::uint64_t size = 0;  // of the log after it
  std::string checkpoint;  // the signed note
  bool p256_signed = false;
};

// JournalHealth: what `status` tells of the log without reading it.
struct JournalHealth {
  std::uint64_t size = 0;
  bool p256_missing = false;  // the newest checkpoint lacks the agent key's line: a finding
  std::uint64_t missing_since_size = 0;
  std::string missing_since_time;  // T
  std::string missing_cause;       // an error code's name, or "no_signer"
};

// Settings that name the newest entry of a kind by its number, so that nobody has to look for it.
inline constexpr std::string_view kAnchorSetting = "anchor_seq";
inline constexpr std::string_view kAnchorIntentSetting = "anchor_intent_seq";
inline constexpr std::string_view kAnchorMismatchSetting = "anchor_mismatch_seq";
inline constexpr std::string_view kReleaseSetting = "release_seq";  // a restore.requested

struct ImportResult {
  std::size_t num_added = 0;
  std::size_t num_known = 0;  // events that were imported before
};

struct EventFilter {
  std::uint64_t first = 0;
  std::string key_name;                 // "": any
  std::vector<audit::EventType> types;  // empty: any
  std::optional<std::int64_t> since;    // Unix seconds
  std::optional<std::int64_t> until;
};

// LoggedEvent: `event` is absent where the entry is of a newer version, or damaged.
struct LoggedEvent {
  std::uint64_t seq = 0;
  std::string line;
  Bytes32 leaf_hash{};
  std::optional<audit::Event> event;
};

class Journal {
 public:
  // Open opens the store; the keys are used at the first Append. Errors: SqliteStore::Open's.
  static Result<Journal> Open(JournalOptions options);
  Journal(Journal&&) noexcept;
  Journal& operator=(Journal&&) noexcept;
  ~Journal();

  // Append commits `change` with its events, in order, under one checkpoint. It fills id, source,
  // source_seq, time, boot_id, clock_synced, host, prev_checkpoint, and actor where there is none.
  // Durable when it returns. Blocks for the signer's deadline at most once in this process: a
  // signer that failed is not asked again. Errors: EscrowStore::Commit's; kLogDamaged where the
  // tiles contradict the newest checkpoint; kAgentKeyUnavailable without a seed.
  Result<AppendReceipt> Append(audit::Event event, const store::Change& change = {});
  Result<AppendReceipt> Append(std::vector<audit::Event> events, const store::Change& change = {});

  // AppendAfter is Append where the newest checkpoint still is the one of `checkpoint_hash`; it
  // returns nothing, and changes nothing, where another commit came between.
  Result<std::optional<AppendReceipt>> AppendAfter(const Bytes32& checkpoint_hash,
                                                   audit::Event event);

  // appended tells whether this journal committed anything.
  bool appended() const;

  // ImportEvents merges a file that a restore or drill without state wrote, once (FORMAT.md,
  // "Stateless events"). Errors: kLogDamaged where a line is not such an event, or ends a restore
  // that no line before it asked for; none of the file is then imported.
  Result<ImportResult> ImportEvents(std::string_view file);

  Result<std::string> LatestCheckpoint();  // kNotFound in an empty log
  Result<JournalHealth> Health();
  // Prove returns entry `seq`'s proof in the newest checkpoint, as tlog-proof text with the entry
  // in its extra line. Errors: kNotFound.
  Result<std::string> Prove(std::uint64_t seq);
  // ProveEnvelope is Prove for the entry that escrowed the envelope: NAME.escrow.receipt.
  Result<std::string> ProveEnvelope(const store::EnvelopeRecord& envelope) {
    return Prove(envelope.log_seq);
  }
  Status Events(const EventFilter& filter, const std::function<bool(const LoggedEvent&)>& visit);

  // Counts returns the counts of the newest checkpoint; where an older version wrote it, the log is
  // read, until the next commit.
  Result<EventCounts> Counts();

  // VerifyAll reads the whole log. `envelope_hash` computes the envelope hash of an envelope's
  // bytes: with it every kept envelope is compared with its row and with the entry that escrowed
  // it; findings of that kind are kEntryChain. `since`: the auditor's own older checkpoint (a note,
  // verified here).
  using EnvelopeHash = std::function<Result<Bytes32>(ByteView bytes)>;
  Result<audit::LogReport> VerifyAll(const EnvelopeHash& envelope_hash = nullptr,
                                     std::string_view since = {});

  store::EscrowStore& store();
  // Keys returns the log's verification keys: Ed25519 first, then the agent key.
  const std::vector<audit::NoteKey>& Keys() const;
  const AgentIdentity& identity() const;

 private:
  struct Impl;
  explicit Journal(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// CompleteEvent fills what the process knows: id, time, boot_id, clock_synced, and actor where
// there is none. A restore without state uses it too. Errors: kEntropyUnavailable.
Status CompleteEvent(audit::Event& event, Clock& clock, RandomSource& random);

// StatelessEventName returns keyescrow-restore-<b64u id>.json, the file that holds one event a
// line.
std::string StatelessEventFileName(const Bytes16& id);

}  // namespace keyescrow::agent
