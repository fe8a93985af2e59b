// restore: recover a key from the store or from a file, on this host or on one without state.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/key_locations/key_location.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/open_path.h"
#include "agent/usecases/secrets.h"

namespace keyescrow::agent {

struct RestoreRequest {
  std::string name_or_file;
  std::string sink;              // SINK; "": where the declaration says the key lives
  std::string luks_unlock_file;  // what unlocks a LUKS volume that is the sink
  std::string via;               // path id; "": the first path whose hardware is here
  std::optional<std::uint64_t> version;
  std::string reason;
  std::string ticket;
  std::string expect;  // NAME[@VERSION]
  bool replace = false;
  std::string module;
  std::string trusted_agent;  // thumbprint
  bool accept_unknown_agent = false;
  bool use_last_try = false;
  std::string pcr_policy_signature = {};  // FILE; "": none
  std::string event_log;                  // FILE; without state only
  KeyLocation* into = nullptr;            // where the key goes, in the place of `sink`; not owned
};

struct RestoreResult {
  std::string key_name;
  std::uint32_t key_version = 0;
  std::string path_id;
  std::string sink;
  bool already_same = false;
  std::string previous_path;
  std::optional<unsigned> keyslot;  // of a LUKS volume: the one that the key opens
  std::string agent;                // thumbprint of the envelope's agent
  bool agent_trusted = true;
  std::string event_file;  // without state: where the events are
  std::optional<std::uint64_t> log_seq;
  bool p256_signed = true;
  bool outcome_logged = true;  // false: the key was delivered, and the log has the attempt alone
  std::size_t size_bytes = 0;
  std::vector<std::string> findings;
};

// Restore logs the attempt before any factor is used and its outcome after. `agent` is null where
// there is no state: the events then go to a file, which must be durable before anything is
// released. Errors: kEventLogUnavailable, kDestination*, envelopes' and factors' errors.
Result<RestoreResult> Restore(const Environment& environment, Agent* agent,
                              const RestoreRequest& request, Secrets& secrets, Progress& progress);

}  // namespace keyescrow::agent
