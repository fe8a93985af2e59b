// gate: decides whether a service may start, and starts it in this process's place.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/replace_process.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/gate.h"

namespace keyescrow::agent {
namespace {

Json FindingsJson(const std::vector<Finding>& findings) {
  Json list = Json::array();
  for (const Finding& finding : findings) {
    Json item = Json::object();
    item["rule"] = finding.rule;
    item["what"] = finding.what;
    item["remedy"] = finding.remedy;
    list.push_back(std::move(item));
  }
  return list;
}

Json GateJson(const GateResult& result) {
  Json document = NewDocument("gate");
  document["decision"] = GateDecisionName(result.decision);
  document["key"] = result.key_version == 0 ? Json{{"name", result.key_name}, {"version", nullptr}}
                                            : KeyJson(result.key_name, result.key_version);
  document["refusals"] = FindingsJson(result.refusals);
  document["warnings"] = FindingsJson(result.warnings);
  document["log_seq"] = result.log_seq ? Json(*result.log_seq) : Json(nullptr);
  return document;
}

Error Refused(const GateResult& result, bool starts) {
  const Finding& first = result.refusals.front();
  const std::string others =
      result.refusals.size() == 1 ? "" : fmt::format(" (and {} more)", result.refusals.size() - 1);
  return Error(ErrorCode::kPolicyRefused, Action::kFixInput,
               fmt::format("{} does not comply{}: {}{}", result.key_name,
                           starts ? ", so nothing was started" : "", first.what, others),
               first.remedy);
}

Result<int> DoGate(const GateOptions& options, Session& session) {
  const bool starts = !options.command.empty();
  std::string program;
  if (starts) {
    // Before an override is logged for something that cannot start.
    ASSIGN_OR_RETURN(program, FindProgram(options.command.front()));
  }
  session.UseStoreBusyTimeout(kGateBusyTimeout);
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  GateRequest request;
  request.key_name = options.name;
  request.override_reason = options.override_reason;
  request.run_commands = options.exec_sources;
  ASSIGN_OR_RETURN(const GateResult result, Gate(*agent, request));
  Terminal& terminal = session.terminal();
  for (const Finding& warning : result.warnings) {
    terminal.Note("note: " + warning.what + "; " + warning.remedy);
  }
  const bool refused = result.decision == GateDecision::kRefused;
  if (refused && !terminal.json()) {
    for (std::size_t index = 1; index < result.refusals.size(); ++index) {
      terminal.Warn(result.refusals[index].what + "; " + result.refusals[index].remedy);
    }
  }
  if (refused && (starts || !terminal.json())) {
    session.progress().Pause();
    terminal.PrintError(Refused(result, starts));
    return kExitRefused;
  }
  if (!result.refusals.empty()) {
    const bool overridden = result.decision == GateDecision::kOverridden;
    for (const Finding& refusal : result.refusals) {
      terminal.Warn((overridden ? "overridden: " : "not enforced: ") + refusal.what);
    }
  } else if (!options.override_reason.empty()) {
    terminal.Note("note: the key complies: the override was not needed, and is not logged");
  }
  if (starts) {
    session.ReplaceProcess(std::move(program), options.command);
    return kExitDone;
  }
  const std::string text = fmt::format(
      "{} version {} {}\n", EscapeForTerminal(result.key_name), result.key_version,
      result.decision == GateDecision::kComplies     ? "complies"
      : result.decision == GateDecision::kOverridden ? "does not comply: overridden"
                                                     : "does not comply: the policy only reports");
  return session.Finish(GateJson(result), text, refused ? kExitRefused : kExitDone);
}

}  // namespace

int RunGate(const GlobalOptions& /*global*/, const GateOptions& options, Session& session) {
  return session.Exit(DoGate(options, session));
}

}  // namespace keyescrow::agent
