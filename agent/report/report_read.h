// A report's model, read again from its JSON: so that what was made from it can be made anew.
#pragma once

#include <optional>
#include <string_view>

#include "agent/report/report_model.h"

namespace keyescrow::agent::report {

// ReadReportJson returns the model whose ReportJson the text is, as far as its members are of their
// types; whoever compares makes the JSON of it again. Nothing where they are not, or where the form
// is not kReportForm.
std::optional<ReportModel> ReadReportJson(std::string_view text);

// FormOf returns the report's form; nothing where it states none.
std::optional<std::uint64_t> FormOf(std::string_view text);

}  // namespace keyescrow::agent::report
