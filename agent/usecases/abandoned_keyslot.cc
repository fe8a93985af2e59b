#include "agent/usecases/abandoned_keyslot.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "agent/key_locations/key_location.h"
#include "agent/key_locations/luks_header.h"
#include "agent/usecases/fingerprint.h"
#include "agent/usecases/shell_word.h"

namespace keyescrow::agent {
namespace {

using Binding = store::LuksBindingRecord;
using store::RotationRecord;

std::string Device(const std::string& place) {
  const auto location = ParseLocation(place.empty() ? "-" : place);
  return location && !(*location)->VolumePath().empty() ? AbsolutePath((*location)->VolumePath())
                                                        : "";
}

std::string What(const Binding& binding) {
  return fmt::format("version {}, which was abandoned, may open {} by keyslot {}",
                     binding.key_version, binding.device, binding.keyslot->number);
}

// StandingHash returns the hash of the keyslot that stands where the binding has one: where its own
// is not known, of any with that number that no version of a key is known to open.
std::optional<Bytes32> StandingHash(const Binding& binding, const std::vector<Binding>& all) {
  const auto header = ReadLuksHeader(binding.device);
  if (!header || header->volume != binding.volume) return std::nullopt;
  const std::uint32_t number = binding.keyslot->number;
  if (header->FindKeyslot(number) == nullptr) return std::nullopt;
  const auto hash = KeyslotHash(binding.device, *header, number);
  if (!hash) return std::nullopt;
  if (binding.keyslot->IsKnown()) {
    return *hash == binding.keyslot->hash ? std::optional(*hash) : std::nullopt;
  }
  const bool is_anothers = std::ranges::any_of(all, [&](const Binding& other) {
    return other.uuid == binding.uuid && other.keyslot && other.keyslot->number == number &&
           other.keyslot->hash == *hash;
  });
  return is_anothers ? std::nullopt : std::optional(*hash);
}

// NotSeen: those of the version that it was about to be handed over to, and that was not seen.
std::vector<Binding> NotSeen(const std::vector<Binding>& all, const RotationRecord& record) {
  std::vector<Binding> found;
  std::ranges::copy_if(all, std::back_inserter(found), [&](const Binding& binding) {
    return binding.key_name == record.key_name && binding.key_version == record.key_version &&
           binding.keyslot && !binding.keyslot->IsKnown();
  });
  return found;
}

}  // namespace

std::string RemovesKeyslot(const Binding& binding) {
  return fmt::format(
      "this removes it where that version opens it, and no other: keyescrow restore {} --version "
      "{} --to {}",
      binding.key_name, binding.key_version,
      ShellWord("exec:cryptsetup luksRemoveKey " + ShellWord(binding.device) + " -"));
}

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
  binding.keyslot = Binding::Keyslot();
  while (header->FindKeyslot(binding.keyslot->number) != nullptr) ++binding.keyslot->number;
  binding.time = agent.Now();
  return std::optional(std::move(binding));
}

Result<LeftAtVolumes> LookForLeft(Agent& agent, const RotationRecord& record,
                                  const std::string& empty) {
  LeftAtVolumes left;
  const std::string empty_device = Device(empty);
  ASSIGN_OR_RETURN(const auto all, agent.store().LuksBindings(""));
  for (Binding& binding : NotSeen(all, record)) {
    if (binding.device == empty_device) {
      binding.keyslot->number = kNoKeyslot;
      left.bindings.push_back(std::move(binding));
      continue;
    }
    const bool can_be_read = ReadLuksHeader(binding.device).has_value();
    const auto hash = StandingHash(binding, all);
    if (hash || !can_be_read)
      left.findings.push_back(What(binding) + ": " + RemovesKeyslot(binding));
    if (!can_be_read) continue;  // `status` looks again
    binding.time = agent.Now();
    binding.keyslot->hash = hash.value_or(Bytes32{});
    if (!hash) binding.keyslot->number = kNoKeyslot;
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
  ASSIGN_OR_RETURN(const auto bindings, agent.store().LuksBindings(""));
  for (const Binding& binding : bindings) {
    if (!key_name.empty() && binding.key_name != key_name) continue;
    const bool was_left = std::ranges::any_of(rotations, [&](const RotationRecord& record) {
      return is_abandoned(record) && record.key_name == binding.key_name &&
             record.key_version == binding.key_version && binding.time <= record.changed;
    });
    if (!was_left || !binding.keyslot || !StandingHash(binding, bindings)) continue;
    findings.push_back({"keyslot_abandoned", binding.key_name, agent.identity().host,
                        Severity::kWarning, What(binding), RemovesKeyslot(binding)});
  }
  return findings;
}

}  // namespace keyescrow::agent
