// init: the state, the store, the agent key.
#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/init.h"
#include "agent/usecases/set_policy.h"

namespace keyescrow::agent {
namespace {

constexpr std::string_view kNextSteps[] = {
    "note the thumbprint: by it other machines trust what this host signs",
    "next: keyescrow token add NAME URI --module SO",
    "then: keyescrow backup NAME --from SOURCE --path 'password & token:NAME'",
};

Result<int> DoInit(const InitOptions& options, Session& session) {
  RETURN_IF_ERROR(session.RequireConfig());
  if (!options.policy.empty()) {
    // What would be refused is refused before anything is made.
    ASSIGN_OR_RETURN(const PolicyCandidate candidate, ReadCandidate(options.policy));
    RETURN_IF_ERROR(CheckFirstPolicy(candidate, options.policy_keys, session.Now()));
  }
  const std::string& tcti = session.environment().tcti;
  const bool tpm_required = !tcti.empty() && tcti != "none";
  ASSIGN_OR_RETURN(const InitResult result,
                   Init(session.environment(), tpm_required, session.progress()));
  RETURN_IF_ERROR(session.MakeNamedConfig());

  std::string policy = "builtin-1";
  if (!options.policy.empty()) {
    ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
    ASSIGN_OR_RETURN(const SetPolicyResult set,
                     SetPolicy(*agent, options.policy, options.policy_keys));
    policy = set.check.candidate.policy.name;
  }

  const bool in_tpm = result.identity.place == AgentKeyPlace::kTpm;
  Json document = NewDocument("init");
  document["state"] = result.state_dir;
  document["host"] = result.identity.host;
  document["thumbprint"] = result.identity.Thumbprint();
  document["agent_key"] = in_tpm ? "tpm" : "file";
  document["log_origin"] = result.identity.origin;
  document["policy"] = policy;
  document["created"] = result.identity.created;
  document["findings"] = ListJson(result.findings);

  constexpr Column kFields[] = {
      {"thumbprint", "  thumbprint"}, {"host", "  host"},     {"agent_key", "  agent key in"},
      {"log_origin", "  log"},        {"policy", "  policy"},
  };
  const std::string text = "made the state in " + EscapeForTerminal(result.state_dir) + "\n" +
                           RenderFields(document, kFields);
  ASSIGN_OR_RETURN(const int status, session.Finish(document, text));
  if (!in_tpm) {
    session.terminal().Warn(
        "the agent key is in a file: root on this host can copy it and sign in its name");
  }
  for (const std::string& finding : result.findings) session.terminal().Warn(finding);
  for (const std::string_view step : kNextSteps) session.terminal().Note(step);
  return status;
}

}  // namespace

int RunInit(const GlobalOptions& /*global*/, const InitOptions& options, Session& session) {
  return session.Exit(DoInit(options, session));
}

}  // namespace keyescrow::agent
