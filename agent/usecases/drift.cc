#include "agent/usecases/drift.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "agent/key_locations/key_location.h"
#include "agent/usecases/luks_binding.h"
#include "agent/usecases/process_facts.h"

namespace keyescrow::agent {
namespace {

constexpr std::uint32_t kGroupAndOthers = 0066;  // read and write

std::string BackUp(const std::string& key_name) { return "'keyescrow backup " + key_name + "'"; }

std::string PutBack(const std::string& key_name, bool takes_keys) {
  return "'keyescrow restore " + key_name +
         (takes_keys ? " --replace' puts the escrowed one back"
                     : " --to SINK' gives the escrowed one to what takes it");
}

bool Before(const store::FingerprintRecord& record,
            const std::pair<std::string_view, std::uint32_t>& key) {
  return std::pair(std::string_view(record.key_name), record.key_version) < key;
}

// MustStop: not the source's failing but this process's.
bool MustStop(const Error& error) {
  return error.code() == ErrorCode::kMemoryLockLimit || error.code() == ErrorCode::kOutOfMemory;
}

}  // namespace

std::string_view KeyInUseName(KeyInUse in_use) {
  switch (in_use) {
    case KeyInUse::kEscrowed: return "escrowed";
    case KeyInUse::kOlderVersion: return "older_version";
    case KeyInUse::kOther: return "other";
    case KeyInUse::kMissing: return "missing";
    case KeyInUse::kUnreadable: return "unreadable";
    case KeyInUse::kNotCompared: return "not_compared";
  }
  return "not_compared";
}

DriftChecker::DriftChecker(Records records, std::vector<store::RotationRecord> rotations,
                           std::optional<Fingerprinter> fingerprinter, std::string machine,
                           const DriftOptions& options)
    : records_(std::move(records)),
      rotations_(std::move(rotations)),
      fingerprinter_(std::move(fingerprinter)),
      machine_(std::move(machine)),
      options_(options) {}

Result<DriftChecker> DriftChecker::Make(Agent& agent, const std::string& key_name,
                                        const DriftOptions& options) {
  ASSIGN_OR_RETURN(Records records, agent.store().Fingerprints(key_name));
  ASSIGN_OR_RETURN(auto rotations, agent.store().Rotations(key_name));
  std::erase_if(rotations, [](const auto& rotation) { return !rotation.IsOpen(); });
  std::optional<Fingerprinter> fingerprinter;
  std::string machine;
  if (!records.empty()) {
    auto loaded = Fingerprinter::Load(agent.environment().state_dir);
    if (loaded) {
      fingerprinter.emplace(std::move(*loaded));
    } else if (loaded.error().code() != ErrorCode::kNotFound) {
      return std::move(loaded).error();
    }
    machine = MachineId();
  }
  DriftChecker checker(std::move(records), std::move(rotations), std::move(fingerprinter),
                       std::move(machine), options);
  ASSIGN_OR_RETURN(checker.luks_bindings_, agent.store().LuksBindings(key_name));
  return checker;
}

bool DriftChecker::Rotating(const std::string& key_name, std::uint32_t version) const {
  return std::any_of(rotations_.begin(), rotations_.end(), [&](const auto& rotation) {
    return rotation.key_name == key_name && rotation.key_version == version;
  });
}

const store::FingerprintRecord* DriftChecker::Find(const std::string& key_name,
                                                   std::uint32_t version) const {
  const std::pair<std::string_view, std::uint32_t> wanted(key_name, version);
  const auto found = std::lower_bound(records_.begin(), records_.end(), wanted, Before);
  const bool is_it =
      found != records_.end() && found->key_name == key_name && found->key_version == version;
  return is_it ? &*found : nullptr;
}

std::string DriftChecker::BackedUpFrom(const std::string& key_name, std::uint32_t version) const {
  const store::FingerprintRecord* record = Find(key_name, version);
  if (record != nullptr && !record->source.empty()) return "file:" + record->source;
  for (const store::LuksBindingRecord& binding : luks_bindings_) {
    const bool not_seen = binding.keyslot && !binding.keyslot->IsKnown();
    if (binding.key_name == key_name && binding.key_version == version && !not_seen) {
      return "luks:" + binding.device;
    }
  }
  return "";
}

void DriftChecker::Compare(const std::string& key_name, std::uint32_t newest,
                           const std::string& where, bool takes_keys, const SecretBytes& key,
                           DriftResult& result) const {
  const store::FingerprintRecord* record = Find(key_name, newest);
  if (record == nullptr || !fingerprinter_ || !fingerprinter_->Made(*record)) {
    result.why_not = record == nullptr
                         ? fmt::format("version {} was escrowed without a fingerprint", newest)
                         : "the key of the fingerprints (fingerprint.key) was lost or replaced";
    result.findings.push_back(
        {"fingerprint_missing", false,
         "whether the key in use is the escrowed one is not known: " + result.why_not,
         takes_keys
             ? "'keyescrow restore " + key_name + " --to " + where +
                   "' compares them, and leaves another key alone; if it is the right one, " +
                   BackUp(key_name) + " leaves a fingerprint"
             : "if it is the right one, " + BackUp(key_name) + " leaves a fingerprint"});
    return;
  }
  if (fingerprinter_->Matches(*record, key)) {
    result.in_use = KeyInUse::kEscrowed;
    return;
  }
  result.in_use = KeyInUse::kOther;
  for (const store::FingerprintRecord& other : records_) {
    if (other.key_name == key_name && fingerprinter_->Matches(other, key)) {
      if (Rotating(key_name, other.key_version)) {
        result.in_use = KeyInUse::kEscrowed;
        return;
      }
      result.in_use = KeyInUse::kOlderVersion;
      result.older_version = other.key_version;
    }
  }
  std::string what = "the key in use is not the escrowed one: ";
  what += result.in_use == KeyInUse::kOlderVersion
              ? fmt::format("{} holds version {}, and the one in use is {}", where,
                            result.older_version, newest)
              : fmt::format("{} holds other bytes than version {}", where, newest);
  result.findings.push_back({"key_drift", true, std::move(what),
                             "if it is the right one, " + BackUp(key_name) + "; if not, " +
                                 PutBack(key_name, takes_keys)});
}

void DriftChecker::CompareContext(const store::FingerprintRecord& record, const std::string& path,
                                  const KeyFileAccess& access, DriftResult& result) const {
  const auto add = [&](std::string what) {
    result.findings.push_back({"context-changed", false, std::move(what),
                               "if this is meant, " + BackUp(record.key_name) +
                                   " again records it; if not, put it right"});
  };
  if (!record.machine.empty() && !machine_.empty() && record.machine != machine_) {
    add("the machine's id is not the one at its last backup: it was moved, copied or installed "
        "anew");
  }
  if (!record.access || record.source != AbsolutePath(path)) return;
  if (access.uid != record.access->uid || access.gid != record.access->gid) {
    add(fmt::format("{} now belongs to {}:{}; at its last backup to {}:{}", path, access.uid,
                    access.gid, record.access->uid, record.access->gid));
  }
  if ((access.permissions & ~record.access->mode & kGroupAndOthers) != 0) {
    add(fmt::format("{} is open to others now (mode {:04o}); at its last backup it was {:04o}",
                    path, access.permissions, record.access->mode));
  }
}

Result<DriftResult> DriftChecker::Check(const std::string& key_name, std::uint32_t newest,
                                        const std::string& source) const {
  DriftResult result;
  const auto unreadable = [&](const Error& error) {
    result.in_use = KeyInUse::kUnreadable;
    result.why_not = error.message();
    result.findings.push_back(
        {"source_unreadable", false,
         "whether the key in use is the escrowed one is not known: " + error.message(),
         error.hint()});
  };
  auto location = ParseLocation(source);
  if (!location) {
    unreadable(location.error());
    return result;
  }
  const std::string path = (*location)->FilePath();
  if (!path.empty()) {
    auto file = ReadKeyFile(path);
    if (file) {
      Compare(key_name, newest, path, true, file->key, result);
      if (const store::FingerprintRecord* record = Find(key_name, newest)) {
        CompareContext(*record, path, file->access, result);
      }
    } else if (MustStop(file.error())) {
      return std::move(file).error();
    } else if (file.error().code() == ErrorCode::kNotFound) {
      result.in_use = KeyInUse::kMissing;
      result.findings.push_back(
          {"source_missing", true, "there is no key at its source " + path,
           "'keyescrow restore " + key_name + " --to " + path + "' puts the escrowed one there"});
    } else if (file.error().code() == ErrorCode::kSourceSize) {
      result.in_use = KeyInUse::kOther;
      result.findings.push_back(
          {"key_drift", true, "the key in use is not the escrowed one: " + file.error().message(),
           PutBack(key_name, true)});
    } else {
      unreadable(file.error());
    }
    return result;
  }
  if (const std::string volume = (*location)->VolumePath(); !volume.empty()) {
    result = CheckVolume(luks_bindings_, key_name, newest, volume);
    if (result.in_use == KeyInUse::kOlderVersion && Rotating(key_name, result.older_version)) {
      result = DriftResult();
      result.in_use = KeyInUse::kEscrowed;
    }
    if (const store::FingerprintRecord* record = Find(key_name, newest)) {
      CompareContext(*record, "", {}, result);
    }
    return result;
  }
  if (source == "-" || !options_.run_commands) {
    result.why_not = source == "-" ? "standard input is not a place where a key lives"
                                   : "its source is a command, which was not run";
    return result;
  }
  auto key = (*location)->Read();
  if (!key && MustStop(key.error())) return std::move(key).error();
  if (!key) {
    unreadable(key.error());
    return result;
  }
  Compare(key_name, newest, "its source", false, *key, result);
  if (const store::FingerprintRecord* record = Find(key_name, newest)) {
    CompareContext(*record, "", {}, result);
  }
  return result;
}

}  // namespace keyescrow::agent
