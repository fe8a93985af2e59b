// The tables of the HTML report.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "agent/report/report_model.h"

namespace keyescrow::agent::report {

std::string FindingsTable(const ReportModel& model);
// KeyTables lists every key, in blocks of 200 where there are more.
std::string KeyTables(const ReportModel& model);
std::string ForeignTable(const ReportModel& model);
std::string ProofAgeTable(const ReportModel& model);
std::string ReleaseTable(const ReportModel& model);
std::string VerificationTable(const ReportModel& model);
std::string ControlTable();

// Counted: "1 key", "2 keys".
std::string Counted(std::uint64_t number, std::string_view thing);
// Age: "today", "1 day ago", "3 days ago".
std::string Age(std::int64_t then, std::int64_t now);
// DateTime: "2026-11-25 22:57".
std::string DateTime(std::int64_t time);

}  // namespace keyescrow::agent::report
