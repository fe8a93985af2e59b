// The report as JSON and as CSV.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "agent/report/report_model.h"

namespace keyescrow::agent::report {

inline constexpr const char* kReportSchema = "keyescrow/audit-report/1";

// ReportDocument is the whole report; times are UTC texts, what is not known is null.
nlohmann::ordered_json ReportDocument(const ReportModel& model);

// ForeignListJson: its member `foreign`.
nlohmann::ordered_json ForeignListJson(const ReportModel& model);

// ReportJson is the document's text, indented by two, with a last line feed.
std::string ReportJson(const ReportModel& model);

// ReportCsv: RFC 4180 with a header line. The first column says what a row is: `fact`, `figure`,
// `key`, `path`, `foreign`, `finding`, `release`, `verification`, `checked` or `not_checked`. A
// cell that a spreadsheet would take for a formula starts with an apostrophe.
std::string ReportCsv(const ReportModel& model);

}  // namespace keyescrow::agent::report
