// Files of this folder that are a part of the binary.
#pragma once

namespace keyescrow::agent::report {

extern const char* const kReportCss;         // report.css
extern const char* const kRecoverySheetCss;  // recovery_sheet.css
extern const char* const kVerifyPy;          // verify.py
extern const char* const kPackReadme;        // pack_readme.txt

}  // namespace keyescrow::agent::report
