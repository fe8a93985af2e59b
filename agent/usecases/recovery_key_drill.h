// The drill of a recovery key: its factors are asked for once, and by what they open every envelope
// that goes to it is opened to its tag.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/usecases/recovery_keys.h"

namespace keyescrow::agent {

// kRecoveryKeyPrefix stands before a recovery key's name where a key's could stand.
inline constexpr std::string_view kRecoveryKeyPrefix = "recovery-key:";

struct RecoveryKeyDrillRequest {
  std::string name;
  std::string module;  // for tokens that are not registered
};

struct EnvelopeDrill {
  std::string key_name;
  std::uint32_t key_version = 0;
  std::string path_id;  // "" where the envelope could not be read
  std::optional<Error> error;
};

struct RecoveryKeyDrillReport {
  RecoveryKeyState key;
  std::size_t num_envelopes = 0;  // that go to it: of every version, the newest revision
  std::size_t num_proven = 0;     // signed by the path's drill key
  std::size_t num_opened = 0;     // with a copy of the record from before a change of the password:
                                  // opened, and by no key that its header names signed
  std::vector<EnvelopeDrill> failed;
  std::uint64_t log_seq = 0;  // the entry that tells of the key itself
  bool p256_signed = true;

  bool Complete() const { return failed.empty(); }
};

// DrillRecoveryKey opens the registered record, then each envelope that goes to it; each outcome is
// an entry of the log, with its proof, as in every drill. Costs one opening of the factors, and an
// ECDH, a tag and a signature for each envelope. Memory does not grow with them but for the names.
// Errors: kNotFound; those of opening the record, which are logged; kStore*.
Result<RecoveryKeyDrillReport> DrillRecoveryKey(Agent& agent,
                                                const RecoveryKeyDrillRequest& request,
                                                Secrets& secrets, Progress& progress);

}  // namespace keyescrow::agent
