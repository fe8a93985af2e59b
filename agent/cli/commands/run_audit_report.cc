// audit report: one model, as text, HTML, JSON or CSV; audit export: the evidence pack.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/key_locations/crash_safe_file.h"
#include "agent/key_locations/key_location.h"
#include "agent/report/report_html.h"
#include "agent/report/report_json.h"
#include "agent/usecases/evidence_pack.h"
#include "agent/usecases/report.h"

namespace keyescrow::agent {
namespace {

std::string RenderSummary(const Terminal& terminal, const report::ReportModel& model) {
  std::string text = report::Complies(model) ? terminal.PaintResult(Color::kGreen, "complies")
                                             : terminal.PaintResult(Color::kRed, "does not comply");
  text += fmt::format(": host {}, policy {}, log of {} entries\n", EscapeForTerminal(model.host),
                      EscapeForTerminal(model.policy), model.checkpoint.size);
  for (const report::Figure& figure : report::FiguresOf(model)) {
    text += fmt::format("  {:<24}{:>8}\n", figure.name, figure.value);
  }
  for (const std::string& limit : model.not_checked) text += "not checked: " + limit + "\n";
  return text;
}

Status WriteReport(const std::string& sink, const std::string& text, Session& session) {
  if (sink.empty() || sink == "-") return session.terminal().WriteResult(text);
  ASSIGN_OR_RETURN(const auto location, ParseLocation(sink));
  const std::string path = location->FilePath();
  if (path.empty()) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "a report goes to a file or to standard output, not to " + sink,
                 "give '-o -' and pipe it");
  }
  DurableWriteOptions options;
  options.mode = 0600;
  options.may_write = [&] {
    return CheckDocumentPlace(
        path, "a report of keyescrow",
        {"– keyescrow</title>", "keyescrow/audit-report/1", "record,name,value,key,version"});
  };
  RETURN_IF_ERROR(WriteFileDurably(path, AsBytes(text), options));
  session.terminal().Note("the report is in " + path);
  return Ok();
}

Result<int> DoReport(const AuditReportOptions& options, Session& session) {
  const bool json = session.terminal().json();
  if (json && (options.html || options.csv)) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "--json excludes --html and --csv: a report is written in one form",
                 "leave one of them out");
  }
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  session.progress().Step("reading the log");
  ASSIGN_OR_RETURN(const report::ReportModel model, BuildReport(*agent));
  session.progress().Pause();
  const std::string text = options.html  ? report::ReportHtml(model)
                           : options.csv ? report::ReportCsv(model)
                           : json        ? report::ReportJson(model)
                                         : RenderSummary(session.terminal(), model);
  RETURN_IF_ERROR(WriteReport(options.output, text, session));
  return kExitDone;
}

Result<int> DoExport(const AuditExportOptions& options, Session& session) {
  const bool to_stdout = options.output == "-";
  if (to_stdout) {
    RETURN_IF_ERROR(session.CheckStdoutSink("--output", false));
    RETURN_IF_ERROR(session.terminal().CheckBinaryOutput());
  }
  std::string path;
  if (!to_stdout) {
    ASSIGN_OR_RETURN(const auto location, ParseLocation(options.output));
    path = location->FilePath();
    if (path.empty()) {
      return Error(ErrorCode::kUsage, Action::kFixInput,
                   "a pack goes to a file or to standard output, not to " + options.output,
                   "give '-o -' and pipe it");
    }
  }
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  session.progress().Step("exporting the evidence");
  ASSIGN_OR_RETURN(
      const PackResult result,
      to_stdout ? ExportEvidence(
                      *agent, [&](ByteView bytes) { return session.terminal().WriteBinary(bytes); })
                : ExportEvidenceFile(*agent, path));
  session.progress().Pause();
  Json document = NewDocument("audit export");
  document["output"] = options.output;
  document["agent"] = agent->identity().Thumbprint();
  document["log_size"] = result.log_size;
  document["files"] = result.num_files;
  document["bytes"] = result.size_bytes;
  document["agent_key_signed"] = result.agent_key_signed;
  document["complies"] = result.complies;
  document["envelopes"] = false;
  constexpr Column kFields[] = {{"agent", "  agent"},
                                {"log_size", "  log entries"},
                                {"files", "  files"},
                                {"bytes", "  size", CellFormat::kBytes},
                                {"complies", "  complies"}};
  const std::string text = "exported the evidence to " + EscapeForTerminal(options.output) + "\n" +
                           RenderFields(document, kFields) +
                           "  without the envelopes: their facts and hashes are in it\n";
  if (!result.agent_key_signed) {
    session.terminal().Warn("the agent key did not sign the pack: see 'keyescrow doctor'");
  }
  return session.Finish(document, text, kExitDone, to_stdout);
}

}  // namespace

int RunAuditReport(const GlobalOptions& /*global*/, const AuditReportOptions& options,
                   Session& session) {
  return session.Exit(DoReport(options, session));
}

int RunAuditExport(const GlobalOptions& /*global*/, const AuditExportOptions& options,
                   Session& session) {
  return session.Exit(DoExport(options, session));
}

}  // namespace keyescrow::agent
