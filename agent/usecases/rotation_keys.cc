#include "agent/usecases/rotation_keys.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "agent/key_locations/file_location.h"
#include "agent/key_locations/key_location.h"
#include "agent/usecases/declared_sink.h"
#include "agent/usecases/fingerprint.h"
#include "agent/usecases/luks_binding.h"
#include "agent/usecases/restore.h"
#include "agent/usecases/rotation_place.h"
#include "agent/usecases/rotation_record.h"

namespace keyescrow::agent {
namespace {

using store::RotationRecord;
using store::RotationStep;

constexpr std::size_t kKeyslotBytes = 64;

// InMemory takes the key of a version that is opened for a rotation.
class InMemory final : public KeyLocation {
 public:
  Result<SecretBytes> Read() override { return SecretBytes::CopyOf(key_.Expose()); }
  Status CheckWritable() override { return Ok(); }
  Result<WriteOutcome> Write(const SecretBytes& key, const WriteOptions& /*options*/) override {
    ASSIGN_OR_RETURN(key_, SecretBytes::CopyOf(key.Expose()));
    return WriteOutcome{.written = true};
  }
  std::string Describe() const override { return "the rotation"; }
  SecretBytes Take() { return std::move(key_); }

 private:
  SecretBytes key_;
};

Error HoldsOther(const std::string& where, const RotationRecord& record) {
  return Error(ErrorCode::kDestinationOtherKey, Action::kFixInput,
               fmt::format("{} holds other bytes than version {} of {}", where, record.old_version,
                           record.key_name),
               "if that is the key in use, 'keyescrow backup " + record.key_name +
                   "' escrows it first; if not, put the escrowed one back");
}

}  // namespace

Status RotationKeys::CheckSink(const RotationRecord& record, const std::string& sink, bool again) {
  if (sink.empty()) return Ok();
  ASSIGN_OR_RETURN(const auto location, ParseLocation(sink, {request_.luks_unlock_file}));
  RETURN_IF_ERROR(CheckNotMixed(agent_, record.key_name, *location, true));
  RETURN_IF_ERROR(CheckOutsideState(*location, agent_.environment().state_dir));
  RETURN_IF_ERROR(CheckVolumeStands(agent_, record, *location));  // before it is to be unlocked
  RETURN_IF_ERROR(location->CheckWritable());
  if (!again) RETURN_IF_ERROR(location->CheckRoom());
  return CheckStands(record, sink);
}

Status RotationKeys::CheckStands(const RotationRecord& record, const std::string& sink) {
  ASSIGN_OR_RETURN(const auto location, ParseLocation(sink));
  const std::string path = location->FilePath();
  if (path.empty()) return CheckVolumeStands(agent_, record, *location);
  ASSIGN_OR_RETURN(const HeldKey held, WhatStands(agent_, record, sink));
  if (held.held == Held::kNew) return Ok();
  // The new key may stand there already.
  const bool is_source = SourceFilePath(request_.source) == AbsolutePath(path);
  if (held.held == Held::kOther && !is_source) return HoldsOther(path, record);
  if (held.held == Held::kUnknown && !is_source) RETURN_IF_ERROR(CheckByOpening(record, path));
  return CheckPrevious(record.key_name, path);
}

Status RotationKeys::CheckByOpening(const RotationRecord& record, const std::string& path) {
  const auto stands = ReadKeyFile(path);
  const std::string seen_by = fmt::format("whether {} holds version {} of {} is seen by opening it",
                                          path, record.old_version, record.key_name);
  if (!stands) {
    if (stands.error().code() == ErrorCode::kNotFound) return Ok();
    return Error(stands.error()).WithContext(seen_by);
  }
  if (seen_old_.empty()) {
    auto opened = Open(record.key_name, record.old_version);
    if (!opened) return std::move(opened).error().WithContext(seen_by);
    seen_old_ = std::move(*opened);
  }
  if (seen_old_.EqualsConstantTime(stands->key)) return Ok();
  seen_old_ = SecretBytes();
  if (record.key_version != 0) {  // it may have been handed over
    ASSIGN_OR_RETURN(const SecretBytes opened, Open(record.key_name, record.key_version));
    if (opened.EqualsConstantTime(stands->key)) return Ok();
  }
  return HoldsOther(path, record);
}

std::optional<store::FingerprintRecord> RotationKeys::SeenOld(const RotationRecord& record,
                                                              const std::string& sink) const {
  const auto fingerprinter = Fingerprinter::Load(agent_.environment().state_dir);
  if (seen_old_.empty() || !fingerprinter) return std::nullopt;
  return MakeFingerprint(agent_, *fingerprinter, record.key_name, record.old_version, seen_old_,
                         SourceFilePath(sink));
}

Status RotationKeys::CheckNoVolumeKey(const RotationRecord& record, const std::string& place) {
  if (!IsVolume(place)) return Ok();
  ASSIGN_OR_RETURN(const auto location, ParseLocation(place));
  ASSIGN_OR_RETURN(const bool is_volume_key,
                   IsVolumeKey(agent_, record.key_name, record.old_version));
  if (!is_volume_key) return Ok();
  return Error(
      ErrorCode::kUsage, Action::kFixInput,
      fmt::format("{} is the volume key of {}: another one means to encrypt all of it anew",
                  record.key_name, location->VolumePath()),
      "do that with 'cryptsetup reencrypt', then escrow the new one with 'keyescrow "
      "backup " +
          record.key_name + "'");
}

// CheckPrevious: a generation that is still there from before would be in the way.
Status RotationKeys::CheckPrevious(const std::string& key_name, const std::string& path) {
  struct stat status {};
  const std::string previous = path + kPreviousSuffix;
  if (lstat(previous.c_str(), &status) != 0) return Ok();
  const auto kept = ReadKeyFile(previous);
  const auto present = ReadKeyFile(path);
  if (kept && present && kept->key.EqualsConstantTime(present->key)) return Ok();
  return Error(ErrorCode::kDestinationOtherKey, Action::kFixInput,
               previous + " still holds a key that was put aside earlier",
               "when it is needed no more, remove it: 'keyescrow restore " + key_name +
                   " --discard-previous --to " + path + "'; then rotate");
}

Result<SecretBytes> RotationKeys::New() {
  if (!request_.source.empty()) {
    ASSIGN_OR_RETURN(const auto location, ParseLocation(request_.source));
    ASSIGN_OR_RETURN(SecretBytes key, location->Read());
    RETURN_IF_ERROR(CheckIsNew(key));
    return key;
  }
  std::size_t size_bytes = request_.generate_bytes;
  if (size_bytes == 0) {
    const std::string place = PlaceOf(agent_, request_.key_name, request_.sink);
    if (IsVolume(place)) return RandomSecret(*agent_.environment().random, kKeyslotBytes);
    Result<SecretBytes> key =
        Error(ErrorCode::kUsage, Action::kFixInput, "where the key lives is not declared", "");
    // Where it is declared the key in use stands; a sink elsewhere may hold anything.
    for (const std::string& candidate : {PlaceOf(agent_, request_.key_name, ""), place}) {
      if (candidate.empty() || IsVolume(candidate)) continue;
      ASSIGN_OR_RETURN(const auto location, ParseLocation(candidate));
      key = location->Read();
      if (key) break;
    }
    if (!key) {
      return Error(
          ErrorCode::kUsage, Action::kFixInput,
          "how long should the new key be? the one in use cannot be read: " + key.error().message(),
          "add --generate BYTES, or --from SOURCE");
    }
    size_bytes = key->size();
  }
  return RandomSecret(*agent_.environment().random, size_bytes);
}

Status RotationKeys::CheckIsNew(const SecretBytes& key) {
  ASSIGN_OR_RETURN(const auto records, agent_.store().Fingerprints(request_.key_name));
  ASSIGN_OR_RETURN(const auto rotations, agent_.store().Rotations(request_.key_name));
  const auto fingerprinter = Fingerprinter::Load(agent_.environment().state_dir);
  if (!fingerprinter) return Ok();
  for (const store::FingerprintRecord& row : records) {
    // That of a rotation that was rolled back, by a wrong PIN for one, never was in use.
    const bool abandoned = std::ranges::any_of(rotations, [&](const RotationRecord& rotation) {
      return rotation.key_version == row.key_version && rotation.step == RotationStep::kAbandoned;
    });
    if (abandoned || !fingerprinter->Matches(row, key)) continue;
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 fmt::format("{} holds the key of version {}: that is no new key", request_.source,
                             row.key_version),
                 "name another --from, or let --generate make one");
  }
  return Ok();
}

Result<SecretBytes> RotationKeys::Old(const RotationRecord& record) {
  const std::string place = PlaceOf(agent_, request_.key_name, "");
  if (!place.empty()) {
    ASSIGN_OR_RETURN(const HeldKey held, WhatStands(agent_, record, place));
    if (held.held == Held::kOther) return HoldsOther(held.where, record);
    if (held.held == Held::kOld) {
      ASSIGN_OR_RETURN(const auto location, ParseLocation(place));
      return location->Read();
    }
  }
  return Open(record.key_name, record.old_version);
}

Result<SecretBytes> RotationKeys::Open(const std::string& key_name, std::uint32_t version) {
  InMemory memory;
  RestoreRequest restore;
  restore.name_or_file = key_name;
  restore.version = version;
  restore.via = request_.via;
  restore.reason = request_.reason;
  restore.ticket = request_.ticket;
  restore.into = &memory;
  RETURN_IF_ERROR(Restore(agent_.environment(), &agent_, restore, secrets_, progress_));
  return memory.Take();
}

}  // namespace keyescrow::agent
