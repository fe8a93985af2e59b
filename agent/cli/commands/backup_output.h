// What `backup NAME` and `backup --all` have in common.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "agent/cli/options.h"
#include "agent/cli/render.h"
#include "agent/cli/session.h"
#include "agent/usecases/backup.h"

namespace keyescrow::agent {

Result<BackupRequest> MakeBackupRequest(const BackupOptions& options, const std::string& name,
                                        const std::string& declared_source);
Json BackupJson(const BackupResult& result);
// FindingsOf returns the texts of the warnings.
std::vector<std::string> FindingsOf(const BackupResult& result);

// BackupAll is `backup --all`.
Result<int> BackupAll(const BackupOptions& options, Session& session);

}  // namespace keyescrow::agent
