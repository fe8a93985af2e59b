// The last step of a rotation at a LUKS volume: the old version's keyslot goes.
#include <fmt/format.h>

#include <utility>

#include "agent/key_locations/key_location.h"
#include "agent/key_locations/luks_header.h"
#include "agent/key_locations/secret_file.h"
#include "agent/usecases/abandoned_keyslot.h"
#include "agent/usecases/fingerprint.h"
#include "agent/usecases/luks_binding.h"
#include "agent/usecases/rotation_steps.h"
#include "agent/usecases/superseded_keyslot.h"
#include "envelope/base/pause_point.h"

namespace keyescrow::agent {

using store::RotationRecord;
using store::RotationStep;

Status RotationSteps::LogRetired(std::optional<unsigned> keyslot, const std::string& volume) {
  audit::Event event;
  event.type = audit::EventType::kKeyDestroyed;
  event.key = audit::EventKey{record.key_name, record.old_version};
  event.reason = fmt::format("{} of {}{}: version {} is in use",
                             keyslot ? fmt::format("keyslot {}", *keyslot) : "no keyslot", volume,
                             keyslot ? " removed" : " is opened by it", record.key_version);
  store::Change change;
  ASSIGN_OR_RETURN(change.luks_bindings, OpensNoMore(agent_, record.key_name, record.old_version));
  ASSIGN_OR_RETURN(const AppendReceipt receipt, agent_.journal().Append(std::move(event), change));
  result.log_seq = receipt.seq;
  result.retired_keyslot = keyslot;
  return Ok();
}

Result<bool> RotationSteps::UnlockedBy(const std::function<bool(const SecretBytes&)>& is_old) {
  if (request_.luks_unlock_file.empty()) return false;
  ASSIGN_OR_RETURN(const SecretBytes unlock, ReadWholeSecretFile(request_.luks_unlock_file));
  if (is_old(unlock)) return true;
  const ByteView bytes = unlock.Expose();
  if (bytes.empty() || bytes.back() != '\n') return false;
  ASSIGN_OR_RETURN(const SecretBytes line, SecretBytes::CopyOf(bytes.first(bytes.size() - 1)));
  return is_old(line);
}

Result<bool> RotationSteps::UnlockedByOld() {
  ASSIGN_OR_RETURN(const auto old_key,
                   agent_.store().FindFingerprint(record.key_name, record.old_version));
  const auto fingerprinter = Fingerprinter::Load(agent_.environment().state_dir);
  if (!old_key || !fingerprinter) return false;
  return UnlockedBy(
      [&](const SecretBytes& unlock) { return fingerprinter->Matches(*old_key, unlock); });
}

Error RotationSteps::KeyslotIsLeft() const {
  const std::string& file = request_.luks_unlock_file;
  return Error(
      ErrorCode::kFindings, Action::kFixInput,
      fmt::format("the keyslot of version {}, which was superseded, is left: {} has its key",
                  record.old_version, file),
      fmt::format("put the new one there with 'keyescrow restore {} --to {} --replace'; "
                  "then 'keyescrow rotate {}' removes that keyslot",
                  record.key_name, file, record.key_name));
}

void RotationSteps::Retire(const SecretBytes& new_key, const OpenOld& open_old) {
  const std::string place = Place(record.sink);
  if (!IsVolume(place)) return;
  const Status retired = TryToRetire(place, new_key, open_old);
  if (retired) return;
  result.retired_all = false;
  result.findings.push_back(fmt::format(
      "version {} is in use, and version {} may still open the "
      "volume: {}; {}",
      record.key_version, record.old_version, retired.error().message(), retired.error().hint()));
}

Status RotationSteps::TryToRetire(const std::string& place, const SecretBytes& new_key,
                                  const OpenOld& open_old) {
  ASSIGN_OR_RETURN(const auto location, ParseLocation(place));
  const std::string path = location->VolumePath();
  ASSIGN_OR_RETURN(OldKeyslot old, FindOldKeyslot(agent_, record, *location, result.keyslot));
  if (old.state == OldKeyslot::State::kGone) return Ok();
  if (old.state == OldKeyslot::State::kStands) {
    ASSIGN_OR_RETURN(const bool unlocked_by_old, UnlockedByOld());
    if (unlocked_by_old) return KeyslotIsLeft();
    const Status removed = Remove(*location, *old.keyslot, new_key);
    if (removed) return Ok();
    return Error(removed.error())
        .WithHint("'keyescrow rotate " + record.key_name + "' removes its keyslot");
  }
  store::LuksBindingRecord binding;
  binding.key_name = record.key_name;
  binding.key_version = record.old_version;
  binding.device = AbsolutePath(path);
  const Status removed = [&]() -> Status {
    const Result<SecretBytes> old_key = open_old();
    if (!old_key) {
      return Error(old_key.error())
          .WithContext(fmt::format("whether version {} opens a keyslot is seen by it alone",
                                   record.old_version));
    }
    ASSIGN_OR_RETURN(const auto number, location->FindKeyslot(*old_key));
    if (!number) return LogRetired(std::nullopt, path);
    if (!IsVolume(record.sink)) {
      return Error(ErrorCode::kFindings, Action::kFixInput,
                   fmt::format("the command left keyslot {}", *number), "");
    }
    ASSIGN_OR_RETURN(const bool unlocked_by_old, UnlockedBy([&](const SecretBytes& unlock) {
                       return old_key->EqualsConstantTime(unlock);
                     }));
    if (unlocked_by_old) return KeyslotIsLeft();
    ASSIGN_OR_RETURN(const LuksHeader header, ReadLuksHeader(path));
    ASSIGN_OR_RETURN(const Bytes32 hash, KeyslotHash(path, header, *number));
    return Remove(*location, {*number, hash}, new_key);
  }();
  if (removed) return Ok();
  return Error(removed.error()).WithHint(RemovesKeyslot(binding));
}

Status RotationSteps::Remove(KeyLocation& volume, const RetiredSecret& keyslot,
                             const SecretBytes& new_key) {
  ASSIGN_OR_RETURN(const bool removed, volume.Retire(keyslot, new_key));
  PausePoint("rotation-retired");
  return removed ? LogRetired(keyslot.keyslot, volume.VolumePath()) : Ok();
}

Result<bool> RotationSteps::RetireLeft() {
  ASSIGN_OR_RETURN(const auto rotations, agent_.store().Rotations(request_.key_name));
  const RotationRecord* last = nullptr;
  for (const RotationRecord& row : rotations) {
    if (row.step == RotationStep::kConfirmed) last = &row;
  }
  if (last == nullptr) return false;
  ASSIGN_OR_RETURN(const auto superseded, FindSupersededKeyslot(agent_, *last));
  if (!superseded) return false;
  record = *last;
  ASSIGN_OR_RETURN(const bool unlocked_by_old, UnlockedByOld());
  if (unlocked_by_old) return KeyslotIsLeft();
  result.old_version = record.old_version;
  result.new_version = record.key_version;
  result.interrupted = InterruptedRotation{
      record.key_version,
      fmt::format("after it was confirmed, before keyslot {} of version {} was removed",
                  superseded->old_keyslot.number, record.old_version),
      ""};
  RETURN_IF_ERROR(RetireSuperseded(*superseded));
  RETURN_IF_ERROR(LogRetired(superseded->old_keyslot.number, superseded->device));
  result.rotated = true;
  result.keyslot = superseded->new_keyslot.number;
  result.sink = record.sink;
  Told("old keyslot removed");
  return true;
}

}  // namespace keyescrow::agent
