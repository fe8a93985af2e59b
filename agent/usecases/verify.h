// verify: everything that can be checked without a secret, and what was not checked.
//
// Three things can be verified: an envelope's file with its receipt, a key of this host's store,
// and a whole state folder, this host's or a copy of another's. A copy is evidence: it is read and
// never written, and its own agent.json is believed in nothing that the auditor brought.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/audit/log_faults.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/registry.h"
#include "agent/usecases/secrets.h"
#include "agent/usecases/store_verification.h"

namespace keyescrow::agent {

struct VerifyFinding {
  std::string fault;  // stable: "leaf_hash", "missing_p256" …
  std::uint64_t position = 0;
  std::string what;
  std::string remedy;
  bool damage = false;
};

// VerifyItem: what was checked of one envelope, or of one state.
struct VerifyItem {
  std::string what;            // "prod/db version 1", "FILE", "state of db1"
  std::optional<Error> error;  // none: all that could be checked is good
  std::vector<std::string> checked;
  std::vector<std::string> not_checked;
  std::vector<VerifyFinding> findings;
  std::uint64_t num_findings = 0;  // all of them; `findings` holds the first hundred
  // Partial: something that a pass stands on was not checked; the last of not_checked says what.
  bool partial = false;
  std::uint64_t num_envelopes = 0;
  std::optional<StoreVerification> store;  // of a state

  bool Passes() const { return !error && !partial && num_findings == 0; }
};

// AddFindings gives an item its findings, damages first, and where there are damages its error:
// `failure` with their number, and `hint`.
void AddFindings(const audit::LogFindings& findings, std::string_view failure,
                 const std::string& hint, VerifyItem& item);

// ReadTrustDocument reads what `agent-key export` wrote. Errors: kUsage, kNotFound.
Result<TrustDocument> ReadTrustDocument(const std::string& file);

// SampleFiles: as the auditor kept them. `expected` and `answers`: both, or both "".
struct SampleFiles {
  std::string challenge;
  std::string expected;  // of 'audit sample --expected'
  std::string answers;   // of 'drill --answers'
};

struct VerifyRequest {
  std::vector<std::string> names_or_files;  // or state folders; empty: this host's state
  std::string trust_file;
  std::string trusted_agent;
  std::string since_file;
  // What an auditor drew; `challenge` not "": the request is of one pack, and of that alone.
  SampleFiles sample;
  unsigned num_threads = 0;  // 0: DefaultVerifyThreads
  bool quick = false;
};

// IsStateFolder tells whether a path is a folder with a store in it.
bool IsStateFolder(const std::string& path);

// Verify checks with public keys alone. `agent` may be null where no name is among the request; an
// empty request verifies `state_dir`.
Result<std::vector<VerifyItem>> Verify(const std::string& state_dir, Agent* agent,
                                       const VerifyRequest& request, Progress& progress);

// RecordVerification logs verify.passed, where all items pass, or verify.failed with what was
// found; `items` are those of an empty request. It returns the entry's number. Errors: as Append.
Result<std::uint64_t> RecordVerification(Agent& agent, const std::vector<VerifyItem>& items);

}  // namespace keyescrow::agent
