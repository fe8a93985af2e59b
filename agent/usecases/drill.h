// drill: proves that paths open, and discloses nothing: the key that comes out is compared with its
// tag, forgotten, and what is left is a statement signed by the path's drill seed, in the log.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/audit/challenge.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/secrets.h"
#include "envelope/drill.h"

namespace keyescrow::agent {

// DrillRequest: one of `name_or_file`, `all`, or a challenge that draws keys.
struct DrillRequest {
  std::string name_or_file;
  bool all = false;  // the newest version of every escrowed key
  std::string via;   // path id; "": every path
  std::string challenge_file;
  std::string module;
  std::string trusted_agent;              // thumbprint
  std::string pcr_policy_signature = {};  // FILE; "": none
  std::string event_log;                  // FILE; without state only
};

// Proven: opened to the content's tag, signed. Failed: something was tried and refused. Skipped:
// nothing was tried: what the path needs is not at hand, is locked, or was refused before.
enum class DrillOutcome : std::uint8_t { kProven, kFailed, kSkipped };
std::string_view DrillOutcomeName(DrillOutcome outcome);  // "proven", "failed", "skipped"

struct PathDrill {
  std::string path_id;
  std::string expression;
  DrillOutcome outcome = DrillOutcome::kSkipped;
  std::optional<Error> error;  // why it is not proven
  std::string statement;       // what was signed; "" where it is not proven
  Bytes64 signature{};
  Bytes32 drill_key{};
};

struct KeyDrill {
  std::string key_name;
  std::uint32_t key_version = 0;
  Bytes32 envelope_hash{};
  std::optional<Error> error;  // the envelope could not be read: no path was looked at
  std::vector<PathDrill> paths;
};

// NonceAnswer: what a token made of the challenge's nonce.
struct NonceAnswer {
  std::string token;
  Bytes32 key_sha256{};
  DrillOutcome outcome = DrillOutcome::kSkipped;
  std::optional<Error> error;
  Bytes32 answer{};
};

struct DrillReport {
  std::vector<KeyDrill> keys;
  std::vector<NonceAnswer> answers;
  std::optional<Bytes32> challenge;
  std::size_t num_proven = 0;  // paths
  std::size_t num_failed = 0;  // paths, and envelopes that could not be read
  std::size_t num_skipped = 0;
  std::string event_file;   // without state: where the events are
  bool p256_signed = true;  // the log's checkpoints carry the agent key's line

  // Complete: everything that was looked at is proven, and every nonce answered.
  bool Complete() const;
  // Cause returns why nothing is proven: the first failure, else the first thing that was skipped.
  std::optional<Error> Cause() const;
};

// Drill opens paths one after the other: one login a token key, one question for a password, and no
// PIN or password that was refused is tried again with the device that refused it. Each key's
// outcomes are durable in the log, with their proofs, before the next key is begun. `agent` is null
// where there is no state.
// Errors: kKeyNotFound, kPathNotFound, kUsage, kEventLogUnavailable, kStore*; what goes
// wrong with one path is in the report.
Result<DrillReport> Drill(const Environment& environment, Agent* agent, const DrillRequest& request,
                          Secrets& secrets, Progress& progress);

}  // namespace keyescrow::agent
