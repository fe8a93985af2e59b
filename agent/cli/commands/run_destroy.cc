// destroy: every version of a key leaves the store for good.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/destroy.h"

namespace keyescrow::agent {
namespace {

// ConfirmName has the person type the key's name; --yes is not enough for what cannot be undone.
Status ConfirmName(const DestroyOptions& options, const DestroyPlan& plan, Session& session) {
  if (!options.confirm.empty()) {
    if (options.confirm == options.name) return Ok();
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "--confirm names another key: nothing was destroyed",
                 "give the key's name once more: --confirm " + options.name);
  }
  session.progress().Pause();
  for (const std::string& left : plan.left) {
    session.terminal().Note("cannot be shredded from here: " + left);
  }
  return session.ConfirmTyped(fmt::format("to destroy {} and all that opens it here, for good",
                                          Count(plan.versions.size(), "version")),
                              options.name, "add --confirm " + options.name);
}

Json ResultJson(const DestroyResult& result) {
  Json document = NewDocument("destroy");
  document["key"] = result.key_name;
  document["versions"] = result.versions;
  document["num_envelopes"] = result.num_envelopes;
  document["scrubbed"] = result.scrubbed;
  document["not_shredded"] = ListJson(result.left);
  document["log_seq"] = result.log_seq ? Json(*result.log_seq) : Json(nullptr);
  document["agent_signed_log"] = result.p256_signed;
  document["findings"] = ListJson(result.findings);
  return document;
}

std::string RenderResult(const DestroyResult& result) {
  std::string text =
      result.versions.empty()
          ? fmt::format("{} was destroyed before; its traces are removed\n", result.key_name)
          : fmt::format("destroyed {}: {}, {}\n", result.key_name,
                        Count(result.versions.size(), "version"),
                        Count(result.num_envelopes, "envelope"));
  text += "cannot be shredded from here:\n";
  for (const std::string& left : result.left) text += "  " + EscapeForTerminal(left) + "\n";
  return text;
}

Result<int> DoDestroy(const DestroyOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  const DestroyRequest request{options.name, options.reason, options.ticket};
  ASSIGN_OR_RETURN(const DestroyPlan plan, PlanDestroy(*agent, request));
  if (!plan.only_scrub) RETURN_IF_ERROR(ConfirmName(options, plan, session));
  session.progress().Step("writing the store anew");
  ASSIGN_OR_RETURN(const DestroyResult result, Destroy(*agent, request));
  ASSIGN_OR_RETURN(const int status, session.Finish(ResultJson(result), RenderResult(result),
                                                    result.scrubbed ? kExitDone : kExitFindings));
  for (const std::string& finding : result.findings) session.terminal().Warn(finding);
  return status;
}

}  // namespace

int RunDestroy(const GlobalOptions& /*global*/, const DestroyOptions& options, Session& session) {
  return session.Exit(DoDestroy(options, session));
}

}  // namespace keyescrow::agent
