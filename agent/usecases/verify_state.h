// VerifyState: a whole state, this host's or a copy, as one item of `verify`: whose keys count,
// what was checked and what was not.
#pragma once

#include <optional>
#include <string>

#include "agent/usecases/registry.h"
#include "agent/usecases/secrets.h"
#include "agent/usecases/verify.h"

namespace keyescrow::agent {

struct StateVerifyRequest {
  std::string state_dir;
  store::ReaderMode mode = store::ReaderMode::kEvidence;
  std::optional<TrustDocument> trust;  // what the auditor brought
  std::string trusted_agent;           // thumbprint, or ""
  std::string since;                   // the auditor's own older checkpoint, or ""
  unsigned num_threads = 0;
  bool quick = false;
};

// VerifyState returns the state's item; what was found is in it. Errors: where nothing could be
// read: kNotInitialized, kStore*; kAgentNotTrusted where the state is of another agent than the one
// that was named; kLogDamaged where none of the log's keys signed `since`.
Result<VerifyItem> VerifyState(const StateVerifyRequest& request, Progress& progress);

}  // namespace keyescrow::agent
