#include "agent/usecases/backup_batch.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
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

// IsSlow: it runs a program or waits for somebody, and what was sealed shall not wait for that.
bool IsSlow(std::string_view source) {
  return source == "-" || source.starts_with("exec:") || source.starts_with("luks:");
}

}  // namespace

// SealQueue: what was prepared and waits to be sealed.
class UnattendedBackup::SealQueue {
 public:
  struct Item {
    std::size_t index;
    Prepared prepared;
  };

  void Put(std::size_t index, Prepared prepared) {
    const std::lock_guard lock(mutex_);
    secret_bytes_ += prepared.content.size();
    items_.push_back({index, std::move(prepared)});
    changed_.notify_one();
  }
  // Take returns an item once there is one, nothing once the queue is closed and empty.
  std::optional<Item> Take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return is_closed_ || !items_.empty(); });
    return TakeFirst();
  }
  // TakeSurplus returns an item where more secrets wait than may.
  std::optional<Item> TakeSurplus() {
    const std::lock_guard lock(mutex_);
    return secret_bytes_ > kSecretBytesAtOnce ? TakeFirst() : std::nullopt;
  }
  void Close() {
    const std::lock_guard lock(mutex_);
    is_closed_ = true;
    changed_.notify_all();
  }

 private:
  std::optional<Item> TakeFirst() {
    if (items_.empty()) return std::nullopt;
    Item item = std::move(items_.front());
    items_.pop_front();
    secret_bytes_ -= item.prepared.content.size();
    return item;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> items_;
  std::size_t secret_bytes_ = 0;
  bool is_closed_ = false;
};

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
    ASSIGN_OR_RETURN(proof.why_not, CoverText(agent, registered->row, proof.covered_since));
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
  if (!prepared.succession.finding.empty()) {
    result.findings.push_back(prepared.succession.finding);
  }
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

Status UnattendedBackup::Add(const DeclaredKey& key, std::vector<envelope::PathOption> paths,
                             const std::string& note) {
  wanted_.push_back({key.name, key.source, std::move(paths), note});
  return wanted_.size() < kKeysPerCommit ? Ok() : Step();
}

std::vector<UnattendedBackup::Pending> UnattendedBackup::SealAll(std::span<Pending> before) {
  std::vector<Wanted> wanted = std::exchange(wanted_, {});
  registered_.clear();  // a record that changes while the batch lasts is the next one's
  std::vector<std::optional<Result<Sealed>>> sealed(wanted.size());
  SealQueue queue;
  const auto seal = [&](SealQueue::Item item) {
    sealed[item.index] =
        Seal(std::move(item.prepared), agent_->signer(), *agent_->environment().random);
  };
  const auto seal_some = [&](unsigned) -> Status {
    while (auto item = queue.Take()) seal(*std::move(item));
    return Ok();
  };
  const auto prepare = [&]() -> Status {
    ASSIGN_OR_RETURN(facts_, GatherFacts(*agent_));
    for (std::size_t index = 0; index < wanted.size(); ++index) {
      sealing_();
      auto prepared = Prepare(wanted[index]);
      if (!prepared) {
        sealed[index] = std::move(prepared).error();
        continue;
      }
      queue.Put(index, *std::move(prepared));
      // It helps where the threads do not keep up, or none could be had.
      while (auto item = queue.TakeSurplus()) seal(*std::move(item));
    }
    return Ok();
  };
  const unsigned num_threads = wanted.size() > 1 ? NumProcessors() : 0;
  WorkerThreads threads(num_threads, seal_some);
  // Whatever ends this function, the threads end.
  const auto close = [](SealQueue* open) { open->Close(); };
  const std::unique_ptr<SealQueue, decltype(close)> open(&queue, close);
  Status all = wanted.empty() ? Ok() : agent_->store().ReadTogether(prepare);
  queue.Close();
  CommitAll(before);
  if (num_threads == 0) static_cast<void>(seal_some(0));
  if (Status joined = threads.Join(); all) all = std::move(joined);
  std::vector<Pending> pending;
  for (std::size_t index = 0; index < wanted.size(); ++index) {
    auto& one = sealed[index];
    pending.push_back(
        {std::move(wanted[index]),
         one ? *std::move(one) : Result<Sealed>(all.error())});  // or its thread failed
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
    if (!alone && alone.error().code() == ErrorCode::kAlreadyExists) alone = Again(item);
    if (alone) continue;
    failure_ = alone.error();
    item.sealed = std::move(alone).error();
  }
}

Status UnattendedBackup::Again(Pending& item) {
  const auto prepare = [&]() -> Status {
    ASSIGN_OR_RETURN(Prepared prepared, Prepare(item.wanted));
    item.sealed = Seal(std::move(prepared), agent_->signer(), *agent_->environment().random);
    return Ok();
  };
  if (Status read = agent_->store().ReadTogether(prepare); !read) item.sealed = read.error();
  if (!item.sealed) return Ok();  // what is wrong with it is its result
  Status alone = Commit(std::span(&item, 1));
  if (alone || alone.error().code() != ErrorCode::kAlreadyExists) return alone;
  item.sealed =
      Error(ErrorCode::kStoreBusy, Action::kRetry,
            "another command wrote a version of " + item.wanted.key_name + " in this moment",
            "run the command again");
  return Ok();
}

Status UnattendedBackup::Tell(std::vector<Pending> pending) {
  for (Pending& item : pending) {
    if (item.sealed) {
      RETURN_IF_ERROR(done_(item.wanted.key_name, std::move(item.sealed->result)));
    } else {
      RETURN_IF_ERROR(done_(item.wanted.key_name, std::move(item.sealed).error()));
    }
  }
  return Ok();
}

Status UnattendedBackup::Step() {
  std::vector<Pending> before = std::exchange(pending_, {});
  const bool waits =
      std::ranges::any_of(wanted_, [](const Wanted& wanted) { return IsSlow(wanted.source); });
  if (waits) {
    CommitAll(before);
    RETURN_IF_ERROR(Tell(std::exchange(before, {})));
  }
  pending_ = SealAll(before);
  return Tell(std::move(before));
}

Status UnattendedBackup::Flush() {
  while (!wanted_.empty() || !pending_.empty()) RETURN_IF_ERROR(Step());
  return Ok();
}

}  // namespace keyescrow::agent
