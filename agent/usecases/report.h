// audit report: fills the report's model from the agent. Nothing is opened and no device is asked.
#pragma once

#include "agent/report/report_model.h"
#include "agent/usecases/agent.h"

namespace keyescrow::agent {

// BuildReport reads the store and the log in one state; reads every entry, keeps the releases and
// verifications. Errors: as EvaluateStatus; kLogDamaged.
Result<report::ReportModel> BuildReport(Agent& agent);

// ReadReport is BuildReport inside a ReadTogether of the caller's.
Result<report::ReportModel> ReadReport(Agent& agent);

}  // namespace keyescrow::agent
