#include "agent/usecases/rotation_steps.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "agent/key_locations/crash_safe_file.h"
#include "agent/key_locations/file_location.h"
#include "agent/key_locations/key_location.h"
#include "agent/usecases/abandoned_keyslot.h"
#include "agent/usecases/fingerprint.h"
#include "agent/usecases/luks_binding.h"
#include "agent/usecases/rotation_errors.h"
#include "agent/usecases/superseded_keyslot.h"
#include "envelope/base/pause_point.h"

namespace keyescrow::agent {

using audit::Outcome;
using store::RotationRecord;
using store::RotationStep;

namespace {

// RemoveLeft removes what a hand-over to a file that was killed left beside it: the new key, which
// nobody will use.
void RemoveLeft(const std::string& sink, Progress& progress) {
  if (sink.empty()) return;
  const auto location = ParseLocation(sink);
  if (!location || (*location)->FilePath().empty()) return;
  const std::string path = (*location)->FilePath();
  if (LeftBeside(path).empty()) return;
  const Status removed = (*location)->CheckWritable();  // which removes them
  for (const std::string& left : LeftBeside(path)) {
    progress.Warn(left + " may hold a key that was abandoned, and could not be removed" +
                  (removed ? "" : ": " + removed.error().message()));
  }
}

// SyncPlace: who put the new key into that file may have been killed before it was durable.
Status SyncPlace(const std::string& path) {
  ASSIGN_OR_RETURN(const FileReplacement place, FileReplacement::Open(path));
  ASSIGN_OR_RETURN(const int file, place.OpenExisting());
  Status synced = place.SyncExisting(file);
  close(file);
  return synced;
}

}  // namespace

Status RotationSteps::Commit(RotationStep step, Outcome outcome, std::string_view how,
                             store::Change change) {
  record.step = step;
  ASSIGN_OR_RETURN(record.changed, RotationTime(agent_, record.key_name, change.luks_bindings));
  change.rotations.push_back(record);
  ASSIGN_OR_RETURN(const AppendReceipt receipt,
                   agent_.journal().Append(RotationEvent(record, outcome, how), change));
  result.log_seq = receipt.seq;
  result.p256_signed = receipt.p256_signed;
  return Ok();
}

// ForgetCommand: its text, which may hold a secret, is needed no more; that there was one is.
void RotationSteps::ForgetCommand() {
  if (!record.command.empty()) record.command = kEndedCommand;
}

Status RotationSteps::BeginHandOver(std::string_view how, store::Change change) {
  ASSIGN_OR_RETURN(auto expected, ExpectKeyslot(agent_, record, Place(record.sink)));
  if (expected) change.luks_bindings.push_back(std::move(*expected));
  return Commit(RotationStep::kHandingOver, Outcome::kPending, how, std::move(change));
}

Status RotationSteps::RollBack(const std::string& why) { return End(why, Place(record.sink)); }

Status RotationSteps::Abandon(const std::string& why) { return End(why, ""); }

Status RotationSteps::End(const std::string& why, const std::string& empty) {
  ASSIGN_OR_RETURN(LeftAtVolumes left, LookForLeft(agent_, record, empty));
  store::Change change;
  change.luks_bindings = std::move(left.bindings);
  RETURN_IF_ERROR(AddPutAside(change));
  record.process.clear();
  RemoveLeft(record.sink, progress_);
  ForgetCommand();
  RETURN_IF_ERROR(Commit(RotationStep::kAbandoned, Outcome::kFailure, why, std::move(change)));
  PausePoint("rotation-abandoned");
  Told("rolled back");
  for (std::string& finding : left.findings) result.findings.push_back(std::move(finding));
  return Ok();
}

Status RotationSteps::AddPutAside(store::Change& change) {
  const auto location = ParseLocation(record.sink.empty() ? "-" : record.sink);
  if (!location || (*location)->FilePath().empty()) return Ok();
  const std::string path = AbsolutePath((*location)->FilePath());
  struct stat status {};
  const std::string previous = path + kPreviousSuffix;
  if (lstat(previous.c_str(), &status) != 0) return Ok();
  ASSIGN_OR_RETURN(const auto known, agent_.store().Destinations());
  for (const store::DestinationRecord& row : known) {
    if (row.path == path && row.previous_path == previous) return Ok();
  }
  change.destinations.push_back(
      {path, record.key_name, record.old_version, previous, agent_.Now()});
  result.previous_path = previous;
  return Ok();
}

Status RotationSteps::Confirm(const HeldKey& held, const std::string& by) {
  record.step = RotationStep::kConfirmed;
  record.process.clear();
  ForgetCommand();
  ASSIGN_OR_RETURN(record.changed, RotationTime(agent_, record.key_name, {}));
  store::Change change;
  change.rotations.push_back(record);
  RETURN_IF_ERROR(AddPlace(held, change));
  std::vector<audit::Event> events;
  events.push_back(RotationEvent(record, Outcome::kSuccess, "confirmed by " + by));
  events.back().reason += request_.reason.empty() ? "" : "; " + request_.reason;
  events.back().ticket = request_.ticket;
  audit::Event superseded;
  superseded.type = audit::EventType::kEscrowSuperseded;
  superseded.key = audit::EventKey{record.key_name, record.old_version};
  events.push_back(std::move(superseded));
  PausePoint("rotation-before-confirm");
  ASSIGN_OR_RETURN(const AppendReceipt receipt, agent_.journal().Append(std::move(events), change));
  result.rotated = true;
  result.confirmed_by = by;
  result.keyslot = held.keyslot;
  result.log_seq = receipt.seq;
  result.p256_signed = receipt.p256_signed;
  TellOfEdits();
  Told("confirmed");
  PausePoint("rotation-confirmed");
  return Ok();
}

void RotationSteps::TellOfEdits() {
  const std::string& name = record.key_name;
  const auto copied = agent_.store().FindEnvelope(name, record.old_version);
  const auto made = agent_.store().FindEnvelope(name, record.key_version);
  if (!copied || !made || copied->log_seq < made->log_seq) return;  // `verify` tells of damage
  result.settled = false;
  result.findings.push_back(fmt::format(
      "the paths of version {} were edited after version {} was made, which has those of before: a "
      "path that was removed, and a password that was changed, open it. Look at 'keyescrow path "
      "list {}', and make the edit again",
      record.old_version, record.key_version, name));
}

// AddOldKeyslot records that the old version may still open the volume: before that is looked into,
// which may end with this process.
Status RotationSteps::AddOldKeyslot(const KeyLocation& volume, std::optional<unsigned> new_keyslot,
                                    store::Change& change) {
  ASSIGN_OR_RETURN(const OldKeyslot old, FindOldKeyslot(agent_, record, volume, new_keyslot));
  const bool is_left = old.state == OldKeyslot::State::kStands && !IsVolume(record.sink);
  if (old.state != OldKeyslot::State::kUnknown && !is_left) return Ok();
  ASSIGN_OR_RETURN(auto may_open, MayOpen(record, volume.VolumePath(), old, new_keyslot));
  if (may_open) change.luks_bindings.push_back(std::move(*may_open));
  return Ok();
}

// AddPlace records where the new version is now, whose file it is, and where the old generation
// lies.
Status RotationSteps::AddPlace(const HeldKey& held, store::Change& change) {
  if (held.held != Held::kNew) return Ok();
  const std::string place = Place(record.sink);
  if (IsVolume(place)) {
    ASSIGN_OR_RETURN(const auto location, ParseLocation(place));
    ASSIGN_OR_RETURN(auto binding, MakeLuksBinding(agent_, record.key_name, record.key_version,
                                                   *location, held.keyslot));
    if (binding) change.luks_bindings.push_back(std::move(*binding));
    return AddOldKeyslot(*location, held.keyslot, change);
  }
  const auto access = StatKeyFile(held.where);
  if (!access) return Ok();
  if (!record.sink.empty()) RETURN_IF_ERROR(SyncPlace(held.where));
  ASSIGN_OR_RETURN(auto fingerprint,
                   agent_.store().FindFingerprint(record.key_name, record.key_version));
  if (fingerprint) {
    fingerprint->source = AbsolutePath(held.where);
    fingerprint->access =
        store::FingerprintRecord::SourceAccess{access->uid, access->gid, access->permissions};
    change.fingerprints.push_back(std::move(*fingerprint));
  }
  struct stat status {};
  const std::string previous = held.where + kPreviousSuffix;
  if (record.sink.empty() || lstat(previous.c_str(), &status) != 0) return Ok();
  change.destinations.push_back(
      {held.where, record.key_name, record.old_version, previous, agent_.Now()});
  result.previous_path = previous;
  return Ok();
}

void RotationSteps::TellOfDeclaredPlace(const std::string& declared, const SecretBytes& new_key) {
  if (declared == Place(record.sink)) return;
  const auto held = LookAt("", &new_key);
  if (!held) return;
  const bool other_volume = IsVolume(declared) && held->is_not_new;
  if (held->held != Held::kOld && held->held != Held::kOther && !other_volume) return;
  result.settled = false;
  const std::string what =
      held->held == Held::kOther
          ? "holds neither version"
          : fmt::format("{} version {}", IsVolume(declared) ? "is not opened by" : "still has",
                        IsVolume(declared) ? record.key_version : record.old_version);
  result.findings.push_back(
      fmt::format("{}, where the key is declared, {}: put the new one there too, with 'keyescrow "
                  "restore {} --to {} --replace', or declare where it is now",
                  declared, what, record.key_name, declared));
}

Result<std::vector<std::string>> RotationSteps::KnownPlaces() {
  std::vector<std::string> places;
  ASSIGN_OR_RETURN(const auto seen,
                   agent_.store().FindFingerprint(record.key_name, record.old_version));
  if (seen && !seen->source.empty()) places.push_back(seen->source);
  ASSIGN_OR_RETURN(const auto bindings, agent_.store().LuksBindings(record.key_name));
  for (const store::LuksBindingRecord& binding : bindings) {
    const bool was_seen = binding.keyslot && binding.keyslot->IsKnown();
    if (binding.key_version == record.old_version && was_seen) {
      places.push_back("luks:" + binding.device);
    }
  }
  return places;
}

void RotationSteps::TellOfLeftBehind(const SecretBytes& new_key) {
  if (!result.rotated) return;
  if (const std::string declared = Place(""); !declared.empty()) {
    TellOfDeclaredPlace(declared, new_key);
    return;
  }
  if (record.sink.empty()) return;  // a command's exit status is its word: it knows the place
  const auto places = KnownPlaces();
  for (const std::string& place : places ? *places : std::vector<std::string>()) {
    const auto held = WhatStands(agent_, record, place, &new_key);
    if (!held || held->held != Held::kOld) continue;
    result.settled = false;
    const bool is_volume = IsVolume(place);
    result.findings.push_back(fmt::format(
        "{}, where version {} was, {} version {}: put the new one there too, with 'keyescrow "
        "restore {} --to {}{}', or leave none there",
        held->where, record.old_version, is_volume ? "is not opened by" : "still has",
        is_volume ? record.key_version : record.old_version, record.key_name, place,
        is_volume ? "" : " --replace"));
  }
}

std::string RotationSteps::Place(const std::string& sink) const {
  return PlaceOf(agent_, request_.key_name, sink);
}

Result<HeldKey> RotationSteps::LookAt(const std::string& sink, const SecretBytes* new_key) {
  return WhatStands(agent_, record, Place(sink), new_key);
}

void RotationSteps::Told(const char* outcome) {
  if (!result.interrupted || !result.interrupted->outcome.empty()) return;
  result.interrupted->outcome = outcome;
  progress_.Pause();
  progress_.Note(fmt::format("a rotation to version {} was left {}: {}",
                             result.interrupted->version, result.interrupted->step, outcome));
}

}  // namespace keyescrow::agent
