#include "agent/usecases/superseded_keyslot.h"

#include <fmt/format.h>

#include <utility>

#include "agent/key_locations/luks_header.h"
#include "agent/usecases/abandoned_keyslot.h"
#include "agent/usecases/fingerprint.h"

namespace keyescrow::agent {
namespace {

using Binding = store::LuksBindingRecord;
using store::RotationRecord;

// Suspects: bit N of the binding's number says that keyslot N may be it.
constexpr std::uint32_t kSuspects = 0x80000000;
constexpr unsigned kNumSuspects = 31;

// MayStand: none of the keyslots that it may be was removed.
bool MayStand(const Binding& binding) {
  const auto header = ReadLuksHeader(binding.device);
  if (!header || header->volume != binding.volume) return false;
  for (unsigned number = 0; number < kNumSuspects; ++number) {
    const bool may_be_it = (binding.keyslot->number >> number & 1) != 0;
    if (may_be_it && header->FindKeyslot(number) == nullptr) return false;
  }
  return true;
}

}  // namespace

bool IsNotKnownWhich(const Binding& binding) {
  return binding.keyslot && !binding.keyslot->IsKnown() && binding.keyslot->number >= kSuspects &&
         binding.keyslot->number != kNoKeyslot;
}

Result<std::optional<Binding>> MayOpen(const RotationRecord& rotation, const std::string& path,
                                       const OldKeyslot& old, std::optional<unsigned> new_keyslot) {
  ASSIGN_OR_RETURN(const LuksHeader header, ReadLuksHeader(path));
  std::optional<unsigned> number = old.changed;
  if (old.keyslot) number = old.keyslot->keyslot;
  Binding binding;
  binding.key_name = rotation.key_name;
  binding.key_version = rotation.old_version;
  binding.device = AbsolutePath(path);
  binding.uuid = header.uuid;
  binding.volume = header.volume;
  binding.keyslot = Binding::Keyslot{kSuspects, {}};
  binding.time = rotation.changed;
  for (const LuksKeyslot& keyslot : header.keyslots) {
    if (!keyslot.opens_volume || keyslot.id >= kNumSuspects || keyslot.id == new_keyslot) continue;
    if (number && keyslot.id != *number) continue;
    binding.keyslot->number |= 1U << keyslot.id;
  }
  if (binding.keyslot->number == kSuspects) return std::optional<Binding>();
  return std::optional(std::move(binding));
}

Result<std::vector<Binding>> OpensNoMore(Agent& agent, const std::string& key_name,
                                         std::uint32_t version) {
  ASSIGN_OR_RETURN(auto bindings, agent.store().LuksBindings(key_name));
  std::erase_if(bindings, [version](const Binding& binding) {
    return binding.key_version != version || !IsNotKnownWhich(binding);
  });
  for (Binding& binding : bindings) {
    binding.keyslot = Binding::Keyslot{kNoKeyslot, {}};
  }
  return bindings;
}

Result<std::vector<Finding>> SupersededFindings(Agent& agent, const std::string& key_name) {
  std::vector<Finding> findings;
  ASSIGN_OR_RETURN(const auto bindings, agent.store().LuksBindings(key_name));
  for (const Binding& binding : bindings) {
    if (!IsNotKnownWhich(binding) || !MayStand(binding)) continue;
    findings.push_back({"keyslot_superseded", binding.key_name, agent.identity().host,
                        Severity::kWarning,
                        fmt::format("version {}, which was superseded, may still open {}",
                                    binding.key_version, binding.device),
                        RemovesKeyslot(binding)});
  }
  return findings;
}

}  // namespace keyescrow::agent
