#include "agent/usecases/backup_batch.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>

#include "agent/key_locations/key_location.h"
#include "agent/usecases/enroll.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/policy_checks.h"
#include "agent/usecases/recovery_keys.h"
#include "agent/usecases/registered_recovery_key.h"
#include "agent/usecases/worker_threads.h"

namespace keyescrow::agent {
namespace {

// A commit costs the disk a flush; so many keys share one. What a power cut takes from a run is
// this many at most, and none of them was acknowledged.
constexpr std::size_t kKeysPerCommit = 64;

// What is read and waits for a thread lies in locked memory, of which a process may have little.
constexpr std::size_t kSecretBytesAtOnce = 1024;

// SharedSigner and SharedRandom lend to several threads what is made for one: a TPM takes one
// command at a time.
class SharedSigner final : public envelope::Signer {
 public:
  explicit SharedSigner(envelope::Signer& signer) : signer_(signer) {}
  const P256Point& PublicKey() const override { return signer_.PublicKey(); }
  Result<Bytes64> SignDigest(const Bytes32& digest) override {
    const std::lock_guard lock(mutex_);
    return signer_.SignDigest(digest);
  }

 private:
  envelope::Signer& signer_;
  std::mutex mutex_;
};

class SharedRandom final : public RandomSource {
 public:
  explicit SharedRandom(RandomSource& random) : random_(random) {}
  Status Fill(std::span<std::uint8_t> bytes) override {
    const std::lock_guard lock(mutex_);
    return random_.Fill(bytes);
  }

 private:
  RandomSource& random_;
  std::mutex mutex_;
};

}  // namespace

Result<UnattendedBackup> UnattendedBackup::Begin(Agent& agent, std::function<void()> sealing,
                                                 Done done) {
  ASSIGN_OR_RETURN(const PolicyInForce* const in_force, agent.Policy());
  ASSIGN_OR_RETURN(auto trust, TrustFor(&agent, "", false));
  ASSIGN_OR_RETURN(Fingerprinter fingerprinter, Fingerprinter::Ensure(agent.environment().state_dir,
                                                                      *agent.environment().random));
  return UnattendedBackup(agent, std::move(sealing), std::move(done), in_force, std::move(trust),
                          std::move(fingerprinter));
}

bool UnattendedBackup::Takes(const std::vector<envelope::PathOption>& paths) {
  return std::all_of(paths.begin(), paths.end(), [](const envelope::PathOption& option) {
    return option.expression.Has(envelope::FactorKind::kRecoveryKey);
  });
}

Result<const UnattendedBackup::Registered*> UnattendedBackup::Find(
    const envelope::PathOption& option) {
  const std::string& name = option.expression.factors.front().name;
  for (const auto& known : registered_) {
    if (known->row.name == name) return known.get();
  }
  RETURN_IF_ERROR(CheckPaths(*agent_, {option}));  // it may have been retired meanwhile
  auto found = std::make_unique<Registered>();
  ASSIGN_OR_RETURN(found->row, agent_->store().FindRecoveryKey(name));
  ASSIGN_OR_RETURN(found->key, ReadRegistered(found->row));
  ASSIGN_OR_RETURN(const RecoveryKeyState state, DescribeRecoveryKey(found->row));
  found->portable = state.portable;
  ASSIGN_OR_RETURN(found->facts, PlannedFacts(*agent_, option, {}));
  return registered_.emplace_back(std::move(found)).get();
}

Result<UnattendedBackup::Prepared> UnattendedBackup::Prepare(const Wanted& wanted) {
  Agent& agent = *agent_;
  const std::string& key_name = wanted.key_name;
  std::vector<policy::PathFacts> planned;
  for (const envelope::PathOption& option : wanted.paths) {
    ASSIGN_OR_RETURN(const Registered* const registered, Find(option));
    policy::PathFacts& path = planned.emplace_back(registered->facts);
    path.id = option.id;
    path.expression = option.expression;
  }
  facts_.now = agent.Now();
  ASSIGN_OR_RETURN(const auto reported, CheckPlan(agent, facts_, key_name, std::move(planned)));
  ASSIGN_OR_RETURN(const auto location, ParseLocation(wanted.source));
  Prepared prepared;
  ASSIGN_OR_RETURN(prepared.content, location->Read());
  const std::int64_t now = agent.Now();
  envelope::EnvelopeDraft& draft = prepared.draft;
  ASSIGN_OR_RETURN(draft.envelope_id, envelope::NewEnvelopeId(*agent.environment().random));
  draft.policy = in_force_->policy.name;
  draft.key_name = key_name;
  ASSIGN_OR_RETURN(draft.key_version, NextKeyVersion(agent, key_name));
  draft.host = agent.identity().host;
  draft.created = FormatUtc(now);
  draft.updated = draft.created;
  if (!wanted.note.empty()) draft.note = wanted.note;
  BackupResult& result = prepared.result;
  for (const envelope::PathOption& option : wanted.paths) {
    ASSIGN_OR_RETURN(const Registered* const registered, Find(option));
    envelope::EnrolledPath& path = prepared.paths.emplace_back();
    path.id = option.id;
    path.recovery_key = registered->key;
    PathProof& proof = result.paths.emplace_back();
    proof.path_id = option.id;
    proof.expression = envelope::FormatPathExpression(option.expression);
    proof.portable = registered->portable;
    ASSIGN_OR_RETURN(proof.covered_since,
                     CoveredSince(agent, registered->row, key_name, option.id));
    proof.why_not = CoverText(registered->row, proof.covered_since);
    result.covered = result.covered || (proof.portable && proof.covered_since);
  }
  prepared.fingerprint = MakeFingerprint(agent, fingerprinter_, key_name, draft.key_version,
                                         prepared.content, location->FilePath());
  prepared.fingerprint.time = now;
  ASSIGN_OR_RETURN(prepared.succession,
                   FindSuccession(agent, key_name, draft.key_version, prepared.content,
                                  fingerprinter_, std::nullopt));
  result.key_name = key_name;
  result.key_version = draft.key_version;
  result.envelope_id = draft.envelope_id;
  result.findings = FindingTexts(reported);
  if (!result.Recoverable()) result.findings.push_back(NotRecoverable(result.paths));
  return prepared;
}

Result<UnattendedBackup::Sealed> UnattendedBackup::Seal(Prepared prepared, envelope::Signer& signer,
                                                        RandomSource& random) const {
  ASSIGN_OR_RETURN(envelope::SealedBytes sealed, envelope::Seal(prepared.draft, prepared.paths,
                                                                prepared.content, signer, random));
  ASSIGN_OR_RETURN(auto read_back,
                   envelope::SealedEnvelope::Read(AsBytes(sealed.file), trust_, &sealed.parsed));
  prepared.result.envelope_hash = sealed.hash;
  prepared.result.thumbprint = read_back.header().agent;
  return Sealed{std::move(sealed), std::move(read_back), std::move(prepared.fingerprint),
                std::move(prepared.succession), std::move(prepared.result)};
}

std::vector<Result<UnattendedBackup::Sealed>> UnattendedBackup::SealThese(
    std::vector<Result<Prepared>> prepared) const {
  SharedSigner signer(agent_->signer());
  SharedRandom random(*agent_->environment().random);
  std::vector<std::optional<Result<Sealed>>> sealed(prepared.size());
  std::atomic<std::size_t> next = 0;
  const auto seal_some = [&](unsigned) -> Status {
    for (std::size_t index = next++; index < prepared.size(); index = next++) {
      sealed[index] = prepared[index] ? Seal(*std::move(prepared[index]), signer, random)
                                      : Result<Sealed>(prepared[index].error());
    }
    return Ok();
  };
  const auto num_threads =
      static_cast<unsigned>(std::min<std::size_t>(NumProcessors(), prepared.size()));
  const Status all = num_threads > 1 ? RunThreads(num_threads, seal_some, [] {}) : seal_some(0);
  std::vector<Result<Sealed>> results;
  for (auto& one : sealed) {
    results.push_back(one ? *std::move(one) : Result<Sealed>(all.error()));  // its thread failed
  }
  return results;
}

Status UnattendedBackup::Add(const DeclaredKey& key, std::vector<envelope::PathOption> paths,
                             const std::string& note) {
  wanted_.push_back({key.name, key.source, std::move(paths), note});
  return wanted_.size() < kKeysPerCommit ? Ok() : Flush();
}

std::vector<UnattendedBackup::Pending> UnattendedBackup::SealAll() {
  const std::vector<Wanted> wanted = std::exchange(wanted_, {});
  registered_.clear();  // a record that changes while the batch lasts is the next one's
  std::vector<Pending> pending;
  const Status read = agent_->store().ReadTogether([&]() -> Status {
    ASSIGN_OR_RETURN(facts_, GatherFacts(*agent_));
    std::vector<Result<Prepared>> prepared;
    std::size_t secret_bytes = 0;
    for (const Wanted& one : wanted) {
      sealing_();
      const auto& last = prepared.emplace_back(Prepare(one));
      secret_bytes += last ? last->content.size() : 0;
      if (secret_bytes < kSecretBytesAtOnce && &one != &wanted.back()) continue;
      for (auto& sealed : SealThese(std::exchange(prepared, {}))) {
        pending.push_back({wanted[pending.size()].key_name, std::move(sealed)});
      }
      secret_bytes = 0;
    }
    return Ok();
  });
  for (std::size_t index = pending.size(); index < wanted.size(); ++index) {
    pending.push_back({wanted[index].key_name, read.error()});
  }
  return pending;
}

Status UnattendedBackup::Commit(std::span<Pending> pending) {
  std::vector<audit::Event> events;
  store::Change change;
  std::vector<std::size_t> positions;
  for (const Pending& item : pending) {
    positions.push_back(events.size());
    if (!item.sealed) continue;
    AddEscrow({&item.sealed->bytes, &item.sealed->read_back, in_force_, item.sealed->fingerprint,
               item.sealed->succession},
              events, change);
  }
  if (events.empty()) return Ok();
  ASSIGN_OR_RETURN(const AppendReceipt receipt,
                   agent_->journal().Append(std::move(events), change));
  for (std::size_t index = 0; index < pending.size(); ++index) {
    if (!pending[index].sealed) continue;
    BackupResult& result = pending[index].sealed->result;
    result.log_seq = receipt.seq + positions[index];
    result.p256_signed = receipt.p256_signed;
    if (!result.p256_signed) {
      result.findings.push_back(
          "the log's checkpoint lacks the agent key's signature: see 'keyescrow doctor'");
    }
  }
  return Ok();
}

void UnattendedBackup::CommitAll(std::span<Pending> pending) {
  if (!failure_) {
    Status committed = Commit(pending);
    if (committed) return;
    if (committed.error().code() != ErrorCode::kAlreadyExists) {
      failure_ = std::move(committed).error();
    }
  }
  // Another backup wrote one of these versions meanwhile: the others do not suffer for it.
  for (Pending& item : pending) {
    if (!item.sealed) continue;
    Status alone = failure_ ? Status(*failure_) : Commit(std::span(&item, 1));
    if (alone) continue;
    if (alone.error().code() == ErrorCode::kAlreadyExists) {
      item.sealed =
          Error(ErrorCode::kStoreBusy, Action::kRetry,
                "another backup wrote this version of " + item.key_name + " in this moment",
                "run the command again");
      continue;
    }
    failure_ = alone.error();
    item.sealed = std::move(alone).error();
  }
}

Status UnattendedBackup::Flush() {
  if (wanted_.empty()) return Ok();
  std::vector<Pending> pending = SealAll();
  CommitAll(pending);
  for (Pending& item : pending) {
    if (item.sealed) {
      RETURN_IF_ERROR(done_(item.key_name, std::move(item.sealed->result)));
    } else {
      RETURN_IF_ERROR(done_(item.key_name, std::move(item.sealed).error()));
    }
  }
  return Ok();
}

}  // namespace keyescrow::agent
