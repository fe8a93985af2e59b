// VerifyStore: a whole store against the log that its agent signed, with public keys alone.
//
// Every entry is hashed, every checkpoint compared, every envelope hashed, read and held against
// the entry that escrowed it; then what the store keeps beside its history is held against the log.
// Reads as many ranges at a time as it has threads, each by a reader of its own. Memory: 32 bytes
// an entry and some megabytes a thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "agent/audit/anchor.h"
#include "agent/audit/verify.h"
#include "agent/store/store_reader.h"
#include "agent/usecases/drill_check.h"
#include "envelope/anchor.h"
#include "envelope/base/result.h"

namespace keyescrow::agent {

struct StoreVerifyOptions {
  std::string state_dir;
  store::ReaderMode mode = store::ReaderMode::kEvidence;
  std::string origin;
  std::vector<audit::NoteKey> log_keys;
  std::vector<std::string> agents;  // thumbprints whose envelopes count: the log's own, and others
  std::vector<envelope::AnchorKey> anchor_keys;  // of the log's counter, where they are known
  std::optional<audit::Checkpoint> since;
  unsigned num_threads = 1;
  // Hashes and compares everything, and verifies the newest checkpoint's signatures alone.
  bool quick = false;
  // Called now and then from the calling thread.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress = nullptr;
};

struct StoreVerification {
  audit::LogReport log;  // with the findings of the store's rows
  std::uint64_t num_envelopes = 0;
  std::uint64_t num_destroyed = 0;  // of these, those that are gone as the log says
  std::uint64_t num_keys = 0;
  std::uint64_t num_envelope_signatures = 0;
  std::uint64_t num_paths = 0;
  std::uint64_t num_tpm_objects = 0;
  std::uint64_t num_policies = 0;         // the built-in one not among them
  std::uint64_t num_unread_policies = 0;  // that ask for a newer keyescrow
  std::uint64_t num_held_to_policy = 0;   // envelopes, to the policy in force when they were made
  std::uint64_t num_tokens = 0;
  std::uint64_t num_trusted = 0;
  std::uint64_t num_imported = 0;
  std::uint64_t num_rotations = 0;
  std::uint64_t num_releases = 0;
  std::uint64_t num_interrupted = 0;        // of these, logged to have ended without an outcome
  std::uint64_t num_anchors = 0;            // whose certificates were checked
  std::uint64_t num_unchecked_anchors = 0;  // no key of the counter was known
  // Where the entries say that the counter is, whichever it is.
  audit::AnchorTrail anchors = audit::AnchorTrail(std::vector<envelope::AnchorKey>());
  std::uint64_t num_proofs = 0;                // proven paths that the log tells of too
  std::uint64_t num_signed_proofs = 0;         // of these, signed with the path's own key
  DrillTally drills;                           // every proof in the log
  std::vector<std::string> unlogged_settings;  // names of settings, which nothing vouches for
  std::uint64_t file_bytes = 0;
  unsigned num_threads = 1;
  double seconds = 0;
};

// Errors: StoreReader's; kStoreBusy where the store does not stand still long enough, or evidence
// was written to while it was read.
Result<StoreVerification> VerifyStore(const StoreVerifyOptions& options);

// DefaultVerifyThreads is the number of processors, at most 4.
unsigned DefaultVerifyThreads();

}  // namespace keyescrow::agent
