#include "agent/usecases/rotation_place.h"

#include <fmt/format.h>

#include <algorithm>

#include "agent/key_locations/luks_header.h"
#include "agent/usecases/fingerprint.h"
#include "agent/usecases/shell_word.h"

namespace keyescrow::agent {

using store::RotationRecord;
using Binding = store::LuksBindingRecord;

Result<std::optional<OtherVolume>> FindOtherVolume(Agent& agent, const std::string& key_name,
                                                   const std::vector<std::uint32_t>& versions,
                                                   const std::string& path, bool with_expected) {
  const std::optional<OtherVolume> none;
  const auto header = ReadLuksHeader(path);
  if (!header) return none;
  ASSIGN_OR_RETURN(const auto bindings, agent.store().LuksBindings(key_name));
  std::optional<OtherVolume> other;
  for (const Binding& binding : bindings) {
    if (std::ranges::find(versions, binding.key_version) == versions.end()) continue;
    if (!binding.keyslot || !(with_expected || binding.keyslot->IsKnown())) continue;
    if (binding.uuid == header->uuid) return none;
    other = OtherVolume{header->uuid, binding};
  }
  return other;
}

Status CheckVolumeStands(Agent& agent, const RotationRecord& record, const KeyLocation& location) {
  const std::string path = location.VolumePath();
  if (path.empty()) return Ok();
  ASSIGN_OR_RETURN(const auto other,
                   FindOtherVolume(agent, record.key_name, {record.old_version}, path, false));
  if (!other) return Ok();
  return Error(
      ErrorCode::kDestinationOtherKey, Action::kFixInput,
      fmt::format("another LUKS volume stands at {}, of UUID {}: version {} of {} opens the one of "
                  "UUID {}, which was seen at {}",
                  path, other->uuid, record.old_version, record.key_name, other->bound.uuid,
                  other->bound.device),
      fmt::format("rotate where that volume is: 'keyescrow rotate {} --to luks:PATH', as of "
                  "/dev/disk/by-uuid/{}; if the key is to open the one at {}, make it a keyslot "
                  "there first: keyescrow restore {} --to {} --luks-unlock-file FILE",
                  record.key_name, other->bound.uuid, path, record.key_name,
                  ShellWord("luks:" + path)));
}

Result<bool> KeyStoodAt(Agent& agent, const RotationRecord& record, const std::string& path) {
  const std::string file = AbsolutePath(path);
  const DeclaredKey* declared = agent.environment().config->FindKey(record.key_name);
  if (declared != nullptr && SourceFilePath(declared->source) == file) return true;
  ASSIGN_OR_RETURN(const auto old_key,
                   agent.store().FindFingerprint(record.key_name, record.old_version));
  return old_key && old_key->source == file;
}

}  // namespace keyescrow::agent
