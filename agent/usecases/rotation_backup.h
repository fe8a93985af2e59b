// The backup within a rotation: what it takes from the version in use, and what it tells besides.
#pragma once

#include <map>
#include <string>

#include "agent/usecases/backup.h"
#include "agent/usecases/kdf_choice.h"
#include "envelope/header.h"

namespace keyescrow::agent {

// KdfsAfter is ChooseKdfs for the successor of `in_use`: without a `name` and a declaration's its
// kind stays, and so do its costs where they are higher. Errors: ChooseKdfs'.
Result<PathKdfs> KdfsAfter(Agent& agent, const envelope::Header& in_use, const std::string& name);

// Refusals: by its id, why a path that was to be proven did not open.
using Refusals = std::map<std::string, Error, std::less<>>;

// BackupAfter is Backup of a rotation's key; with no `in_use` of any. Errors: Backup's.
Result<BackupResult> BackupAfter(Agent& agent, const BackupRequest& request,
                                 const envelope::Header* in_use, Refusals& refusals,
                                 Secrets& secrets, Progress& progress);

}  // namespace keyescrow::agent
