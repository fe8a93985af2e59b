// verify PACK: an evidence pack, checked offline with public keys alone. verify.py in the pack
// comes to the same verdict by its own code. agent/report/FORMAT.md.
#pragma once

#include <optional>
#include <string>

#include "agent/report/ustar.h"
#include "agent/usecases/drawn_sample.h"
#include "agent/usecases/registry.h"
#include "agent/usecases/verify.h"

namespace keyescrow::agent {

struct VerifyPackRequest {
  std::string file;
  std::optional<TrustDocument> trust;  // what the auditor brought
  std::string trusted_agent;           // thumbprint, or ""
  std::string since;                   // the auditor's own older checkpoint, or ""
  DrawnSample* sample = nullptr;       // what must have been drilled; null: nothing was drawn
};

// VerifyPack checks everything and says what it did not check. `agent` may be null; where the pack
// is of this agent's own log, its keys are trusted. The item's error is kLogDamaged where something
// was changed or contradicts itself, each a finding that names the member or the entry; the other
// findings are FORMAT.md's.
VerifyItem VerifyPack(Agent* agent, const VerifyPackRequest& request);

// OpenPack opens the archive. Errors: kLogDamaged where it is none; kNotFound.
Result<report::TarReader> OpenPack(const std::string& name_or_file);

// IsPack tells whether a NAME|FILE|PACK is a pack: an existing file that begins as one.
bool IsPack(const std::string& name_or_file);

}  // namespace keyescrow::agent
