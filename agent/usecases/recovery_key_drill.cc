#include "agent/usecases/recovery_key_drill.h"

#include <fmt/format.h>

#include <utility>

#include "agent/usecases/ceremony_desk.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/open_path.h"
#include "agent/usecases/path_proof.h"
#include "agent/usecases/recovery_key_failure.h"
#include "agent/usecases/registered_recovery_key.h"
#include "agent/usecases/token_names.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kEnvelopesPerCommit = 64;

struct VersionName {
  std::string key_name;
  std::uint32_t key_version = 0;
};

// EnvelopeDriller opens envelopes by a recovery key that is open, and logs them in batches.
class EnvelopeDriller {
 public:
  EnvelopeDriller(Agent& agent, const envelope::RecoveryKey& key,
                  const envelope::OpenedRecoveryKey& opened, envelope::ReadOptions trust,
                  RecoveryKeyDrillReport& report)
      : agent_(agent), key_(key), opened_(opened), trust_(std::move(trust)), report_(report) {}

  Status Drill(const VersionName& version) {
    ASSIGN_OR_RETURN(const store::EnvelopeRecord record,
                     agent_.store().FindEnvelope(version.key_name, version.key_version));
    auto sealed = envelope::SealedEnvelope::Read(record.bytes, trust_);
    if (sealed && sealed->hash() != record.sha256) {
      sealed = Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
                     "the store's envelope is not the one that its row and the log name",
                     "compare the store with a copy, and run 'keyescrow verify'");
    }
    if (!sealed) {
      // Whether it goes to this key is not known either.
      report_.failed.push_back(
          {version.key_name, version.key_version, "", std::move(sealed).error()});
      return Ok();
    }
    bool is_under = false;
    for (std::size_t index = 0; index < sealed->header().paths.size(); ++index) {
      const envelope::PathRecord& path = sealed->header().paths[index];
      if (!key_.IsIn(path)) continue;
      is_under = true;
      RETURN_IF_ERROR(DrillPath(*sealed, index, record));
    }
    if (is_under) ++report_.num_envelopes;
    return events_.size() < kEnvelopesPerCommit ? Ok() : Flush();
  }

  Status Flush() {
    if (events_.empty()) return Ok();
    ASSIGN_OR_RETURN(const AppendReceipt receipt,
                     agent_.journal().Append(std::exchange(events_, {}), change_));
    change_ = {};
    checkpoint_.reset();
    report_.p256_signed = report_.p256_signed && receipt.p256_signed;
    return Ok();
  }

 private:
  Status DrillPath(const envelope::SealedEnvelope& sealed, std::size_t index,
                   const store::EnvelopeRecord& record) {
    const envelope::Header& header = sealed.header();
    const envelope::PathRecord& path = header.paths[index];
    audit::Event event;
    event.key = audit::EventKey{header.key_name, header.key_version};
    event.envelope = audit::EventEnvelope{header.envelope_id, header.revision, sealed.hash()};
    event.paths = DescribePaths({&path});
    store::PathOutcome outcome{
        record.key_name, record.key_version, record.revision, path.id, agent_.Now(), false, ""};
    auto opened = sealed.OpenByRecoveryKey(index, opened_);
    if (opened) {
      event.type = audit::EventType::kDrillPassed;
      outcome.proven = true;
      outcome.proven_by = "drill";
      outcome.event_index = events_.size();
      if (opened->drill_seed().empty()) {
        ++report_.num_opened;
        event.reason = "opened by a newer record of the recovery key than the envelope's copy";
      } else {
        if (!checkpoint_) {
          ASSIGN_OR_RETURN(checkpoint_, NewestCheckpoint(&agent_));
        }
        ASSIGN_OR_RETURN(event.drill,
                         ProveOpened(sealed, *opened, {*checkpoint_, std::nullopt, agent_.Now()}));
        ++report_.num_proven;
      }
    } else {
      event.type = audit::EventType::kDrillFailed;
      event.outcome = audit::Outcome::kFailure;
      event.error = outcome.failure = ErrorCodeName(opened.error().code());
      event.reason = opened.error().message();
      report_.failed.push_back(
          {record.key_name, record.key_version, path.id, std::move(opened).error()});
    }
    events_.push_back(std::move(event));
    change_.path_outcomes.push_back(std::move(outcome));
    return Ok();
  }

  Agent& agent_;
  const envelope::RecoveryKey& key_;
  const envelope::OpenedRecoveryKey& opened_;
  envelope::ReadOptions trust_;
  RecoveryKeyDrillReport& report_;
  std::vector<audit::Event> events_;
  store::Change change_;
  std::optional<envelope::DrillCheckpoint> checkpoint_;
};

// LogFailure has the entry that the key was not opened, and keeps what that says of the paths under
// it; the error is the caller's.
Status LogFailure(Agent& agent, const store::RecoveryKeyRecord& row,
                  const envelope::RecoveryKey& key, const Error& error) {
  audit::Event event;
  event.type = audit::EventType::kDrillFailed;
  event.outcome = audit::Outcome::kFailure;
  event.error = ErrorCodeName(error.code());
  event.reason = error.message();
  event.paths.push_back(RecoveryKeyEvent(key));
  store::Change change;
  if (TellsOfThePath(error)) {
    change.settings.push_back(FailedSetting(row, {agent.Now(), event.error}));
  }
  RETURN_IF_ERROR(agent.journal().Append(std::move(event), change));
  return Ok();
}

Result<envelope::OpenedRecoveryKey> Open(Agent& agent, const store::RecoveryKeyRecord& row,
                                         const envelope::RecoveryKey& key,
                                         const RecoveryKeyDrillRequest& request, Secrets& secrets,
                                         Progress& progress) {
  PathOpenOptions options;
  options.devices = agent.environment().devices;
  options.secrets = &secrets;
  options.progress = &progress;
  options.store = &agent.store();
  options.module = request.module;
  options.purpose = "to drill the recovery key " + request.name;
  RETURN_IF_ERROR(secrets.MayAsk([&] { return TokensOf(RecoveryKeyPath(key), &agent.store()); }));
  StretchedPasswords passwords;
  if (CeremonyDesk* const desk = secrets.Desk()) desk->SetWaits(true);
  PathOpener opener(options, passwords);
  auto opened = opener.OpenRecoveryKey(key);
  opener.Finish();
  if (opened) return opened;
  const Status logged = LogFailure(agent, row, key, opened.error());
  if (!logged) progress.Warn("the failure could not be logged: " + logged.error().message());
  return opened;
}

}  // namespace

Result<RecoveryKeyDrillReport> DrillRecoveryKey(Agent& agent,
                                                const RecoveryKeyDrillRequest& request,
                                                Secrets& secrets, Progress& progress) {
  RecoveryKeyDrillReport report;
  RETURN_IF_ERROR(agent.store().CheckWritable());
  ASSIGN_OR_RETURN(const auto row, agent.store().FindRecoveryKey(request.name));
  ASSIGN_OR_RETURN(const envelope::RecoveryKey key, ReadRegistered(row));
  ASSIGN_OR_RETURN(const envelope::OpenedRecoveryKey opened,
                   Open(agent, row, key, request, secrets, progress));
  audit::Event event;
  event.type = audit::EventType::kDrillPassed;
  event.paths.push_back(RecoveryKeyEvent(key));
  event.reason = "the recovery key was opened from its registered record";
  store::Change change;
  change.recovery_key_drills.push_back({row.name, row.sha256, agent.Now(), 0});
  change.settings.push_back({RecoveryKeyFailureSetting(row.name), std::nullopt});
  ASSIGN_OR_RETURN(const AppendReceipt receipt, agent.journal().Append(std::move(event), change));
  report.log_seq = receipt.seq;
  report.p256_signed = receipt.p256_signed;

  std::vector<VersionName> versions;
  RETURN_IF_ERROR(agent.store().Envelopes({}, [&](const store::EnvelopeRecord& record) {
    versions.push_back({record.key_name, record.key_version});
    return true;
  }));
  ASSIGN_OR_RETURN(auto trust, TrustFor(&agent, "", false));
  EnvelopeDriller driller(agent, key, opened, std::move(trust), report);
  for (std::size_t index = 0; index < versions.size(); ++index) {
    if (index % kEnvelopesPerCommit == 0) {
      progress.Step(fmt::format("proving envelopes: {} of {}", index, versions.size()));
    }
    RETURN_IF_ERROR(driller.Drill(versions[index]));
  }
  RETURN_IF_ERROR(driller.Flush());
  ASSIGN_OR_RETURN(report.key, ShowRecoveryKey(agent, request.name));
  return report;
}

}  // namespace keyescrow::agent
