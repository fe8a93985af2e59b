#include "agent/usecases/luks_binding.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/key_locations/luks_header.h"
#include "agent/usecases/fingerprint.h"
#include "agent/usecases/superseded_keyslot.h"

namespace keyescrow::agent {
namespace {

using Binding = store::LuksBindingRecord;

// Comparison: what a volume says of a binding.
enum class Comparison : std::uint8_t {
  kSame,
  kOtherVolume,
  kOtherVolumeKey,
  kKeyslotGone,
  kKeyslotChanged,
  kUnreadable
};

Comparison Compare(const Binding& binding, const std::string& path, const LuksHeader& header) {
  if (header.volume != binding.volume) {
    return header.uuid == binding.uuid ? Comparison::kOtherVolumeKey : Comparison::kOtherVolume;
  }
  if (!binding.keyslot) return Comparison::kSame;
  if (header.FindKeyslot(binding.keyslot->number) == nullptr) return Comparison::kKeyslotGone;
  const auto hash = KeyslotHash(path, header, binding.keyslot->number);
  if (!hash) return Comparison::kUnreadable;
  return *hash == binding.keyslot->hash ? Comparison::kSame : Comparison::kKeyslotChanged;
}

std::string Difference(Comparison comparison, const Binding& binding, const std::string& path) {
  const unsigned keyslot = binding.keyslot ? binding.keyslot->number : 0;
  switch (comparison) {
    case Comparison::kOtherVolume:
      return fmt::format("another LUKS volume stands at {}: not that of UUID {}", path,
                         binding.uuid);
    case Comparison::kOtherVolumeKey:
      return fmt::format("the volume key of {} is another: it was re-encrypted or formatted anew",
                         path);
    case Comparison::kKeyslotGone:
      return fmt::format("the keyslot of the escrowed key was removed: keyslot {} of {}", keyslot,
                         path);
    case Comparison::kKeyslotChanged:
      return fmt::format("the keyslot of the escrowed key was changed: keyslot {} of {}", keyslot,
                         path);
    default: return "the keyslot of the escrowed key cannot be read";
  }
}

std::string RestoreCommand(const std::string& key_name, const std::string& path) {
  return "'keyescrow restore " + key_name + " --to luks:" + path + " --luks-unlock-file FILE'";
}

// AddReencryption: the header still names the volume key that goes; a keyslot of it alone opens
// nothing in the meantime.
void AddReencryption(const Binding& binding, const std::string& key_name, const std::string& path,
                     DriftResult& result) {
  const std::string finish =
      "finish it with 'cryptsetup reencrypt --resume-only " + path + "'; then ";
  result.in_use = binding.keyslot ? KeyInUse::kOther : KeyInUse::kEscrowed;
  result.findings.push_back(
      {"key_drift", binding.keyslot.has_value(),
       path + " is being re-encrypted: the escrowed " +
           (binding.keyslot ? "keyslot may open it no more" : "volume key is on its way out"),
       finish + (binding.keyslot ? RestoreCommand(key_name, path) + " looks, and adds it again"
                                 : "'keyescrow backup " + key_name + "' escrows the new one")});
}

// BindingsOf returns those of the volume of that UUID, and those of the path; by version. What was
// about to be handed over, and not seen, tells nothing.
std::vector<const Binding*> BindingsOf(const std::vector<Binding>& bindings,
                                       const std::string& key_name, const std::string& path,
                                       const std::string& uuid) {
  std::vector<const Binding*> found;
  for (const Binding& binding : bindings) {
    if (binding.keyslot && !binding.keyslot->IsKnown()) continue;
    const bool is_there = binding.device == path || (!uuid.empty() && binding.uuid == uuid);
    if (binding.key_name == key_name && is_there) found.push_back(&binding);
  }
  return found;
}

// BindingsAt is BindingsOf for a location; where its header does not read, of the path alone.
std::vector<const Binding*> BindingsAt(const std::vector<Binding>& bindings,
                                       const std::string& key_name, const KeyLocation& location) {
  const auto header = ReadLuksHeader(location.VolumePath());
  return BindingsOf(bindings, key_name, AbsolutePath(location.VolumePath()),
                    header ? header->uuid : "");
}

}  // namespace

Result<std::int64_t> BindingTime(Agent& agent, const std::string& key_name) {
  ASSIGN_OR_RETURN(const auto rotations, agent.store().Rotations(key_name));
  std::int64_t time = agent.Now();
  for (const store::RotationRecord& row : rotations) time = std::max(time, row.changed + 1);
  return time;
}

Result<std::int64_t> RotationTime(Agent& agent, const std::string& key_name,
                                  const std::vector<Binding>& also) {
  ASSIGN_OR_RETURN(const auto bindings, agent.store().LuksBindings(key_name));
  std::int64_t time = agent.Now();
  for (const Binding& binding : bindings) time = std::max(time, binding.time);
  for (const Binding& binding : also) time = std::max(time, binding.time);
  return time;
}

Result<std::optional<Binding>> MakeLuksBinding(Agent& agent, const std::string& key_name,
                                               std::uint32_t version, const KeyLocation& location,
                                               std::optional<unsigned> keyslot) {
  const std::string path = location.VolumePath();
  if (path.empty()) return std::optional<Binding>();
  ASSIGN_OR_RETURN(const LuksHeader header, ReadLuksHeader(path));
  Binding binding;
  binding.key_name = key_name;
  binding.key_version = version;
  binding.device = AbsolutePath(path);
  binding.uuid = header.uuid;
  binding.volume = header.volume;
  if (keyslot) {
    ASSIGN_OR_RETURN(const Bytes32 hash, KeyslotHash(path, header, *keyslot));
    binding.keyslot = Binding::Keyslot{*keyslot, hash};
  }
  ASSIGN_OR_RETURN(binding.time, BindingTime(agent, key_name));
  return std::optional(std::move(binding));
}

Result<bool> IsVolumeKey(Agent& agent, const std::string& key_name, std::uint32_t version) {
  ASSIGN_OR_RETURN(const auto bindings, agent.store().LuksBindings(key_name));
  return std::any_of(bindings.begin(), bindings.end(), [version](const Binding& binding) {
    return binding.key_version == version && !binding.keyslot;
  });
}

Status CheckNotMixed(Agent& agent, const std::string& key_name, const KeyLocation& location,
                     bool generates) {
  if (location.VolumePath().empty()) return Ok();
  ASSIGN_OR_RETURN(const auto bindings, agent.store().LuksBindings(key_name));
  const auto found = BindingsAt(bindings, key_name, location);
  if (found.empty() || found.back()->keyslot.has_value() == generates) return Ok();
  if (generates) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 key_name + " is the volume key of " + location.VolumePath() +
                     ": the secret of a keyslot is another key",
                 "escrow it under a name of its own");
  }
  return Error(ErrorCode::kUsage, Action::kFixInput,
               key_name + " is the secret of a keyslot of " + location.VolumePath() +
                   ", which nobody can read back: it is escrowed already",
               "a new one: 'keyescrow backup " + key_name +
                   " --generate 64 --to luks:…'; the volume key: escrow it under a name of its "
                   "own");
}

DriftResult CheckVolume(const std::vector<Binding>& bindings, const std::string& key_name,
                        std::uint32_t newest, const std::string& path) {
  DriftResult result;
  const auto header = ReadLuksHeader(path);
  if (!header && header.error().code() == ErrorCode::kNotFound) {
    result.in_use = KeyInUse::kMissing;
    result.findings.push_back({"source_missing", true, "there is no LUKS volume at " + path,
                               "put the volume back; its key is escrowed"});
    return result;
  }
  if (!header) {
    const bool is_luks = header.error().code() != ErrorCode::kInvalidLocation;
    result.in_use = is_luks ? KeyInUse::kUnreadable : KeyInUse::kOther;
    result.why_not = header.error().message();
    result.findings.push_back(
        {is_luks ? "source_unreadable" : "key_drift", !is_luks,
         (is_luks ? "whether the key in use is the escrowed one is not known: "
                  : "the volume of the escrowed key is not there: ") +
             header.error().message(),
         header.error().hint()});
    return result;
  }
  const auto found = BindingsOf(bindings, key_name, AbsolutePath(path), header->uuid);
  const Binding* binding = nullptr;
  const Binding* older = nullptr;
  for (const Binding* candidate : found) {
    if (candidate->key_version == newest) {
      // Bound at several paths: what holds now, else what is of this very volume.
      const bool is_same = Compare(*candidate, path, *header) == Comparison::kSame;
      if (binding == nullptr || is_same) binding = candidate;
      if (is_same) break;
      if (binding->uuid != header->uuid) binding = candidate;
    } else if (Compare(*candidate, path, *header) == Comparison::kSame) {
      older = candidate;
    }
  }
  const Comparison comparison =
      binding == nullptr ? Comparison::kUnreadable : Compare(*binding, path, *header);
  if (binding != nullptr && comparison == Comparison::kSame && header->IsReencrypting()) {
    AddReencryption(*binding, key_name, path, result);
    return result;
  }
  if (binding != nullptr && comparison == Comparison::kSame) {
    result.in_use = KeyInUse::kEscrowed;
    return result;
  }
  if (older != nullptr) {
    result.in_use = KeyInUse::kOlderVersion;
    result.older_version = older->key_version;
    result.findings.push_back(
        {"key_drift", true,
         fmt::format("the key in use is not the escrowed one: {} has version {}, and the newest "
                     "is {}",
                     path, older->key_version, newest),
         RestoreCommand(key_name, path) + " hands the newest over"});
    return result;
  }
  if (binding == nullptr || comparison == Comparison::kUnreadable) {
    result.why_not = binding == nullptr ? fmt::format("version {} was not seen at {}", newest, path)
                                        : "its keyslot cannot be read";
    result.findings.push_back(
        {"fingerprint_missing", false,
         "whether the key in use is the escrowed one is not known: " + result.why_not,
         RestoreCommand(key_name, path) + " looks, and adds its keyslot where it is missing"});
    return result;
  }
  result.in_use = KeyInUse::kOther;
  const bool volume_changed =
      comparison == Comparison::kOtherVolume || comparison == Comparison::kOtherVolumeKey;
  const std::string add = RestoreCommand(key_name, path);
  result.findings.push_back(
      {"key_drift", true, Difference(comparison, *binding, path),
       binding->keyslot
           ? (volume_changed ? "if this is meant, " + add + " makes it a keyslot of this volume"
                             : add + " adds it again")
           : "if this is meant, escrow the new volume's key with 'keyescrow backup'; "
             "the escrowed one opens what was there before"});
  return result;
}

Result<std::optional<std::uint32_t>> KeyslotInUse(Agent& agent, const std::string& key_name,
                                                  const std::string& source) {
  const std::optional<std::uint32_t> none;
  const auto location = ParseLocation(source);
  if (!location || (*location)->VolumePath().empty()) return none;
  ASSIGN_OR_RETURN(const auto in_use, agent.store().VersionInUse(key_name));
  if (!in_use) return none;
  ASSIGN_OR_RETURN(const auto bindings, agent.store().LuksBindings(key_name));
  const auto found = BindingsAt(bindings, key_name, **location);
  const bool is_keyslot = std::ranges::any_of(found, [&](const Binding* binding) {
    return binding->key_version == *in_use && binding->keyslot;
  });
  if (!is_keyslot) return none;
  const DriftResult drift = CheckVolume(bindings, key_name, *in_use, (*location)->VolumePath());
  return drift.in_use == KeyInUse::kEscrowed ? in_use : none;
}

Result<std::vector<std::string>> StandingKeyslots(Agent& agent, const std::string& key_name) {
  std::vector<std::string> standing;
  ASSIGN_OR_RETURN(const auto bindings, agent.store().LuksBindings(key_name));
  for (const Binding& binding : bindings) {
    const auto header = ReadLuksHeader(binding.device);
    if (!header) continue;
    const bool not_seen = binding.keyslot && !binding.keyslot->IsKnown();
    const bool stands = not_seen ? header->volume == binding.volume &&
                                       header->FindKeyslot(binding.keyslot->number) != nullptr
                                 : Compare(binding, binding.device, *header) == Comparison::kSame;
    if (!stands) continue;
    std::string text =
        binding.keyslot ? fmt::format("keyslot {} of {}", binding.keyslot->number, binding.device)
                        : "the volume " + binding.device;
    if (not_seen) text += ", perhaps";
    if (std::find(standing.begin(), standing.end(), text) == standing.end()) {
      standing.push_back(std::move(text));
    }
  }
  return standing;
}

Result<OldKeyslot> FindOldKeyslot(Agent& agent, const store::RotationRecord& rotation,
                                  const KeyLocation& location,
                                  std::optional<unsigned> new_keyslot) {
  using State = OldKeyslot::State;
  OldKeyslot old;
  const std::string path = AbsolutePath(location.VolumePath());
  const auto header = ReadLuksHeader(path);
  if (!header) return old;
  ASSIGN_OR_RETURN(const auto bindings, agent.store().LuksBindings(rotation.key_name));
  bool was_here = false;
  bool may_stand = false;
  for (const Binding& binding : bindings) {
    if (binding.key_version != rotation.old_version || !binding.keyslot) continue;
    if (binding.device != path && binding.uuid != header->uuid) continue;
    was_here = true;
    if (!binding.keyslot->IsKnown()) {
      may_stand = may_stand || IsNotKnownWhich(binding);
      continue;
    }
    const unsigned number = binding.keyslot->number;
    switch (Compare(binding, path, *header)) {
      case Comparison::kSame:
        old.state = State::kStands;
        old.keyslot = RetiredSecret{number, binding.keyslot->hash};
        return old;
      case Comparison::kKeyslotGone: break;
      case Comparison::kKeyslotChanged:
        if (new_keyslot == number) break;  // the new key has its place
        old.changed = number;
        may_stand = true;
        break;
      default: may_stand = true;
    }
  }
  if (!was_here) {
    // Whatever was handed over to a volume here was seen there. One that was imported was not.
    ASSIGN_OR_RETURN(const auto fingerprint,
                     agent.store().FindFingerprint(rotation.key_name, rotation.old_version));
    const DeclaredKey* declared = agent.environment().config->FindKey(rotation.key_name);
    const auto lives = ParseLocation(declared == nullptr ? "-" : declared->source);
    may_stand = !fingerprint || (lives && !(*lives)->VolumePath().empty());
  }
  old.state = may_stand ? State::kUnknown : State::kGone;
  return old;
}

Result<std::optional<SupersededKeyslot>> FindSupersededKeyslot(
    Agent& agent, const store::RotationRecord& rotation) {
  const std::optional<SupersededKeyslot> none;
  if (rotation.step != store::RotationStep::kConfirmed) return none;
  const auto location = ParseLocation(rotation.sink.empty() ? "-" : rotation.sink);
  if (!location || (*location)->VolumePath().empty()) return none;
  const std::string device = AbsolutePath((*location)->VolumePath());
  const auto header = ReadLuksHeader(device);
  if (!header) return none;
  ASSIGN_OR_RETURN(const auto bindings, agent.store().LuksBindings(rotation.key_name));
  const Binding* old_one = nullptr;
  const Binding* new_one = nullptr;
  for (const Binding* binding : BindingsOf(bindings, rotation.key_name, device, header->uuid)) {
    if (!binding->keyslot) continue;
    if (binding->key_version == rotation.key_version) new_one = binding;
    if (binding->key_version != rotation.old_version) continue;
    if (binding->time > rotation.changed) return none;
    old_one = binding;
  }
  if (old_one == nullptr || new_one == nullptr) return none;
  if (Compare(*old_one, device, *header) != Comparison::kSame) return none;
  return std::optional(SupersededKeyslot{device, *old_one->keyslot, *new_one->keyslot});
}

Status RetireSuperseded(const SupersededKeyslot& superseded) {
  ASSIGN_OR_RETURN(const auto location, ParseLocation("luks:" + superseded.device));
  const auto removed =
      location->RetireBeside({superseded.old_keyslot.number, superseded.old_keyslot.hash},
                             {superseded.new_keyslot.number, superseded.new_keyslot.hash});
  return removed ? Ok() : Status(removed.error());
}

}  // namespace keyescrow::agent
