// EscrowStore: where an agent keeps envelopes, registered tokens, trusted agents and its audit log.
//
// Everything that changes goes through Commit: one transaction of rows, log entries, tiles and a
// signed checkpoint, durable when Commit returns. The store computes none of the log's bytes: a
// callback does, inside the transaction, from the log's head as it is there.
// Used from one thread; several processes may have the same store open.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent::store {

// ---- rows

// VersionStanding: what a version counts for. The version in use of a key is the highest one that
// is kEscrowed.
enum class VersionStanding : std::uint8_t {
  kEscrowed,   // in use, or superseded by a higher one
  kRotating,   // its rotation is not confirmed yet
  kAbandoned,  // its rotation was rolled back; it can be restored by its number
  kDestroyed,  // its envelope is gone
};

struct EnvelopeRecord {
  std::string key_name;
  std::uint32_t key_version = 0;
  std::uint32_t revision = 0;
  std::string envelope_id;      // b64u
  Bytes32 sha256{};             // the envelope hash
  std::int64_t created = 0;     // Unix seconds, as all times here
  Bytes bytes;                  // the file; empty in listings
  std::uint64_t log_seq = 0;    // the entry that escrowed it; set by Commit from event_index
  std::size_t event_index = 0;  // which of the commit's events escrows it
  std::optional<Bytes32> path_set = {};  // which paths it is under; read by PathSets alone
  VersionStanding standing = VersionStanding::kEscrowed;  // read by Envelopes alone
};

// PathSetRow: the newest revision of a version, and which paths it is under. None where an older
// version wrote the envelope, or its paths have no digest.
struct PathSetRow {
  std::string_view key_name;  // lasts until the visitor returns
  std::uint32_t key_version = 0;
  std::uint32_t revision = 0;
  std::optional<Bytes32> path_set;
};

struct TokenRecord {
  std::string name;
  std::string uri;     // RFC 7512, path attributes
  std::string module;  // path of the PKCS#11 module
  Bytes spki;
  std::string evidence;  // JSON
  std::int64_t added = 0;
  std::string pin_source = {};  // RFC 7512: absolute path of the file with its PIN, or ""
};

// RecoveryKeyRecord: a registered recovery key.
struct RecoveryKeyRecord {
  std::string name;
  std::string thumbprint;  // RFC 7638, of its public half
  Bytes32 sha256{};        // of `record`
  std::string record;      // JSON, as it was registered
  std::int64_t added = 0;
  std::optional<std::int64_t> retired = {};
  std::optional<std::int64_t> drilled = {};     // when its private half was last opened here
  std::optional<std::uint64_t> drill_seq = {};  // the entry that tells of it
  // Of a change alone: the hash of the record whose place it takes, which must still be there
  // (kStoreBusy); none: the name must be free (kAlreadyExists).
  std::optional<Bytes32> replaces = {};
};

// RecoveryKeyDrill: the private half of the record with that hash was opened.
struct RecoveryKeyDrill {
  std::string name;
  Bytes32 sha256{};
  std::int64_t time = 0;
  std::size_t event_index = 0;  // which of the commit's events tells of it
};

struct TrustRecord {
  std::string thumbprint;
  Bytes spki;
  std::string name;
  std::vector<std::string> hosts;  // patterns; empty: any
  std::vector<std::string> keys;   // patterns; empty: any
  std::int64_t added = 0;
  std::optional<std::int64_t> removed;
};

// PathState: when a path was last proven and last failed. The history is in the log.
struct PathState {
  std::string key_name;
  std::uint32_t key_version = 0;
  std::string path_id;
  std::optional<std::int64_t> proven;
  std::uint32_t proven_revision = 0;  // the envelope's revision that was reopened
  std::optional<std::int64_t> failed;
  std::string failure;                          // an error code's name
  std::string proven_by = {};                   // "backup", "restore" or "drill"
  std::optional<std::uint64_t> proof_seq = {};  // the entry with the signed proof
};

// PathOutcome updates a PathState.
struct PathOutcome {
  std::string key_name;
  std::uint32_t key_version = 0;
  std::uint32_t revision = 0;
  std::string path_id;
  std::int64_t time = 0;
  bool proven = false;
  std::string failure;
  std::string proven_by = {};                   // as PathState
  std::optional<std::size_t> event_index = {};  // which of the commit's events has the proof
};

// DestinationRecord: where a restore left a previous generation (PATH.keyescrow-previous).
struct DestinationRecord {
  std::string path;
  std::string key_name;
  std::uint32_t key_version = 0;
  std::string previous_path;  // "" where nothing was replaced
  std::int64_t time = 0;
};

// PolicyFile: what a policy names and comes with, such as a blocklist.
struct PolicyFile {
  std::string name;
  Bytes bytes;
};

// PolicyRecord: a signed policy as it was set. The one with the greatest serial is in force.
struct PolicyRecord {
  std::uint64_t serial = 0;
  std::string name;
  Bytes32 sha256{};
  std::string text;
  std::string note;     // its signatures
  std::string signers;  // under which it was accepted: threshold and verifier keys, a line each
  std::string next_signers;  // under which the next one is
  std::int64_t set_time = 0;
  std::vector<PolicyFile> files;  // written by Commit; PolicyFiles reads them
};

// FingerprintRecord: a keyed fingerprint of one version's bytes, and where the key was read from
// then.
struct FingerprintRecord {
  // SourceAccess: of the file behind the source.
  struct SourceAccess {
    std::uint32_t uid = 0;
    std::uint32_t gid = 0;
    std::uint32_t mode = 0;  // permission bits
    bool operator==(const SourceAccess&) const = default;
  };
  std::string key_name;
  std::uint32_t key_version = 0;
  Bytes16 mac_key_id{};  // which key of the state folder made `mac`
  Bytes32 mac{};
  std::string machine;                 // MachineId, or ""
  std::string source;                  // absolute path of the file, or ""
  std::optional<SourceAccess> access;  // none where the source was no regular file
  std::int64_t time = 0;
};

// LuksBindingRecord: at which LUKS volume a version is, and what the volume's header was then.
struct LuksBindingRecord {
  struct Keyslot {
    std::uint32_t number = 0;
    Bytes32 hash{};  // KeyslotHash; all zero: it was not seen, the number is what it would get
    bool IsKnown() const { return hash != Bytes32{}; }
  };
  std::string key_name;
  std::uint32_t key_version = 0;
  std::string device;  // absolute path
  std::string uuid;
  Bytes32 volume{};                // LuksHeader::volume
  std::optional<Keyslot> keyslot;  // none: the key is the volume key
  std::int64_t time = 0;
};

// ForeignEscrowRecord: what another tool escrowed, as `import` found it. No byte of a key is in it.
struct ForeignEscrowRecord {
  std::string place;     // absolute path of the file or volume
  std::string item;      // tells several at one place apart: "jwe", "token 3"
  std::string kind;      // "clevis-sss", "systemd-tpm2" …
  std::string volume;    // UUID of the LUKS volume, or ""
  std::string opens_by;  // JSON
  Bytes32 sha256{};      // of the foreign text
  std::int64_t found = 0;
};
struct ForeignEscrowName {
  std::string place;
  std::string item;
};

// GateOverrideRecord: the newest override of the gate for a key.
struct GateOverrideRecord {
  std::string key_name;
  std::uint32_t key_version = 0;
  std::int64_t time = 0;
  std::string reason;
};

// RotationStep: how far a rotation is known to have come; each is durable before what it names.
enum class RotationStep : std::uint8_t {
  kEscrowed,     // the new version is escrowed; nobody else has it
  kProven,       // and a path of it was opened
  kHandingOver,  // the sink or the command may have it, or not
  kHandedOver,   // the command ended well; what stands at the source did not confirm it yet
  kConfirmed,    // the new version is in use
  kAbandoned,    // rolled back: the old version is in use
};
std::string_view RotationStepName(RotationStep step);  // "escrowed", "handing_over" …

// RotationRecord: one rotation, of the version that it made.
struct RotationRecord {
  std::string key_name;
  std::uint32_t key_version = 0;  // the new one
  std::uint32_t old_version = 0;  // the one in use when it began
  RotationStep step = RotationStep::kEscrowed;
  std::string sink;     // SINK, or ""
  std::string command;  // of --apply, or ""
  std::string process;  // which process the command is, while it runs; else ""
  std::int64_t started = 0;
  std::int64_t changed = 0;

  bool IsOpen() const {
    return step != RotationStep::kConfirmed && step != RotationStep::kAbandoned;
  }
};

// Destruction: one version, every revision of it. The commit's event of that number says so.
struct Destruction {
  std::string key_name;
  std::uint32_t key_version = 0;
  std::size_t event_index = 0;
};
struct DestroyedRecord {
  std::string key_name;
  std::uint32_t key_version = 0;
  std::uint64_t log_seq = 0;
};

struct Setting {
  std::string name;
  std::optional<std::string> value;  // none removes it
};

// InUseSeen: which version of a key was in use when the command looked, none where none was.
struct InUseSeen {
  std::string key_name;
  std::optional<std::uint32_t> version;
};

// Change: the rows of one commit. Trust and tokens are replaced by name, removed by name.
struct Change {
  std::vector<InUseSeen> in_use_seen;  // must still hold before the commit, else kAlreadyExists
  std::vector<EnvelopeRecord> envelopes;
  std::vector<TokenRecord> tokens;
  std::vector<std::string> removed_tokens;
  std::vector<RecoveryKeyRecord> recovery_keys;    // new, or in the place of what they replace
  std::vector<std::string> retired_recovery_keys;  // names; the row stays, with removal_time
  std::vector<RecoveryKeyDrill> recovery_key_drills;
  std::vector<TrustRecord> trust;
  std::vector<std::string> removed_trust;  // thumbprints; the row stays, with its time
  std::int64_t removal_time = 0;
  std::vector<PathOutcome> path_outcomes;
  std::vector<DestinationRecord> destinations;
  std::vector<std::string> removed_destinations;     // paths
  std::vector<FingerprintRecord> fingerprints;       // replace those of their name and version
  std::vector<GateOverrideRecord> gate_overrides;    // replace those of their name
  std::vector<LuksBindingRecord> luks_bindings;      // replace those of their name, version, device
  std::vector<ForeignEscrowRecord> foreign_escrows;  // replace those of their place and item
  std::vector<ForeignEscrowName> removed_foreign_escrows;
  std::vector<RotationRecord> rotations;  // replace those of their name and version
  std::vector<Destruction> destructions;
  std::vector<Setting> settings;
  std::vector<PolicyRecord> policies;  // serials above all that are there
};

// ---- the log

struct LogHead {
  std::uint64_t size = 0;
  std::string checkpoint;             // the signed note; "" in an empty log
  bool p256_signed = true;            // whether it carries the agent key's line
  std::optional<std::string> counts;  // of events; none where an older version wrote the checkpoint
  std::optional<int> migrated_from;   // a migration of the schema that the log does not tell yet
};

struct NewEntry {
  Bytes bytes;
  Bytes32 leaf_hash{};
  std::string key_name;                // for searches; "" for none
  std::optional<Bytes16> imported_id;  // makes the import of an event idempotent
};

struct TileRow {
  unsigned level = 0;
  std::uint64_t index = 0;
  Bytes bytes;
};

struct LogAppend {
  std::vector<NewEntry> entries;  // numbered from the head's size
  std::vector<TileRow> tiles;     // replaced whole
  std::string checkpoint;
  bool p256_signed = false;
  std::string counts;
  std::vector<Setting> settings;
  bool clears_migration = false;
};

using ReadTile = std::function<Result<Bytes>(unsigned level, std::uint64_t index)>;
// BuildAppend computes the log's part of a commit; it runs inside the transaction, with the write
// lock held. An error rolls everything back. An append without entries commits nothing.
using BuildAppend = std::function<Result<LogAppend>(const LogHead& head, const ReadTile& tile)>;

struct LogEntry {
  std::uint64_t seq = 0;
  Bytes bytes;
  Bytes32 leaf_hash{};
};

// ---- the store

class EscrowStore {
 public:
  virtual ~EscrowStore() = default;

  // Commit returns the new head once it is durable. Blocks up to the busy timeout for other
  // writers. Errors: kStoreBusy, kStoreFull, kStoreReadOnly, kStoreUnavailable, kStoreDamaged,
  // kAlreadyExists (an envelope of that name, version and revision; another version came into use
  // than the change saw); those of `build`.
  virtual Result<LogHead> Commit(const Change& change, const BuildAppend& build) = 0;

  // CheckWritable says whether a commit could succeed now: not read-only, not full, not held by
  // another. Errors: kStoreReadOnly, kStoreFull, kStoreBusy.
  virtual Status CheckWritable() = 0;

  virtual Result<LogHead> Head() = 0;
  virtual Result<Bytes> Tile(unsigned level, std::uint64_t index) = 0;
  virtual Result<LogEntry> Entry(std::uint64_t seq) = 0;  // kNotFound
  // Entries calls `visit` for entries from `first` on, in order, of `key_name` alone unless it is
  // empty, until it returns false. Constant memory; sees one state of the log. No listing may be
  // started again from its own callback.
  virtual Status Entries(std::uint64_t first, std::string_view key_name,
                         const std::function<bool(const LogEntry&)>& visit) = 0;
  virtual Status Checkpoints(std::uint64_t first_size,
                             const std::function<bool(std::uint64_t, std::string_view)>& visit) = 0;
  // ReadTogether runs `body` in one read transaction: all reads in it see one state.
  virtual Status ReadTogether(const std::function<Status()>& body) = 0;
  virtual Result<std::optional<std::uint64_t>> ImportedSeq(const Bytes16& event_id) = 0;

  // FindEnvelope returns the highest revision of a version; of the version in use where none is
  // given. Errors: kKeyNotFound, kVersionNotFound; kNotFound where it was destroyed.
  virtual Result<EnvelopeRecord> FindEnvelope(std::string_view key_name,
                                              std::optional<std::uint32_t> version) = 0;
  // Envelopes calls `visit` for the highest revision of every version of every key, or with
  // `all_revisions` for every row; ordered by name, version, revision. `with_bytes` fills bytes.
  struct EnvelopeQuery {
    std::string key_name;  // "": all
    bool all_revisions = false;
    bool with_bytes = false;
    bool with_destroyed = false;  // without, versions that were destroyed are left out
  };
  virtual Status Envelopes(const EnvelopeQuery& query,
                           const std::function<bool(const EnvelopeRecord&)>& visit) = 0;

  // HighestVersion of a key, destroyed ones too; 0 where there is none.
  virtual Result<std::uint32_t> HighestVersion(std::string_view key_name) = 0;
  // VersionInUse is that of FindEnvelope; none where the key has no version that is in use.
  virtual Result<std::optional<std::uint32_t>> VersionInUse(std::string_view key_name) = 0;

  // Rotations ordered by name and version, of every key for "". OpenRotation is the one under way.
  virtual Result<std::vector<RotationRecord>> Rotations(std::string_view key_name) = 0;
  virtual Result<std::optional<RotationRecord>> OpenRotation(std::string_view key_name) = 0;
  // Destroyed versions ordered by name and version, of every key for "".
  virtual Result<std::vector<DestroyedRecord>> Destroyed(std::string_view key_name) = 0;
  // Scrub removes what rows that were emptied or deleted left in the store's files; it writes the
  // whole store anew. Errors: kStoreBusy while another process reads; kStoreFull.
  virtual Status Scrub() = 0;

  // PathSets reads no envelope: of every version of every key, or of one key, in the order of
  // Envelopes.
  virtual Status PathSets(std::string_view key_name,
                          const std::function<bool(const PathSetRow&)>& visit) = 0;

  virtual Result<std::vector<TokenRecord>> Tokens() = 0;
  virtual Result<TokenRecord> FindToken(std::string_view name) = 0;   // kTokenNotRegistered
  virtual Result<std::vector<RecoveryKeyRecord>> RecoveryKeys() = 0;  // retired ones too
  virtual Result<RecoveryKeyRecord> FindRecoveryKey(std::string_view name) = 0;  // kNotFound
  virtual Result<std::vector<TrustRecord>> Trust() = 0;                          // removed ones too
  // FindTrust returns the row of a thumbprint that was not removed. Errors: kNotFound.
  virtual Result<TrustRecord> FindTrust(std::string_view thumbprint) = 0;
  virtual Result<std::vector<PathState>> PathStates(std::string_view key_name) = 0;  // "": all
  virtual Result<std::vector<DestinationRecord>> Destinations() = 0;
  // Policies returns the newest `limit` ones, all for 0, the one in force first; without files.
  virtual Result<std::vector<PolicyRecord>> Policies(std::size_t limit) = 0;
  virtual Result<std::vector<PolicyFile>> PolicyFiles(std::uint64_t serial) = 0;
  // Fingerprints of every version, ordered by name and version. "": of all keys.
  virtual Result<std::vector<FingerprintRecord>> Fingerprints(std::string_view key_name) = 0;
  virtual Result<std::optional<FingerprintRecord>> FindFingerprint(std::string_view key_name,
                                                                   std::uint32_t version) = 0;
  virtual Result<std::vector<GateOverrideRecord>> GateOverrides() = 0;
  // ForeignEscrows, ordered by place and item.
  virtual Result<std::vector<ForeignEscrowRecord>> ForeignEscrows() = 0;
  // LuksBindings, ordered by name, version and device. "": of all keys.
  virtual Result<std::vector<LuksBindingRecord>> LuksBindings(std::string_view key_name) = 0;
  virtual Result<std::optional<std::string>> GetSetting(std::string_view name) = 0;
};

}  // namespace keyescrow::agent::store
