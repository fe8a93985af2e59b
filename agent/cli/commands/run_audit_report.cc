// audit report: one model, as text, HTML, JSON or CSV.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/key_locations/crash_safe_file.h"
#include "agent/key_locations/key_location.h"
#include "agent/report/report_html.h"
#include "agent/report/report_json.h"
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

}  // namespace

int RunAuditReport(const GlobalOptions& /*global*/, const AuditReportOptions& options,
                   Session& session) {
  return session.Exit(DoReport(options, session));
}

}  // namespace keyescrow::agent
