#include "agent/usecases/rotation_record.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <map>

#include "agent/key_locations/file_location.h"
#include "agent/key_locations/key_location.h"
#include "agent/usecases/abandoned_keyslot.h"
#include "agent/usecases/fingerprint.h"
#include "agent/usecases/luks_binding.h"
#include "agent/usecases/rotation_place.h"
#include "agent/usecases/superseded_keyslot.h"
#include "agent/usecases/version_life.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

using store::RotationRecord;
using store::RotationStep;

constexpr std::string_view kLockFile = "rotation.lock";

bool MustStop(const Error& error) {
  return error.code() == ErrorCode::kMemoryLockLimit || error.code() == ErrorCode::kOutOfMemory;
}

// ReadPlace reads without waiting where the place is a file: kNotFound where nothing is there.
Result<SecretBytes> ReadPlace(const std::string& place) {
  ASSIGN_OR_RETURN(const auto location, ParseLocation(place));
  const std::string path = location->FilePath();
  if (path.empty()) return location->Read();
  ASSIGN_OR_RETURN(KeyFile file, ReadKeyFile(path));
  return std::move(file.key);
}

// WhatOpens tells of a volume's keyslots: which of them the new key opens. That it opens none of
// another volume tells nothing.
Result<HeldKey> WhatOpens(Agent& agent, const RotationRecord& record, KeyLocation& volume,
                          const SecretBytes* new_key) {
  HeldKey result;
  result.where = volume.VolumePath();
  if (new_key == nullptr) {
    result.why_not = "which keys open " + result.where + " is not seen without one of them";
    return result;
  }
  const std::string bring_back =
      fmt::format("bring the volume of the key back to {} and run 'keyescrow rotate {}' again",
                  result.where, record.key_name);
  const auto keyslot = volume.FindKeyslot(*new_key);
  if (!keyslot) {
    if (MustStop(keyslot.error())) return keyslot.error();
    result.why_not = keyslot.error().message();
    if (keyslot.error().code() == ErrorCode::kNotFound) result.remedy = bring_back;
    return result;
  }
  result.held = *keyslot ? Held::kNew : Held::kOld;
  result.keyslot = *keyslot;
  if (*keyslot) return result;
  ASSIGN_OR_RETURN(const auto other,
                   FindOtherVolume(agent, record.key_name, {record.old_version, record.key_version},
                                   result.where, true));
  if (!other) return result;
  result.held = Held::kUnknown;
  result.is_not_new = true;
  result.why_not = fmt::format(
      "another LUKS volume stands at {}, of UUID {}: that of the key has "
      "UUID {}, and was seen at {}",
      result.where, other->uuid, other->bound.uuid, other->bound.device);
  result.remedy = bring_back;
  return result;
}

// RotationRemedy: what ends it.
std::string RotationRemedy(const RotationRecord& record) {
  if (record.step != RotationStep::kHandedOver) {
    return "'keyescrow rotate " + record.key_name + "' finishes it or rolls it back";
  }
  return fmt::format(
      "look which version the application has: 'keyescrow rotate {}' confirms version {} where it "
      "stands at the declared source, or hands it over again with --to SINK; --abandon rolls back",
      record.key_name, record.key_version);
}

}  // namespace

audit::Event RotationEvent(const RotationRecord& record, audit::Outcome outcome,
                           std::string_view how) {
  audit::Event event;
  event.type = audit::EventType::kKeyRotated;
  event.outcome = outcome;
  event.key = audit::EventKey{record.key_name, record.key_version};
  event.reason = RotationReason(record.old_version, record.key_version, how);
  return event;
}

std::string StepText(const RotationRecord& record) {
  switch (record.step) {
    case RotationStep::kEscrowed:
      return fmt::format("before version {} was proven", record.key_version);
    case RotationStep::kProven:
      return fmt::format("before version {} was handed over", record.key_version);
    case RotationStep::kHandingOver:
      return fmt::format("while version {} was handed over", record.key_version);
    case RotationStep::kHandedOver:
      return fmt::format("after version {} was handed over, before that was seen",
                         record.key_version);
    case RotationStep::kConfirmed: return "after it was confirmed";
    case RotationStep::kAbandoned: return "after it was abandoned";
  }
  return "";
}

Error RotationIsOpen(const RotationRecord& record) {
  return Error(
      ErrorCode::kStoreBusy, Action::kFixInput,
      fmt::format("a rotation of {} from version {} to {} is under way since {}", record.key_name,
                  record.old_version, record.key_version, FormatUtc(record.started)),
      RotationRemedy(record));
}

bool IsVolume(const std::string& place) {
  const auto location = ParseLocation(place.empty() ? "-" : place);
  return location && !(*location)->VolumePath().empty();
}

std::string PlaceOf(const Agent& agent, const std::string& key_name, const std::string& sink) {
  if (!sink.empty()) {
    const auto location = ParseLocation(sink);
    if (location && !(*location)->FilePath().empty()) return sink;
    if (IsVolume(sink)) return sink;
  }
  const DeclaredKey* declared = agent.environment().config->FindKey(key_name);
  return declared == nullptr || declared->source == "-" ? "" : declared->source;
}

Result<HeldKey> WhatStands(Agent& agent, const RotationRecord& record, const std::string& place,
                           const SecretBytes* new_key) {
  HeldKey result;
  if (place.empty()) {
    result.why_not = "where the key lives is not declared";
    return result;
  }
  const auto location = ParseLocation(place);
  if (location && !(*location)->VolumePath().empty()) {
    return WhatOpens(agent, record, **location, new_key);
  }
  result.where = location && !(*location)->FilePath().empty() ? (*location)->FilePath()
                                                              : "its declared source";
  auto key = ReadPlace(place);
  if (!key) {
    if (MustStop(key.error())) return std::move(key).error();
    if (key.error().code() == ErrorCode::kNotFound) {
      result.held = Held::kNothing;
      result.remedy = fmt::format(
          "if a file system is to be mounted there, mount it and run "
          "'keyescrow rotate {}' again",
          record.key_name);
    } else if (key.error().code() == ErrorCode::kSourceSize) {
      result.held = Held::kOther;
    } else {
      result.why_not = key.error().message();
    }
    return result;
  }
  auto fingerprinter = Fingerprinter::Load(agent.environment().state_dir);
  if (!fingerprinter) {
    if (fingerprinter.error().code() != ErrorCode::kNotFound) {
      return std::move(fingerprinter).error();
    }
    result.why_not = "the key of the fingerprints (fingerprint.key) was lost";
    return result;
  }
  ASSIGN_OR_RETURN(const auto records, agent.store().Fingerprints(record.key_name));
  bool knows_old = false;
  bool knows_new = false;
  for (const store::FingerprintRecord& row : records) {
    if (!fingerprinter->Made(row)) continue;
    const bool matches = fingerprinter->Matches(row, *key);
    if (row.key_version == record.key_version) {
      knows_new = true;
      if (matches) result.held = Held::kNew;
    }
    if (row.key_version == record.old_version) {
      knows_old = true;
      if (matches && result.held != Held::kNew) result.held = Held::kOld;
    }
  }
  if (result.held != Held::kUnknown) return result;
  if (knows_old && (knows_new || record.key_version == 0)) {
    result.held = Held::kOther;
  } else {
    result.why_not = "a version was escrowed without a fingerprint that can be compared";
    result.is_not_new = knows_new;
  }
  return result;
}

Result<std::vector<Finding>> RotationFindings(Agent& agent, const std::string& key_name) {
  std::vector<Finding> findings;
  ASSIGN_OR_RETURN(const auto rotations, agent.store().Rotations(key_name));
  std::map<std::string_view, const RotationRecord*> confirmed;  // the last one of each key
  for (const RotationRecord& record : rotations) {
    if (record.step == RotationStep::kConfirmed) confirmed[record.key_name] = &record;
    if (!record.IsOpen()) continue;
    findings.push_back(
        {"rotation_open", record.key_name, agent.identity().host, Severity::kWarning,
         fmt::format("a rotation from version {} to {} is under way since {}: it stands {}",
                     record.old_version, record.key_version, FormatUtc(record.started),
                     StepText(record)),
         RotationRemedy(record)});
  }
  for (const auto& [name, record] : confirmed) {
    ASSIGN_OR_RETURN(const auto superseded, FindSupersededKeyslot(agent, *record));
    if (!superseded) continue;
    findings.push_back(
        {"keyslot_superseded", record->key_name, agent.identity().host, Severity::kWarning,
         fmt::format("version {}, which was superseded, still opens {} by keyslot {}",
                     record->old_version, superseded->device, superseded->old_keyslot.number),
         "'keyescrow rotate " + record->key_name + "' removes it"});
  }
  ASSIGN_OR_RETURN(auto may_open, SupersededFindings(agent, key_name));
  std::ranges::move(may_open, std::back_inserter(findings));
  ASSIGN_OR_RETURN(auto abandoned, AbandonedKeyslotFindings(agent, key_name, rotations));
  std::ranges::move(abandoned, std::back_inserter(findings));
  return findings;
}

Result<KeySince> ReadKeySince(Agent& agent, const std::string& key_name, std::uint32_t in_use) {
  KeySince since;
  std::uint32_t first = 0;  // the first version with the key's bytes
  EventFilter filter;
  filter.key_name = key_name;
  filter.types = {audit::EventType::kKeyRotated, audit::EventType::kEscrowCreated,
                  audit::EventType::kKeyDestroyed, audit::EventType::kRestoreCompleted,
                  audit::EventType::kRestoreReleased};  // which may have happened
  RETURN_IF_ERROR(agent.journal().Events(filter, [&](const LoggedEvent& logged) {
    if (!logged.event || !logged.event->key || logged.event->key->version > in_use) return true;
    const audit::Event& event = *logged.event;
    // Of imported events a release alone counts: nothing signed them.
    if (event.source == audit::kStatelessSource &&
        event.type != audit::EventType::kRestoreCompleted) {
      return true;
    }
    switch (event.type) {
      case audit::EventType::kKeyDestroyed:
        if (event.envelope) first = 0;
        break;
      case audit::EventType::kEscrowCreated:
        if (first != 0) break;
        first = event.key->version;
        since = {event.time, std::nullopt};
        break;
      case audit::EventType::kKeyRotated:
        if (event.outcome != audit::Outcome::kSuccess) break;
        first = event.key->version;
        since = {event.time, std::nullopt};
        break;
      default:
        if (event.key->version >= first) {
          since.released = std::min(since.released.value_or(event.time), event.time);
        }
        break;
    }
    return true;
  }));
  return since;
}

Result<RotationLock> RotationLock::Take(const std::string& state_dir, const std::string& key_name) {
  const std::string path = fmt::format("{}/{}", state_dir, kLockFile);
  const int file = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (file < 0) {
    return ErrnoError(ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
                      path + " cannot be opened", "check the state folder's permissions", errno);
  }
  RotationLock lock(file);
  // One byte a key: other keys rotate at the same time.
  const Bytes32 digest = Sha256(AsBytes(key_name));
  std::int64_t place = 0;
  std::memcpy(&place, digest.data(), sizeof place);
  struct flock range {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_start = static_cast<off_t>(place & 0x3fffffffffffffff);
  range.l_len = 1;
  if (fcntl(file, F_OFD_SETLK, &range) == 0) return lock;
  if (errno == EAGAIN || errno == EACCES) {
    return Error(ErrorCode::kStoreBusy, Action::kRetry,
                 "another process rotates or destroys " + key_name + " at this moment",
                 "wait for it to end");
  }
  return ErrnoError(ErrorCode::kStoreUnavailable, Action::kCheckSystemState,
                    path + " cannot be locked", "check the state folder's file system", errno);
}

RotationLock::~RotationLock() {
  if (file_ >= 0) close(file_);
}

}  // namespace keyescrow::agent
