// audit report, audit export: what an auditor reads, and what he checks.
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
constexpr std::uint8_t kExits[] = {0, 2, 4, 8, 9, 11, 12};

constexpr OptionSpec kExportOptions[] = {
    Option<&AuditExportOptions::output>("--output", "PACK",
                                        "the archive to write, or '-' for standard output")
        .Letter('o')
        .Required()
        .File(),
};
constexpr Example kExportExamples[] = {
    {"keyescrow audit export -o db1.tar", "for the auditor; agent-key export goes another way"},
    {"keyescrow verify db1.tar --trust db1.agent-key", "on the auditor's machine"},
};
constexpr std::uint8_t kExportExits[] = {0, 2, 4, 8, 9, 11, 12};

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

constexpr CommandSpec kAuditExportCommand = {
    .name = "audit export",
    .purpose = "write the evidence pack: what an auditor needs, and a program that checks it",
    .options = kExportOptions,
    .details =
        "One tar archive, signed: the whole log with its tree and proofs, keys, policy, inventory, "
        "each envelope's facts, drill proofs, the report, a control map, and verify.py. The "
        "envelopes themselves are not in it. The export is logged before anything is written.\n\n"
        "'verify PACK' checks it; so does verify.py, once it is unpacked, with Python and openssl "
        "alone.",
    .examples = kExportExamples,
    .exits = kExportExits,
    .make = &MakeOptions<AuditExportOptions>,
};

}  // namespace keyescrow::agent
