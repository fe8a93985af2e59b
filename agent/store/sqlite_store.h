// SqliteStore: the EscrowStore of one host, in STATE/store.db (WAL, synchronous=FULL, 16 KB pages).
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "agent/store/escrow_store.h"

namespace keyescrow::agent::store {

inline constexpr std::string_view kStoreFileName = "store.db";

struct SqliteOptions {
  // How long a commit waits for other writers; longer than the TPM's deadline, which a writer may
  // spend while it holds the lock.
  std::chrono::milliseconds busy_timeout{30'000};
  // The write-ahead log is folded into the file at close once it is longer than this: shorter
  // makes closing dearer, longer makes opening dearer (it is read whole by the first to open).
  std::int64_t checkpoint_wal_bytes = 512 * 1024;
};

// CheckStateFolder refuses a folder, or a file of the store in it, that is a symbolic link, that
// others can read or write, or that belongs neither to us nor to root.
// Errors: kNotInitialized where there is no folder; kStatePermissions, with the command to run.
Status CheckStateFolder(const std::string& state_dir);
// CheckPrivateFile is the same for one file. Errors: kNotFound, kStatePermissions.
Status CheckPrivateFile(const std::string& path);

class SqliteStore final : public EscrowStore {
 public:
  // Create makes an empty store in a folder of mode 0700 that must exist; an existing store without
  // log entries and envelopes is kept. Errors: kAlreadyInitialized, kStatePermissions, kStore*.
  static Result<std::unique_ptr<SqliteStore>> Create(const std::string& state_dir,
                                                     const SqliteOptions& options = {});
  // Open opens the store and brings an older schema up to date.
  // Errors: kNotInitialized, kStatePermissions, kStoreNewerSchema, kStoreReadOnly (where the schema
  // must be upgraded), kStoreBusy, kStoreDamaged, kStoreUnavailable.
  static Result<std::unique_ptr<SqliteStore>> Open(const std::string& state_dir,
                                                   const SqliteOptions& options = {});
  ~SqliteStore() override;

  Result<LogHead> Commit(const Change& change, const BuildAppend& build) override;
  Status CheckWritable() override;
  Result<LogHead> Head() override;
  Result<Bytes> Tile(unsigned level, std::uint64_t index) override;
  Result<LogEntry> Entry(std::uint64_t seq) override;
  Status Entries(std::uint64_t first, std::string_view key_name,
                 const std::function<bool(const LogEntry&)>& visit) override;
  Status Checkpoints(std::uint64_t first_size,
                     const std::function<bool(std::uint64_t, std::string_view)>& visit) override;
  Status ReadTogether(const std::function<Status()>& body) override;
  Result<std::optional<std::uint64_t>> ImportedSeq(const Bytes16& event_id) override;
  Result<EnvelopeRecord> FindEnvelope(std::string_view key_name,
                                      std::optional<std::uint32_t> version) override;
  Status Envelopes(const EnvelopeQuery& query,
                   const std::function<bool(const EnvelopeRecord&)>& visit) override;
  Result<std::uint32_t> HighestVersion(std::string_view key_name) override;
  Result<std::optional<std::uint32_t>> VersionInUse(std::string_view key_name) override;
  Result<std::vector<RotationRecord>> Rotations(std::string_view key_name) override;
  Result<std::optional<RotationRecord>> OpenRotation(std::string_view key_name) override;
  Result<std::vector<DestroyedRecord>> Destroyed(std::string_view key_name) override;
  Status Scrub() override;
  Status PathSets(std::string_view key_name,
                  const std::function<bool(const PathSetRow&)>& visit) override;
  Result<std::vector<TokenRecord>> Tokens() override;
  Result<TokenRecord> FindToken(std::string_view name) override;
  Result<std::vector<RecoveryKeyRecord>> RecoveryKeys() override;
  Result<RecoveryKeyRecord> FindRecoveryKey(std::string_view name) override;
  Result<std::vector<TrustRecord>> Trust() override;
  Result<TrustRecord> FindTrust(std::string_view thumbprint) override;
  Result<std::vector<PathState>> PathStates(std::string_view key_name) override;
  Result<std::vector<DestinationRecord>> Destinations() override;
  Result<std::vector<PolicyRecord>> Policies(std::size_t limit) override;
  Result<std::vector<PolicyFile>> PolicyFiles(std::uint64_t serial) override;
  Result<std::vector<FingerprintRecord>> Fingerprints(std::string_view key_name) override;
  Result<std::optional<FingerprintRecord>> FindFingerprint(std::string_view key_name,
                                                           std::uint32_t version) override;
  Result<std::vector<GateOverrideRecord>> GateOverrides() override;
  Result<std::vector<ForeignEscrowRecord>> ForeignEscrows() override;
  Result<std::vector<LuksBindingRecord>> LuksBindings(std::string_view key_name) override;
  Result<std::optional<std::string>> GetSetting(std::string_view name) override;

 private:
  static Error DestroyedError(std::string_view key_name, std::uint32_t version);
  struct Impl;
  explicit SqliteStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace keyescrow::agent::store
