#include "agent/usecases/succession.h"

#include <fmt/format.h>

#include <cstdint>

#include "agent/usecases/envelope_source.h"
#include "agent/usecases/rotation_record.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {
namespace {

// NotCompared tells of a version that another host escrowed and that was never restored to where it
// is declared here: what is backed up in its place may be another key, and nobody would notice
// before it is needed.
Result<std::string> NotCompared(Agent& agent, const std::string& key_name, std::uint32_t in_use,
                                std::uint32_t version) {
  ASSIGN_OR_RETURN(const auto record, agent.store().FindEnvelope(key_name, in_use));
  ASSIGN_OR_RETURN(const auto trust, TrustFor(&agent, "", true));
  const auto sealed = envelope::SealedEnvelope::Read(record.bytes, trust);
  if (sealed && sealed->header().agent == agent.identity().Thumbprint()) return std::string();
  return fmt::format(
      "version {} was imported{}, and whether this is the same key was not seen: version {} is in "
      "its place now. 'keyescrow restore {} --version {} --to FILE' gives the imported one; "
      "another key is better escrowed under a name of its own, and the same one moved with "
      "'keyescrow "
      "adopt'",
      in_use, sealed ? " from the host " + sealed->header().host : "", version, key_name, in_use);
}

}  // namespace

Result<std::uint32_t> NextKeyVersion(Agent& agent, const std::string& key_name) {
  ASSIGN_OR_RETURN(const auto open, agent.store().OpenRotation(key_name));
  if (open) return RotationIsOpen(*open);
  ASSIGN_OR_RETURN(const std::uint32_t highest, agent.store().HighestVersion(key_name));
  if (highest >= INT32_MAX) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 fmt::format("{} has version {}, and no later one is possible", key_name, highest),
                 "back the key up under another name");
  }
  return highest + 1;
}

Result<Succession> FindSuccession(Agent& agent, const std::string& key_name, std::uint32_t version,
                                  const SecretBytes& key, const Fingerprinter& fingerprinter,
                                  const std::optional<RotationStart>& rotation) {
  Succession succession;
  // A higher one that was imported meanwhile is in use, and stays it: this one would never be.
  ASSIGN_OR_RETURN(const std::uint32_t highest, agent.store().HighestVersion(key_name));
  if (highest >= version) {
    return Error(ErrorCode::kStoreBusy, Action::kRetry,
                 fmt::format("another command wrote version {} of {} meanwhile; nothing was "
                             "escrowed",
                             highest, key_name),
                 "run the command again");
  }
  std::optional<std::uint32_t>& in_use = succession.in_use;
  if (version > 1) {  // else there is none before it
    ASSIGN_OR_RETURN(in_use, agent.store().VersionInUse(key_name));
  }
  if (rotation) {
    if (in_use != rotation->old_version) {
      return Error(ErrorCode::kStoreBusy, Action::kRetry,
                   "another command escrowed " + key_name + " in this moment",
                   "run the command again");
    }
    store::RotationRecord& record = succession.rotation.emplace();
    record.key_name = key_name;
    record.key_version = version;
    record.old_version = rotation->old_version;
    record.sink = rotation->sink;
    record.command = rotation->command;
    record.started = agent.Now();
    record.changed = record.started;
    return succession;
  }
  succession.superseded = in_use;
  if (!in_use) return succession;
  ASSIGN_OR_RETURN(const auto fingerprint, agent.store().FindFingerprint(key_name, *in_use));
  if (!fingerprint) {
    ASSIGN_OR_RETURN(succession.finding, NotCompared(agent, key_name, *in_use, version));
    return succession;
  }
  if (!fingerprinter.Made(*fingerprint)) {
    succession.not_compared = true;
    succession.finding = fmt::format(
        "whether these are the bytes of version {} is not known: the key of the fingerprints "
        "(fingerprint.key) was lost or replaced, and version {} is in its place now. 'keyescrow "
        "restore {} --version {} --to FILE' gives the other",
        *in_use, version, key_name, *in_use);
    return succession;
  }
  succession.other_bytes = !fingerprinter.Matches(*fingerprint, key);
  if (succession.other_bytes) {
    succession.finding = fmt::format(
        "these are other bytes than version {} has: the key was changed, or it is a wrong one. "
        "'keyescrow restore {} --version {} --to FILE' gives the other",
        *in_use, key_name, *in_use);
  }
  return succession;
}

void AddSuccession(const Succession& succession, const std::string& key_name, std::uint32_t version,
                   std::vector<audit::Event>& events, store::Change& change) {
  change.in_use_seen.push_back({key_name, succession.in_use});
  if (succession.rotation) {
    events.push_back(RotationEvent(*succession.rotation, audit::Outcome::kPending, "escrowed"));
    change.rotations.push_back(*succession.rotation);
    return;
  }
  if (!succession.superseded) return;
  if (succession.other_bytes) {
    store::RotationRecord changed;
    changed.key_name = key_name;
    changed.key_version = version;
    changed.old_version = *succession.superseded;
    events.push_back(
        RotationEvent(changed, audit::Outcome::kSuccess, "a backup found other bytes"));
  }
  audit::Event& superseded = events.emplace_back();
  superseded.type = audit::EventType::kEscrowSuperseded;
  superseded.key = audit::EventKey{key_name, *succession.superseded};
}

}  // namespace keyescrow::agent
