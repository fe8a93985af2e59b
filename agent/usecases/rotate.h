// rotate: a new key in the place of the one in use. It is escrowed and proven first, then handed
// over by a sink or a command, then seen to be in use; only then is the old version superseded, and
// it can be restored by its number ever after.
//
// Each step is durable before it is taken. A call that finds a rotation that was interrupted goes
// on with it: it confirms it, rolls it back, or hands the new version over again, and says which.
// Where it cannot know which key is in use it says so and changes nothing.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/backup.h"
#include "agent/usecases/secrets.h"

namespace keyescrow::agent {

struct RotateRequest {
  std::string key_name;
  std::string source;              // SOURCE of the new key, or ""
  std::size_t generate_bytes = 0;  // 0 without a source: as many as the key in use has
  std::string sink;                // SINK; "" without a command: where the declaration says
  std::string command;             // --apply
  std::chrono::milliseconds apply_timeout{std::chrono::minutes(5)};
  std::string luks_unlock_file;    // of a LUKS volume that is the sink
  std::string via;                 // the path that opens a version, where one must be opened
  std::vector<std::string> paths;  // [ID=]EXPR; empty: those of the version in use
  std::string kdf;
  std::vector<std::string> prove;
  std::string note;
  std::string reason;
  std::string ticket;
  bool abandon = false;  // roll the open rotation back, and begin none
};

// InterruptedRotation: what became of the rotation that this call found.
struct InterruptedRotation {
  std::uint32_t version = 0;
  std::string step;     // StepText
  std::string outcome;  // "confirmed", "rolled back", "handed over again", "old keyslot removed"
};

struct RotateResult {
  std::string key_name;
  std::uint32_t old_version = 0;
  std::uint32_t new_version = 0;
  bool rotated = false;  // false: nothing but an older rotation was rolled back
  std::optional<InterruptedRotation> interrupted;
  std::string confirmed_by;                 // "the exit status of the command", "the key at …"
  std::string sink;                         // as described, or ""
  std::string previous_path;                // where a file sink keeps the old key, or ""
  std::optional<unsigned> keyslot;          // of the LUKS volume that the new key opens
  std::optional<unsigned> retired_keyslot;  // that the old key opened, and which is gone
  bool retired_all = true;                  // false: the old key may still open the volume
  // False: a finding says what is to be done before one key alone is in use everywhere.
  bool settled = true;
  std::vector<PathProof> paths;
  bool recoverable = true;  // a path of the new version that opens elsewhere is proven or covered
  std::optional<std::uint64_t> log_seq;
  bool p256_signed = true;
  std::vector<std::string> findings;
};

// Errors: kKeyNotFound; kStoreBusy while another process rotates the key, or its command still
// runs; kNotFound with `abandon` where none is under way; kFindings where which key is in use is
// not known, or no path of the new version was proven; kDestinationCommand, which says what became
// of the new version; kDestinationOtherKey where the key at the sink is no escrowed one; those of
// backup and restore.
Result<RotateResult> Rotate(Agent& agent, const RotateRequest& request, Secrets& secrets,
                            Progress& progress);

}  // namespace keyescrow::agent
