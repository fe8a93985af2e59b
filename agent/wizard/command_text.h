// The command lines that do the same as a journey of the wizard.
#pragma once

#include <string>
#include <string_view>

#include "agent/usecases/backup.h"
#include "agent/usecases/restore.h"
#include "agent/usecases/shell_word.h"  // for who writes such a line

namespace keyescrow::agent {

// BackupCommand and RestoreCommand return e.g. "keyescrow backup prod/db --from /etc/db.key …".
// No secret is in a request.
std::string BackupCommand(const std::string& command, const BackupRequest& request);
std::string RestoreCommand(const std::string& command, const RestoreRequest& request);

}  // namespace keyescrow::agent
