// The report as one HTML file: no script, nothing fetched, everything from outside escaped.
#pragma once

#include <string>

#include "agent/report/report_model.h"

namespace keyescrow::agent::report {

// ReportHtml's content policy allows its own style sheet, by hash, and nothing else. Each number
// that is a figure stands in <data data-figure=NAME value=N>.
std::string ReportHtml(const ReportModel& model);

}  // namespace keyescrow::agent::report
