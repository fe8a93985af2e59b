// audit report: what an auditor reads.
#include "agent/cli/commands/specs.h"

namespace keyescrow::agent {
namespace {

using O = AuditReportOptions;

constexpr OptionSpec kOptions[] = {
    Flag<&O::html>("--html", "one HTML file, without a script, for a browser or a printer"),
    Flag<&O::csv>("--csv", "rows for a spreadsheet; the first column says what a row is"),
    Option<&O::output>("--output", "SINK", "where it goes: a file, or '-' for standard output")
        .Letter('o')
        .File(),
};
constexpr Example kExamples[] = {
    {"keyescrow audit report --html -o report.html", "coverage, findings, proofs, releases"},
    {"keyescrow audit report --json | jq .figures", "the same figures for a program"},
    {"keyescrow audit report --csv -o report.csv", "and for a spreadsheet"},
};
constexpr std::uint8_t kExits[] = {0, 2, 4, 8, 9, 11};

Status Check(const CommandOptions& options) {
  const auto& report = std::get<O>(options);
  if (report.html && report.csv) {
    return UsageError("--html and --csv exclude each other", "keyescrow audit report --help");
  }
  return Ok();
}

}  // namespace

constexpr CommandSpec kAuditReportCommand = {
    .name = "audit report",
    .purpose = "report coverage, proofs, findings and releases, and what was not checked",
    .options = kOptions,
    .details =
        "HTML, JSON and CSV come from one model and carry the same figures. Nothing is opened and "
        "no secret is asked for. The exit status is 0 once the report is made, whatever it says; "
        "'status' exits with 1 on critical findings.",
    .examples = kExamples,
    .exits = kExits,
    .make = &MakeOptions<O>,
    .check = &Check,
};

}  // namespace keyescrow::agent
