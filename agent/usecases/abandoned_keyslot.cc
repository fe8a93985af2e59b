#include "agent/usecases/abandoned_keyslot.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "agent/key_locations/key_location.h"
#include "agent/key_locations/luks_header.h"
#include "agent/usecases/fingerprint.h"
#include "agent/usecases/shell_word.h"

namespace keyescrow::agent {
namespace {

using Binding = store::LuksBindingRecord;
using store::RotationRecord;

// kNoKeyslot is a number that no keyslot has: nothing was left.
constexpr std::uint32_t kNoKeyslot = UINT32_MAX;

std::string Device(const std::string& place) {
  const auto location = ParseLocation(place.empty() ? "-" : place);
  return location && !(*location)->VolumePath().empty() ? AbsolutePath((*location)->VolumePath())
                                                        : "";
}

// Remedy removes the keyslot that the version opens, whichever it is, and no other.
std::string Remedy(const Binding& binding) {
  return fmt::format(
      "this removes it where that version opens it, and no other: keyescrow restore {} --version "
      "{} --to {}",
      binding.key_name, binding.key_version,
      ShellWord("exec:cryptsetup luksRemoveKey " + ShellWord(binding.device) + " -"));
}

std::string What(const Binding& binding) {
  return fmt::format("version {}, which was abandoned, may open {} by keyslot {}",
                     binding.key_version, binding.device, binding.keyslot->number);
}

// Stands tells whether the keyslot is there: where its hash is not known, any of that number.
bool Stands(const Binding& binding) {
  const auto header = ReadLuksHeader(binding.device);
  if (!header || header->volume != binding.volume) return false;
  if (header->FindKeyslot(binding.keyslot->number) == nullptr) return false;
  if (!binding.keyslot->IsKnown()) return true;
  const auto hash = KeyslotHash(binding.device, *header, binding.keyslot->number);
  return hash && *hash == binding.keyslot->hash;
}

}  // namespace

Result<std::optional<Binding>> ExpectKeyslot(Agent& agent, const RotationRecord& record,
                                             const std::string& place) {
  const std::optional<Binding> none;
  const std::string device = Device(place);
  if (device.empty()) return none;
  ASSIGN_OR_RETURN(const auto known, agent.store().LuksBindings(record.key_name));
  const bool is_known = std::ranges::any_of(known, [&](const Binding& binding) {
    return binding.key_version == record.key_version && binding.device == device;
  });
  const auto header = ReadLuksHeader(device);
  if (is_known || !header) return none;
  Binding binding;
  binding.key_name = record.key_name;
  binding.key_version = record.key_version;
  binding.device = device;
  binding.uuid = header->uuid;
  binding.volume = header->volume;
  binding.keyslot.emplace();
  while (header->FindKeyslot(binding.keyslot->number) != nullptr) ++binding.keyslot->number;
  binding.time = agent.Now();
  return std::optional(std::move(binding));
}

Result<LeftAtVolumes> LookForLeft(Agent& agent, const RotationRecord& record) {
  LeftAtVolumes left;
  ASSIGN_OR_RETURN(auto bindings, agent.store().LuksBindings(record.key_name));
  for (Binding& binding : bindings) {
    if (binding.key_version != record.key_version || !binding.keyslot) continue;
    if (binding.keyslot->IsKnown()) continue;
    const auto header = ReadLuksHeader(binding.device);
    if (!header || Stands(binding)) {
      left.findings.push_back(What(binding) + ": " + Remedy(binding));
    }
    if (!header) continue;  // looked at again by `status`
    binding.time = agent.Now();
    const auto hash = KeyslotHash(binding.device, *header, binding.keyslot->number);
    if (Stands(binding) && hash) {
      binding.keyslot->hash = *hash;
    } else {
      binding.keyslot->number = kNoKeyslot;
    }
    left.bindings.push_back(std::move(binding));
  }
  return left;
}

Result<std::vector<Finding>> AbandonedKeyslotFindings(
    Agent& agent, const std::string& key_name, const std::vector<RotationRecord>& rotations) {
  std::vector<Finding> findings;
  const auto is_abandoned = [](const RotationRecord& record) {
    return record.step == store::RotationStep::kAbandoned;
  };
  if (std::ranges::none_of(rotations, is_abandoned)) return findings;
  ASSIGN_OR_RETURN(const auto bindings, agent.store().LuksBindings(key_name));
  for (const Binding& binding : bindings) {
    const bool was_left = std::ranges::any_of(rotations, [&](const RotationRecord& record) {
      return is_abandoned(record) && record.key_name == binding.key_name &&
             record.key_version == binding.key_version && binding.time <= record.changed;
    });
    if (!was_left || !binding.keyslot || !Stands(binding)) continue;
    findings.push_back({"keyslot_abandoned", binding.key_name, agent.identity().host,
                        Severity::kWarning, What(binding), Remedy(binding)});
  }
  return findings;
}

}  // namespace keyescrow::agent
