// adopt: a key that another host escrowed gets paths on this one.
#pragma once

#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/backup.h"
#include "agent/usecases/secrets.h"

namespace keyescrow::agent {

struct AdoptRequest {
  std::string name_or_file;
  std::string as;                  // the name here; "": the envelope's
  std::vector<std::string> paths;  // [ID=]EXPR
  std::string via;                 // path id of the envelope that is adopted
  std::string kdf;                 // as BackupRequest
  std::string note;                // "": where it came from
  std::string reason;              // for the log, as those of a restore
  std::string ticket;
  std::string module;         // --module, for tokens that are not registered
  std::string trusted_agent;  // thumbprint
  bool use_last_try = false;
};

struct AdoptResult {
  BackupResult escrowed;  // nothing is delivered, and no file written
  std::string from_host;
  std::string from_name;
  std::uint32_t from_version = 0;
  std::string from_agent;  // thumbprint
  std::string via;
};

// Adopt opens the envelope by one of its paths and escrows its key anew, signed by this agent: a
// new envelope, file key and version; the old one is left as it is. No key of the name is
// overwritten: the name must be free here, or be that of the imported envelope itself. The policy
// is asked as for a release of the old key, and about the paths under both names. What was made is
// reopened by every path at hand and committed with its proofs in one transaction. Errors:
// kAlreadyExists, kUsage where it is this host's own key; FindEnvelope's, those of opening and of
// Backup.
Result<AdoptResult> Adopt(Agent& agent, const AdoptRequest& request, Secrets& secrets,
                          Progress& progress);

}  // namespace keyescrow::agent
