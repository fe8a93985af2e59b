// Files of this folder that are a part of the binary.
#pragma once

namespace keyescrow::agent::report {

extern const char* const kReportCss;  // report.css

}  // namespace keyescrow::agent::report
