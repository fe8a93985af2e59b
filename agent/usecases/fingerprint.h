// Fingerprints of protected keys: a MAC under a key of the state folder (fingerprint.key), bound to
// name and version. By it the key in use is compared with the escrowed one without any password.
//
// A fingerprint stands in the store alone, never in the log, in output or in a message: who has it
// together with fingerprint.key can test guesses of the protected key (docs/THREAT-MODEL.md).
#pragma once

#include <string>

#include "agent/key_locations/file_location.h"
#include "agent/store/escrow_store.h"
#include "agent/usecases/agent.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::agent {

class Fingerprinter {
 public:
  // Load reads fingerprint.key; Ensure makes it where it is missing. Errors: LoadFingerprintKey's,
  // EnsureFingerprintKey's.
  static Result<Fingerprinter> Load(const std::string& state_dir);
  static Result<Fingerprinter> Ensure(const std::string& state_dir, RandomSource& random);

  // Of returns HMAC-SHA-256(fingerprint.key, label ‖ 00 ‖ u32(name's size) ‖ name ‖ u32(version) ‖
  // key), integers big-endian.
  Bytes32 Of(const std::string& key_name, std::uint32_t version, const SecretBytes& key) const;

  // Made tells whether the record was made with this fingerprint.key; else nothing can be said.
  bool Made(const store::FingerprintRecord& record) const { return record.mac_key_id == id_; }
  // Matches compares in constant time.
  bool Matches(const store::FingerprintRecord& record, const SecretBytes& key) const;

  const Bytes16& id() const { return id_; }

 private:
  explicit Fingerprinter(SecretBytes mac_key);
  SecretBytes mac_key_;
  Bytes16 id_{};
};

// AbsolutePath returns the path from the root, without '.' and '..'; "" stays "".
std::string AbsolutePath(const std::string& path);

// SourceFilePath returns the absolute path of a SOURCE that is a file, else "".
std::string SourceFilePath(const std::string& source);

// MakeFingerprint is the record of a version that is being escrowed, or restored to its source:
// `source_path` is the file that the key lives in now, or that it will be handed over to, or "".
store::FingerprintRecord MakeFingerprint(const Agent& agent, const Fingerprinter& fingerprinter,
                                         const std::string& key_name, std::uint32_t version,
                                         const SecretBytes& key, const std::string& source_path);

// AddRestoredFingerprint adds the record of a key that was just restored to the place where it is
// declared to live; to any other place nothing. Without fingerprint.key nothing either: a restore
// does not fail by this.
void AddRestoredFingerprint(Agent& agent, const std::string& key_name, std::uint32_t version,
                            const SecretBytes& key, const std::string& sink_path,
                            store::Change& change);

}  // namespace keyescrow::agent
