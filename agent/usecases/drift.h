// Drift: whether the key in use, at its source, is the escrowed one, and whether its surroundings
// are those of the backup. Found without any password, by the fingerprint that the backup left.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/fingerprint.h"

namespace keyescrow::agent {

// KeyInUse: what stands at the source, against the newest escrowed version.
enum class KeyInUse : std::uint8_t {
  kEscrowed,      // the same bytes; in a rotation, those of the old or the new version
  kOlderVersion,  // those of another escrowed version, which is not in use
  kOther,         // bytes that no escrowed version has
  kMissing,       // nothing
  kUnreadable,    // it could not be read
  kNotCompared,   // a command that was not allowed to run, or no fingerprint to compare with
};
std::string_view KeyInUseName(KeyInUse in_use);  // "escrowed", "older_version", "other" …

struct DriftOptions {
  bool run_commands = false;  // exec: sources are run; else they are not compared
};

// DriftFinding is a finding of one key: the rules key_drift and source_missing are critical;
// context-changed, source_unreadable and fingerprint_missing are warnings.
struct DriftFinding {
  std::string_view rule;
  bool critical = false;
  std::string what;
  std::string remedy;
};

struct DriftResult {
  KeyInUse in_use = KeyInUse::kNotCompared;
  std::uint32_t older_version = 0;  // kOlderVersion: which one
  std::string why_not;              // kUnreadable, kNotCompared
  std::vector<DriftFinding> findings;
};

// DriftChecker reads each source once. What does not change between keys is read at the first.
class DriftChecker {
 public:
  // Make reads the fingerprints of `key_name` ("": of every key). Errors: kStore*,
  // kStatePermissions.
  static Result<DriftChecker> Make(Agent& agent, const std::string& key_name,
                                   const DriftOptions& options);

  // Check compares what stands at `source` with version `newest` of the key. Whatever the source
  // does is a finding. Errors: kMemoryLockLimit, kOutOfMemory.
  Result<DriftResult> Check(const std::string& key_name, std::uint32_t newest,
                            const std::string& source) const;

  // BackedUpFrom returns the SOURCE, a file or a LUKS volume, that the version was escrowed from or
  // handed over to, or "".
  std::string BackedUpFrom(const std::string& key_name, std::uint32_t version) const;

 private:
  using Records = std::vector<store::FingerprintRecord>;
  DriftChecker(Records records, std::vector<store::RotationRecord> rotations,
               std::optional<Fingerprinter> fingerprinter, std::string machine,
               const DriftOptions& options);
  // Rotating: that version is the new one of a rotation that is under way.
  bool Rotating(const std::string& key_name, std::uint32_t version) const;
  const store::FingerprintRecord* Find(const std::string& key_name, std::uint32_t version) const;
  // Compare: `takes_keys` says that a restore that names no sink goes there.
  void Compare(const std::string& key_name, std::uint32_t newest, const std::string& where,
               bool takes_keys, const SecretBytes& key, DriftResult& result) const;
  void CompareContext(const store::FingerprintRecord& record, const std::string& path,
                      const KeyFileAccess& access, DriftResult& result) const;

  Records records_;                                      // by name and version
  std::vector<store::LuksBindingRecord> luks_bindings_;  // the same
  std::vector<store::RotationRecord> rotations_;
  std::optional<Fingerprinter> fingerprinter_;
  std::string machine_;
  DriftOptions options_;
};

}  // namespace keyescrow::agent
