#include "agent/usecases/rotate.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "agent/key_locations/apply_command.h"
#include "agent/key_locations/key_location.h"
#include "agent/usecases/backup_batch.h"
#include "agent/usecases/backup_plan.h"
#include "agent/usecases/declared_sink.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/rotation_backup.h"
#include "agent/usecases/rotation_cover.h"
#include "agent/usecases/rotation_errors.h"
#include "agent/usecases/rotation_keys.h"
#include "agent/usecases/rotation_place.h"
#include "agent/usecases/rotation_record.h"
#include "agent/usecases/rotation_steps.h"
#include "envelope/base/pause_point.h"

namespace keyescrow::agent {
namespace {

using audit::Outcome;
using store::RotationRecord;
using store::RotationStep;

class Rotation {
 public:
  Rotation(Agent& agent, const RotateRequest& request, Secrets& secrets, Progress& progress)
      : agent_(agent),
        request_(request),
        secrets_(secrets),
        progress_(progress),
        keys_(agent, request, secrets, progress),
        steps_(agent, request, progress) {}

  Result<RotateResult> Run() {
    ASSIGN_OR_RETURN(const RotationLock lock,
                     RotationLock::Take(agent_.environment().state_dir, request_.key_name));
    ASSIGN_OR_RETURN(const auto open, agent_.store().OpenRotation(request_.key_name));
    if (open) {
      steps_.record = *open;
      RETURN_IF_ERROR(GoOn());
      if (steps_.result.rotated || request_.abandon) {
        TellOfTheKeyNotTaken();
        return std::move(steps_.result);
      }
    } else if (request_.abandon) {
      return Error(ErrorCode::kNotFound, Action::kFixInput,
                   "no rotation of " + request_.key_name + " is under way",
                   "'keyescrow status' lists those that are");
    } else {
      ASSIGN_OR_RETURN(const bool finished, steps_.RetireLeft());
      if (finished) {
        TellOfTheKeyNotTaken();
        return std::move(steps_.result);
      }
    }
    RETURN_IF_ERROR(Begin());
    return std::move(steps_.result);
  }

 private:
  // ---- one that was interrupted

  // TellOfTheKeyNotTaken: an older rotation was finished, and --from may name another key than its.
  void TellOfTheKeyNotTaken() {
    if (request_.source.empty() || request_.abandon || !keys_.New()) return;  // none, or escrowed
    steps_.result.settled = false;
    steps_.result.findings.push_back(
        fmt::format("the key of {} was not taken: a rotation that was under way was finished. Keep "
                    "it, and run 'keyescrow rotate {}' with it again",
                    request_.source, request_.key_name));
  }

  Status GoOn() {
    RotationRecord& record = steps_.record;
    steps_.result.interrupted = InterruptedRotation{record.key_version, StepText(record), ""};
    steps_.result.old_version = record.old_version;
    steps_.result.new_version = record.key_version;
    if (record.step == RotationStep::kEscrowed || record.step == RotationStep::kProven) {
      return steps_.RollBack("interrupted " + StepText(record));
    }
    if (StillRuns(record.process)) {
      return Error(ErrorCode::kStoreBusy, Action::kRetry,
                   fmt::format("the command of the rotation of {} still runs, as process {}",
                               record.key_name, ProcessNumber(record.process)),
                   "wait for its end, or end it");
    }
    // A volume shows by the new key alone whether it has it.
    std::optional<SecretBytes> new_key;
    const bool is_volume = IsVolume(steps_.Place(record.sink));
    if (is_volume && !request_.abandon) {
      ASSIGN_OR_RETURN(new_key, OpenNew());
    }
    ASSIGN_OR_RETURN(const HeldKey held, steps_.LookAt(record.sink, new_key ? &*new_key : nullptr));
    if (held.held == Held::kNew) {
      if (request_.abandon) return IsInUse(record, held);
      RETURN_IF_ERROR(steps_.Confirm(held, "the key at " + held.where));
      if (new_key) Retire(*new_key);
      return Ok();
    }
    // Where a sink follows a command, what stands there tells nothing of the command.
    const bool both = !record.command.empty() && !record.sink.empty();
    if (request_.abandon) {
      const bool was_done = record.step == RotationStep::kHandedOver && !record.command.empty();
      RETURN_IF_ERROR(steps_.Abandon("abandoned by hand"));
      if (was_done && (both || held.held != Held::kOld)) AddWasDone();
      return Ok();
    }
    const bool again = !request_.command.empty() || !request_.sink.empty();
    if (held.held == Held::kOld && record.step == RotationStep::kHandingOver && !both) {
      return steps_.RollBack(held.where + " has the old key");
    }
    if (held.held == Held::kNothing && record.step == RotationStep::kHandingOver &&
        record.command.empty()) {
      // Where a key stood, its place is not there, and says nothing of the key.
      ASSIGN_OR_RETURN(const bool stood, KeyStoodAt(agent_, record, held.where));
      if (!stood) return steps_.RollBack("nothing was written to " + held.where);
    }
    if (both && record.step == RotationStep::kHandedOver && !again) {
      return HandOverAgain("", record.sink);  // the command was done, the sink was not
    }
    if (!again) return Unresolved(held);
    return HandOverAgain(request_.command, AbsoluteLocation(request_.sink));
  }

  static std::string ProcessNumber(const std::string& process) {
    const std::size_t first = process.find(' ');
    return process.substr(first + 1, process.rfind(' ') - first - 1);
  }

  Error Unresolved(const HeldKey& held) const {
    return agent::Unresolved(agent_, steps_.record, held, steps_.result.interrupted && !again_);
  }

  Result<SecretBytes> OpenNew() {
    const RotationRecord& record = steps_.record;
    auto key = keys_.Open(record.key_name, record.key_version);
    if (key) return key;
    return std::move(key).error().WithContext(
        fmt::format("the rotation of {} was interrupted {}: whether the volume has version {} is "
                    "seen by opening it",
                    record.key_name, StepText(record), record.key_version));
  }

  void AddWasDone() {
    const RotationRecord& record = steps_.record;
    steps_.result.settled = false;
    steps_.result.findings.push_back(fmt::format(
        "the command said that version {} is in use: put version {} back in the application, or "
        "escrow what it has with 'keyescrow backup {}'; 'keyescrow restore {} --version {}' gives "
        "the other",
        record.key_version, record.old_version, record.key_name, record.key_name,
        record.key_version));
  }

  Status HandOverAgain(const std::string& command, const std::string& sink) {
    RotationRecord& record = steps_.record;
    RETURN_IF_ERROR(keys_.CheckSink(record, sink, true));
    ASSIGN_OR_RETURN(const SecretBytes new_key, keys_.Open(record.key_name, record.key_version));
    SecretBytes old_key;
    if (!command.empty()) {
      ASSIGN_OR_RETURN(old_key, keys_.Open(record.key_name, record.old_version));
    }
    steps_.Told("handed over again");
    again_ = true;
    record.sink = sink;
    record.command = command;
    return HandOver(old_key, new_key);
  }

  // ---- a new one

  Status Begin() {
    auto found = agent_.store().FindEnvelope(request_.key_name, std::nullopt);
    if (!found) {
      if (found.error().code() != ErrorCode::kKeyNotFound) return std::move(found).error();
      return std::move(found).error().WithHint("escrow it first with 'keyescrow backup " +
                                               request_.key_name + "'");
    }
    RotationRecord& record = steps_.record;
    record = RotationRecord();
    record.key_name = request_.key_name;
    record.old_version = found->key_version;
    ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent_, "", true));
    ASSIGN_OR_RETURN(const auto in_use, envelope::SealedEnvelope::Read(found->bytes, trust));
    if (in_use.header().host != agent_.identity().host) {
      return Error(ErrorCode::kUsage, Action::kFixInput,
                   record.key_name + " is a key of the host " + in_use.header().host +
                       ", and this is " + agent_.identity().host,
                   "rotate it there; or make it a key of this host with 'keyescrow adopt " +
                       record.key_name + "'");
    }
    ASSIGN_OR_RETURN(const std::string sink, ChooseSink());
    RETURN_IF_ERROR(keys_.CheckNoVolumeKey(record, steps_.Place(sink)));
    RETURN_IF_ERROR(keys_.CheckSink(record, sink, false));
    ASSIGN_OR_RETURN(const SecretBytes new_key, keys_.New());
    SecretBytes old_key;
    if (!request_.command.empty()) {
      ASSIGN_OR_RETURN(old_key, keys_.Old(record));
    }
    RETURN_IF_ERROR(Escrow(in_use.header(), sink, new_key));
    if (!MayHandOver(steps_.result.paths)) {
      RETURN_IF_ERROR(steps_.RollBack("no path was proven"));
      return NotHandedOver(record, steps_.result.paths, refusals_);
    }
    return HandOver(old_key, new_key);
  }

  // ChooseSink: a later call may be made in another folder.
  Result<std::string> ChooseSink() {
    if (!request_.sink.empty()) return AbsoluteLocation(request_.sink);
    if (!request_.command.empty()) return std::string();
    const DeclaredKey* declared = agent_.environment().config->FindKey(request_.key_name);
    if (declared != nullptr) {
      ASSIGN_OR_RETURN(const std::string sink, DeclaredSink(*declared, "--to SINK or --apply CMD"));
      return AbsoluteLocation(sink);
    }
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "where should the new key go? " + request_.key_name + " is not declared",
                 "add --to SINK or --apply CMD, or declare it with 'keyescrow key add'");
  }

  Status Escrow(const envelope::Header& in_use, const std::string& sink,
                const SecretBytes& new_key) {
    BackupRequest backup;
    backup.key_name = request_.key_name;
    backup.paths = request_.paths;
    if (backup.paths.empty()) {
      ASSIGN_OR_RETURN(const auto kept, PathsInUse(agent_, request_.key_name));
      for (const envelope::PathOption& path : kept) {
        backup.paths.push_back(path.id + "=" + envelope::FormatPathExpression(path.expression));
      }
    }
    backup.kdf = request_.kdf;
    backup.prove = request_.prove;
    backup.note = request_.note.empty() ? in_use.note.value_or("") : request_.note;
    backup.key = &new_key;
    backup.rotation = RotationStart{in_use.key_version, sink, request_.command};
    ASSIGN_OR_RETURN(BackupResult escrowed,
                     BackupAfter(agent_, backup, &in_use, refusals_, secrets_, progress_));
    RotateResult& result = steps_.result;
    result.findings = std::move(escrowed.findings);
    result.paths = std::move(escrowed.paths);
    RETURN_IF_ERROR(AddOfficersCover(agent_, in_use, escrowed.key_version, result.paths));
    result.recoverable = std::any_of(
        result.paths.begin(), result.paths.end(),
        [](const PathProof& path) { return path.portable && (path.proven || path.covered_since); });
    ASSIGN_OR_RETURN(auto open, agent_.store().OpenRotation(request_.key_name));
    if (!open) {
      return Error(ErrorCode::kInternal, Action::kReportBug, "the rotation's record is not there",
                   "report this");
    }
    steps_.record = std::move(*open);
    result.old_version = steps_.record.old_version;
    result.new_version = steps_.record.key_version;
    if (!result.recoverable) {
      result.findings.push_back(WhyNotProven(NotRecoverable(result.paths), refusals_));
    }
    PausePoint("rotation-proven");
    return Ok();
  }

  // ---- handing over

  void Retire(const SecretBytes& new_key) {
    steps_.Retire(new_key, [this]() -> Result<SecretBytes> {
      if (old_key_ != nullptr) return SecretBytes::CopyOf(old_key_->Expose());
      return keys_.Open(steps_.record.key_name, steps_.record.old_version);
    });
  }

  Status HandOver(const SecretBytes& old_key, const SecretBytes& new_key) {
    if (!old_key.empty()) old_key_ = &old_key;
    RETURN_IF_ERROR(HandOverAndConfirm(old_key, new_key));
    steps_.TellOfLeftBehind(new_key);
    return Ok();
  }

  Status HandOverAndConfirm(const SecretBytes& old_key, const SecretBytes& new_key) {
    RotationRecord& record = steps_.record;
    const bool has_sink = !record.sink.empty();
    if (!record.command.empty()) RETURN_IF_ERROR(Apply(old_key, new_key));
    if (has_sink && !record.command.empty()) {
      RETURN_IF_ERROR(steps_.Commit(RotationStep::kHandedOver, Outcome::kPending,
                                    "the command was done; the sink follows"));
      PausePoint("rotation-between");
    }
    std::optional<unsigned> keyslot;
    if (has_sink) {
      ASSIGN_OR_RETURN(keyslot, WriteSink(new_key));
    }
    if (steps_.result.rotated) return Ok();
    HeldKey held;
    if (keyslot) {  // seen to open by whoever wrote it
      ASSIGN_OR_RETURN(const auto location, ParseLocation(record.sink));
      held = {Held::kNew, location->VolumePath(), "", "", keyslot};
    } else {
      ASSIGN_OR_RETURN(held, steps_.LookAt(record.sink, &new_key));
    }
    if (held.held == Held::kNew) {
      RETURN_IF_ERROR(steps_.Confirm(held, "the key at " + held.where));
      Retire(new_key);
      return Ok();
    }
    if (held.held == Held::kUnknown && !held.is_not_new) {
      if (!steps_.Place(record.sink).empty()) {
        steps_.result.findings.push_back("the new key was not seen to be in use: " + held.why_not);
      }
      return steps_.Confirm(held, has_sink ? "the sink" : "the exit status of the command");
    }
    // It was handed over, and what stands where the key lives does not bear that out.
    RETURN_IF_ERROR(steps_.Commit(RotationStep::kHandedOver, Outcome::kPending,
                                  "handed over, and not seen to be in use"));
    return Unresolved(held);
  }

  Status Apply(const SecretBytes& old_key, const SecretBytes& new_key) {
    RotationRecord& record = steps_.record;
    progress_.Step("running the command");
    ApplyRequest apply;
    apply.command = record.command;
    apply.key_name = record.key_name;
    apply.old_version = record.old_version;
    apply.new_version = record.key_version;
    apply.timeout = request_.apply_timeout;
    auto command = ApplyCommand::Start(apply);
    if (!command) {
      if (!again_) RETURN_IF_ERROR(steps_.RollBack("the command could not be started"));
      return std::move(command).error();
    }
    record.process = command->process();
    RETURN_IF_ERROR(steps_.BeginHandOver("to be handed over by a command"));
    PausePoint("rotation-handing-over");
    progress_.Pause();
    const ApplyOutcome outcome = command->Run(old_key, new_key);
    PausePoint("rotation-applied");
    record.process.clear();
    if (outcome.failure.empty()) return Ok();
    Status settled = CommandFailed(outcome, new_key);
    if (settled || outcome.interrupted_by == 0) return settled;
    Error failed = settled.error();
    return std::move(failed).WithNative("signal", static_cast<unsigned>(outcome.interrupted_by));
  }

  // CommandFailed: the old key is in use, unless what stands at its place says otherwise.
  Status CommandFailed(const ApplyOutcome& outcome, const SecretBytes& new_key) {
    const RotationRecord& record = steps_.record;
    ASSIGN_OR_RETURN(const HeldKey held, steps_.LookAt("", &new_key));
    constexpr ErrorCode code = ErrorCode::kDestinationCommand;
    const std::string failed = fmt::format("the command failed: {}", outcome.failure);
    if (held.held == Held::kNew) {
      return Error(
          code, Action::kCallOperator,
          fmt::format("{}, yet {} holds version {}", failed, held.where, record.key_version),
          fmt::format("if the application works with it, 'keyescrow rotate {}' confirms "
                      "it; if not, put version {} back and run it with --abandon",
                      record.key_name, record.old_version));
    }
    // Its exit status is its word. One that was run again may have failed because the first run was
    // done.
    const bool gave_word = outcome.gave_word && !again_;
    const bool knows = gave_word || (held.held == Held::kOld && record.sink.empty());
    if (!knows) {
      Error error = Unresolved(held);
      return Error(code, Action::kCallOperator, failed + "; " + error.message(), error.hint());
    }
    RETURN_IF_ERROR(held.held == Held::kUnknown ? steps_.Abandon(failed) : steps_.RollBack(failed));
    if (held.held == Held::kOther) {
      return Error(code, Action::kCallOperator,
                   fmt::format("{}: version {} was abandoned, and {} holds neither it nor version "
                               "{}",
                               failed, record.key_version, held.where, record.old_version),
                   "look which key the application has; 'keyescrow backup " + record.key_name +
                       "' escrows what is there");
    }
    return Error(code, Action::kCheckSystemState,
                 fmt::format("{}: version {} was abandoned, version {} stays in use", failed,
                             record.key_version, record.old_version),
                 "look at what it printed, put its cause right, and rotate again");
  }

  // WriteSink returns the keyslot where the sink is a LUKS volume.
  Result<std::optional<unsigned>> WriteSink(const SecretBytes& new_key) {
    RotationRecord& record = steps_.record;
    ASSIGN_OR_RETURN(const auto location, ParseLocation(record.sink, {request_.luks_unlock_file}));
    steps_.result.sink = location->Describe();
    const bool follows_command = !record.command.empty();
    if (!follows_command || IsVolume(record.sink)) {
      // Minutes may have gone by since it was looked at.
      if (Status same = keys_.CheckStands(record, record.sink); !same) {
        if (!again_ && !follows_command) {
          RETURN_IF_ERROR(steps_.RollBack(same.error().message()));
        }
        return std::move(same).error();
      }
    }
    if (!follows_command) {
      const bool named = !location->FilePath().empty() || !location->VolumePath().empty();
      store::Change seen;
      if (auto old = keys_.SeenOld(record, record.sink)) seen.fingerprints.push_back(*old);
      RETURN_IF_ERROR(steps_.BeginHandOver(
          "to be handed over to " + (named ? record.sink : std::string("a sink")), seen));
      PausePoint("rotation-handing-over");
    }
    progress_.Step("handing the new key over");
    WriteOptions options;
    options.replace = true;
    options.random_key = !again_ && request_.source.empty() && new_key.size() >= kNoStretchingBytes;
    auto written = location->Write(new_key, options);
    if (!written) return SinkFailed(std::move(written).error(), new_key);
    PausePoint("rotation-written");
    steps_.result.previous_path = written->previous_path;
    return written->keyslot;
  }

  // SinkFailed: a file has all of it or nothing, which is looked at; of others nothing is known.
  Result<std::optional<unsigned>> SinkFailed(Error error, const SecretBytes& new_key) {
    const RotationRecord& record = steps_.record;
    ASSIGN_OR_RETURN(const HeldKey held, steps_.LookAt(record.sink, &new_key));
    if (held.held == Held::kNew && record.command.empty()) {
      RETURN_IF_ERROR(steps_.Confirm(held, "the key at " + held.where));
      steps_.result.findings.push_back("the new key is there, and writing it told of an error: " +
                                       error.message());
      Retire(new_key);
      return held.keyslot;
    }
    if ((held.held == Held::kOld || held.held == Held::kNothing) && record.command.empty()) {
      RETURN_IF_ERROR(steps_.RollBack("the sink failed: " + error.message()));
      return Error(error.code(), error.action(),
                   fmt::format("{}; version {} was abandoned, version {} stays in use",
                               error.message(), record.key_version, record.old_version),
                   error.hint());
    }
    return std::move(error).WithHint(
        fmt::format("the rotation stays open: when the cause is gone, 'keyescrow rotate {} --to "
                    "SINK' hands version {} over again",
                    record.key_name, record.key_version));
  }

  static constexpr std::size_t kNoStretchingBytes = 32;

  Agent& agent_;
  const RotateRequest& request_;
  Secrets& secrets_;
  Progress& progress_;
  RotationKeys keys_;
  RotationSteps steps_;
  Refusals refusals_;                     // of the new version's paths
  const SecretBytes* old_key_ = nullptr;  // while a command has it; else null
  bool again_ = false;  // the version was handed over before, and how that ended is not known
};

}  // namespace

Result<RotateResult> Rotate(Agent& agent, const RotateRequest& request, Secrets& secrets,
                            Progress& progress) {
  RETURN_IF_ERROR(CheckKeyName(request.key_name));
  Rotation rotation(agent, request, secrets, progress);
  return rotation.Run();
}

}  // namespace keyescrow::agent
