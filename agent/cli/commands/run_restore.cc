// restore: recover a key; also on a machine that has no state, or a broken one.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/officers_desk.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/inventory.h"
#include "agent/usecases/put_aside.h"
#include "agent/usecases/restore.h"
#include "agent/usecases/shell_word.h"

namespace keyescrow::agent {
namespace {

RestoreRequest MakeRequest(const RestoreOptions& options) {
  RestoreRequest request;
  request.name_or_file = options.name_or_file;
  request.sink = options.to;
  request.via = options.via;
  request.version = options.version;
  request.reason = options.reason;
  request.ticket = options.ticket;
  request.expect = options.expect;
  request.replace = options.replace;
  request.module = options.module;
  request.trusted_agent = options.agent;
  request.accept_unknown_agent = options.accept_unknown_agent;
  request.use_last_try = options.use_last_try;
  request.pcr_policy_signature = options.pcr_policy_signature;
  request.event_log = options.event_log;
  request.luks_unlock_file = options.luks_unlock_file;
  return request;
}

// ShowUnknownAgent tells what an envelope that nobody vouches for asks for, so that a path can be
// chosen with --via: whoever made it chose its paths. Restore tells it of the path that was chosen.
Status ShowUnknownAgent(Agent* agent, const RestoreOptions& options, Session& session) {
  ASSIGN_OR_RETURN(const EnvelopeSource source,
                   FindEnvelope(agent, options.name_or_file, options.version));
  ASSIGN_OR_RETURN(const envelope::ReadOptions trust, TrustFor(agent, options.agent, true));
  ASSIGN_OR_RETURN(const KeyView view, ShowEnvelope(agent, source, trust, nullptr));
  if (view.agent_trusted) return Ok();
  Terminal& terminal = session.terminal();
  terminal.Warn("nobody vouches for the agent " + view.agent +
                ": who made this envelope, and whether its key is " + view.name + ", is unproven");
  for (const PathView& path : view.paths) {
    terminal.Warn("path " + path.id + " asks for: " + path.expression);
  }
  return Ok();
}

Json ResultJson(const RestoreResult& result) {
  Json document = NewDocument("restore");
  document["key"] = KeyJson(result.key_name, result.key_version);
  document["path"] = result.path_id;
  document["sink"] = result.sink;
  document["already_same"] = result.already_same;
  document["size_bytes"] = result.size_bytes;
  document["keyslot"] = result.keyslot ? Json(*result.keyslot) : Json(nullptr);
  document["previous"] = TextOrNull(result.previous_path);
  document["agent"] = result.agent;
  document["agent_trusted"] = result.agent_trusted;
  document["event_file"] = TextOrNull(result.event_file);
  document["log_seq"] = result.log_seq ? Json(*result.log_seq) : Json(nullptr);
  document["agent_signed_log"] = result.p256_signed;
  document["findings"] = ListJson(result.findings);
  return document;
}

std::string RenderResult(const Json& document) {
  const std::string key = fmt::format("{} version {}", document["key"]["name"].get<std::string>(),
                                      document["key"]["version"].get<std::uint32_t>());
  const std::string sink = document["sink"].get<std::string>();
  constexpr Column kFields[] = {
      {"path", "  path"},
      {"size_bytes", "  size", CellFormat::kBytes},
      {"keyslot", "  keyslot"},
      {"agent", "  agent"},
      {"previous", "  the old key"},
      {"event_file", "  event"},
      {"log_seq", "  log entry"},
  };
  return EscapeForTerminal(document["already_same"].get<bool>()
                               ? sink + " holds " + key + " already"
                               : "restored " + key + " to " + sink) +
         "\n" + RenderFields(document, kFields);
}

// ConfirmDiscard asks as `destroy` does where what would be removed may be escrowed nowhere; it
// returns whether that was confirmed.
Result<bool> ConfirmDiscard(Agent& agent, const RestoreOptions& options, const std::string& sink,
                            Session& session) {
  ASSIGN_OR_RETURN(const PutAside aside, FindPutAside(agent, sink));
  const std::string what = "to remove for good the key that was put aside beside " + sink;
  const std::string& name = aside.record.key_name;
  if (!aside.MayBeTheOnlyCopy()) {
    if (options.confirm != name) RETURN_IF_ERROR(session.Confirm(what, name));
    return false;
  }
  if (options.confirm == name) return true;
  if (!options.confirm.empty()) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "--confirm names another key than the one that was put aside: nothing was done",
                 "give its name once more: --confirm " + name);
  }
  RETURN_IF_ERROR(
      session.ConfirmTyped(what + ", which may be the only copy (" + aside.why_not + ")", name,
                           "add --confirm " + name));
  return true;
}

Result<int> DoDiscard(const RestoreOptions& options, Session& session) {
  if (options.replace || !options.via.empty()) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "--discard-previous restores nothing: --replace and --via do not go with it",
                 "restore first; once the application runs, discard the previous generation");
  }
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  std::string sink = options.to;
  if (sink.empty()) {
    const DeclaredKey* declared = session.config().FindKey(options.name_or_file);
    if (declared == nullptr) {
      return Error(ErrorCode::kUsage, Action::kFixInput,
                   "of which destination? --to is missing, and the key is not declared",
                   "add --to FILE, as 'keyescrow status' names it");
    }
    sink = declared->source;
  }
  ASSIGN_OR_RETURN(const bool only_copy_too, ConfirmDiscard(*agent, options, sink, session));
  ASSIGN_OR_RETURN(const PutAside discarded, DiscardPrevious(*agent, sink, only_copy_too));
  Json document = NewDocument("restore-discard-previous");
  document["removed"] = discarded.record.previous_path;
  document["was_there"] = discarded.is_there;
  document["escrowed_version"] = discarded.version ? Json(*discarded.version) : Json(nullptr);
  const std::string path = EscapeForTerminal(discarded.record.previous_path);
  return session.Finish(document, discarded.is_there
                                      ? "removed " + path + "\n"
                                      : path + " was gone already, and is listed no more\n");
}

Result<int> DoRestore(const GlobalOptions& global, const RestoreOptions& options,
                      Session& session) {
  const bool to_stdout = options.to == "-";
  if (to_stdout) RETURN_IF_ERROR(session.CheckStdoutSink("--to", true));
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgentFor(MeansFile(options.name_or_file)));
  if (agent != nullptr && !options.event_log.empty()) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "--event-log is for a machine without a state: here the audit log has the event",
                 "leave --event-log out");
  }
  ASSIGN_OR_RETURN(CliSecrets* const secrets, session.OpenSecrets(options.secrets));
  if (options.accept_unknown_agent && options.via.empty()) {
    RETURN_IF_ERROR(ShowUnknownAgent(agent, options, session));
  }
  OfficersDesk desk(*secrets, global, session.progress());
  ASSIGN_OR_RETURN(
      const RestoreResult result,
      Restore(session.environment(), agent, MakeRequest(options), desk, session.progress()));
  const Json document = ResultJson(result);
  // The key is where it was asked for: a finding is told and does not make the restore a failure.
  // But 0 would say that the log knows how it ended.
  ASSIGN_OR_RETURN(const int status,
                   session.Finish(document, RenderResult(document),
                                  result.outcome_logged ? kExitDone : kExitFindings, to_stdout));
  Terminal& terminal = session.terminal();
  for (const std::string& finding : result.findings) terminal.Warn(finding);
  if (!result.event_file.empty()) {
    terminal.Note("next: on the agent's host, keyescrow import-event " +
                  ShellWord(result.event_file));
  }
  if (!result.previous_path.empty()) {
    // Without a state nothing remembers where the old key lies.
    terminal.Note(agent == nullptr || !result.event_file.empty()
                      ? "once the application runs, remove the old key by hand: rm " +
                            ShellWord(result.previous_path)
                      : "once the application runs: keyescrow restore " + result.key_name +
                            " --discard-previous --to " + ShellWord(result.sink));
  }
  return status;
}

}  // namespace

void PrepareRestore(const RestoreOptions& options, Devices& devices) {
  const bool has_pin = !options.secrets.pin_files.empty() || options.secrets.pin_fd;
  const bool means_token =
      options.via.empty() ? has_pin || !options.module.empty() : options.via.starts_with("token");
  if (means_token) devices.PrepareToken();
}

int RunRestore(const GlobalOptions& global, const RestoreOptions& options, Session& session) {
  return session.Exit(options.discard_previous ? DoDiscard(options, session)
                                               : DoRestore(global, options, session));
}

}  // namespace keyescrow::agent
