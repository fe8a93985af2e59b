// The report of an evidence pack, made anew from its own facts, and these held against the log.
#pragma once

#include <string>
#include <vector>

#include "agent/audit/log_faults.h"
#include "agent/report/ustar.h"
#include "agent/usecases/pack_log.h"

namespace keyescrow::agent {

// CheckPackReport makes status.json, report.html, report.csv and controls.md anew from what
// status.json states and compares every byte; then it holds the keys' facts against the summaries,
// releases, verifications and drills against the entries, the foreign escrows against
// inventory.json, and the times of drills against the policy. A report of another form than this
// version makes is said not to be made anew. Errors: kLogDamaged.
Status CheckPackReport(const report::TarReader& pack, const PackLog& log,
                       std::vector<std::string>& checked, std::vector<std::string>& not_checked,
                       audit::LogFindings& findings);

}  // namespace keyescrow::agent
