// Unattended backups: keys whose every path goes to a recovery key. No factor is needed, nobody is
// asked, and many of them are one commit.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "agent/store/escrow_store.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/backup.h"
#include "agent/usecases/fingerprint.h"
#include "agent/usecases/policy_in_force.h"
#include "agent/usecases/succession.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {

// ---- what backup shares with it

// ChoosePaths returns the paths of a backup: those given, the declaration's, those that the policy
// requires, the defaults, or those of the newest version. Errors: kUsage where there are none,
// ParsePathOptions', CheckPaths'.
Result<std::vector<envelope::PathOption>> ChoosePaths(Agent& agent, const std::string& key_name,
                                                      const std::vector<std::string>& given);

// EscrowEntry: an envelope that is sealed, signed and read back.
struct EscrowEntry {
  const envelope::SealedBytes* sealed;
  const envelope::SealedEnvelope* read_back;
  const PolicyInForce* in_force;
  const store::FingerprintRecord& fingerprint;
  const Succession& succession;
};
// AddEscrow adds its rows and events to a commit.
void AddEscrow(const EscrowEntry& entry, std::vector<audit::Event>& events, store::Change& change);

// NotRecoverable tells why nothing is known to open.
std::string NotRecoverable(const std::vector<PathProof>& paths);

// ---- batches

// UnattendedBackup takes one declared key after the other, and seals and commits many at a time.
// Results come out in their order once they are durable; memory does not grow with the number of
// keys.
class UnattendedBackup {
 public:
  using Done = std::function<Status(const std::string& key_name, Result<BackupResult> result)>;

  // `agent` outlives it. `sealing` is told before each key is read. Errors: those of the policy,
  // the trust and fingerprint.key.
  static Result<UnattendedBackup> Begin(Agent& agent, std::function<void()> sealing, Done done);

  // Takes: every one of these paths goes to a recovery key.
  static bool Takes(const std::vector<envelope::PathOption>& paths);

  // Add takes the key; what is wrong with it is its result. Errors: those of `done`. Many keys are
  // sealed at a time, and committed while the next ones are.
  Status Add(const DeclaredKey& key, std::vector<envelope::PathOption> paths,
             const std::string& note);
  // Flush seals and commits what was added, and tells each result: where the store fails, that of
  // each key that was not committed is the store's error, and of those that were the receipt.
  // Errors: those of `done`.
  Status Flush();
  // has_failed: a commit failed. Nothing is committed after that.
  bool has_failed() const { return failure_.has_value(); }

 private:
  // Wanted: a key that was added.
  struct Wanted {
    std::string key_name;
    std::string source;
    std::vector<envelope::PathOption> paths;
    std::string note;
  };
  // Prepared: a key that was read, and all that the store and the policy say of it.
  struct Prepared {
    envelope::EnvelopeDraft draft;
    std::vector<envelope::EnrolledPath> paths;
    SecretBytes content;
    store::FingerprintRecord fingerprint;
    Succession succession;
    BackupResult result;
  };
  struct Sealed {
    envelope::SealedBytes bytes;
    envelope::SealedEnvelope read_back;
    store::FingerprintRecord fingerprint;
    Succession succession;
    BackupResult result;
  };
  // Pending: a key whose result is not told yet: sealed and not durable, or an error.
  struct Pending {
    Wanted wanted;
    Result<Sealed> sealed;
  };
  class SealQueue;
  // RecoveryKey: a registered one, read once.
  struct Registered {
    store::RecoveryKeyRecord row;
    envelope::RecoveryKey key;
    policy::PathFacts facts;  // of a path to it
    bool portable = false;
  };
  UnattendedBackup(Agent& agent, std::function<void()> sealing, Done done,
                   const PolicyInForce* in_force, envelope::ReadOptions trust,
                   Fingerprinter fingerprinter)
      : agent_(&agent),
        sealing_(std::move(sealing)),
        done_(std::move(done)),
        in_force_(in_force),
        trust_(std::move(trust)),
        fingerprinter_(std::move(fingerprinter)) {}
  Result<const Registered*> Find(const envelope::PathOption& option);
  Result<Prepared> Prepare(const Wanted& wanted);
  // Seal asks neither the store nor the clock: several threads seal at once.
  Result<Sealed> Seal(Prepared prepared, envelope::Signer& signer, RandomSource& random) const;
  // SealAll seals what was added, all of it over one state of the store, and meanwhile commits what
  // was sealed before it, on as many threads as there are processors and this one.
  std::vector<Pending> SealAll(std::span<Pending> before);
  // Commit makes the sealed ones of `pending` durable together.
  Status Commit(std::span<Pending> pending);
  // CommitAll commits them; what could not be gets its error.
  void CommitAll(std::span<Pending> pending);
  // Again seals and commits a key of which another command wrote this version meanwhile.
  Status Again(Pending& item);
  Status Tell(std::vector<Pending> pending);
  // Step takes a batch on: what was added is sealed, what was sealed is committed and told.
  Status Step();

  Agent* agent_;
  std::function<void()> sealing_;
  Done done_;
  const PolicyInForce* in_force_;
  envelope::ReadOptions trust_;
  Fingerprinter fingerprinter_;
  policy::Facts facts_;  // as the batch found them, as `registered_` is
  std::vector<std::unique_ptr<Registered>> registered_;
  std::vector<Wanted> wanted_;
  std::vector<Pending> pending_;
  std::optional<Error> failure_;
};

}  // namespace keyescrow::agent
