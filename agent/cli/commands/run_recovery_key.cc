// recovery-key create, list, show, export, import, password, retire.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/kdf_name.h"
#include "agent/cli/officers_desk.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/recovery_keys.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

Json StateJson(const RecoveryKeyState& key) {
  Json json = Json::object();
  json["name"] = key.row.name;
  json["factors"] = key.factors;
  json["portable"] = key.portable;
  json["thumbprint"] = key.row.thumbprint;
  json["record_sha256"] = EncodeBase64Url(key.row.sha256);
  json["added"] = TimeJson(key.row.added);
  json["retired"] = TimeJson(key.row.retired);
  json["drilled"] = TimeJson(key.row.drilled);
  json["drill_seq"] = key.row.drill_seq ? Json(*key.row.drill_seq) : Json(nullptr);
  return json;
}

constexpr Column kFields[] = {
    {"factors", "  opens by"},
    {"portable", "  without a tpm"},
    {"thumbprint", "  thumbprint"},
    {"record_sha256", "  record sha-256"},
    {"added", "  registered"},
    {"retired", "  retired"},
    {"drilled", "  last opened"},
    {"envelopes", "  envelopes"},
    {"stranded", "  with no other path"},
};

void TellFindings(Session& session, const std::vector<std::string>& findings) {
  for (const std::string& finding : findings) session.terminal().Warn(finding);
}

Result<int> FinishChange(std::string_view command, std::string_view verb,
                         const RecoveryKeyChange& change, int status, Session& session) {
  Json document = NewDocument(command);
  document.update(StateJson(change.key));
  document["proven"] = change.proven;
  document["why_not"] = TextOrNull(change.why_not);
  document["log_seq"] = change.log_seq;
  document["findings"] = ListJson(change.findings);
  const std::string text =
      fmt::format("{} recovery-key:{}\n", verb, EscapeForTerminal(change.key.row.name)) +
      RenderFields(document, kFields);
  ASSIGN_OR_RETURN(const int exit, session.Finish(document, text, status));
  TellFindings(session, change.findings);
  return exit;
}

Result<int> DoCreate(const GlobalOptions& global, const RecoveryKeyCreateOptions& options,
                     Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(CliSecrets* const secrets, session.OpenSecrets(options.secrets));
  const RecoveryKeyRequest request{options.name, options.path, KdfName(options.kdf),
                                   options.prove_none};
  OfficersDesk desk(*secrets, global, session.progress());
  ASSIGN_OR_RETURN(const RecoveryKeyChange change,
                   CreateRecoveryKey(*agent, request, desk, session.progress()));
  ASSIGN_OR_RETURN(const int status,
                   FinishChange("recovery-key create", "made", change,
                                change.proven ? kExitDone : kExitFindings, session));
  session.terminal().Note("use it in paths: --path recovery-key:" + options.name);
  session.terminal().Note("for other hosts: keyescrow recovery-key export " + options.name +
                          " -o FILE");
  return status;
}

Result<int> DoList(Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const auto keys, ListRecoveryKeys(*agent));
  if (keys.empty()) {
    return Error(ErrorCode::kNotFound, Action::kFixInput, "no recovery key is registered here",
                 "make one with 'keyescrow recovery-key create NAME --path EXPR'");
  }
  Json document = NewDocument("recovery-key list");
  document["recovery_keys"] = Json::array();
  for (const RecoveryKeyState& key : keys) document["recovery_keys"].push_back(StateJson(key));
  constexpr Column kColumns[] = {{"name", "recovery key"},
                                 {"factors", "opens by"},
                                 {"thumbprint", "thumbprint"},
                                 {"drilled", "last opened"},
                                 {"retired", "retired"}};
  return session.Finish(document, RenderTable(document["recovery_keys"], kColumns));
}

Result<int> DoShow(const RecoveryKeyShowOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const RecoveryKeyState key, ShowRecoveryKey(*agent, options.name));
  ASSIGN_OR_RETURN(const RecoveryKeyUse use, UseOfRecoveryKey(*agent, options.name));
  Json document = NewDocument("recovery-key show");
  document.update(StateJson(key));
  document["envelopes"] = use.num_envelopes;
  document["stranded"] = ListJson(use.stranded);
  return session.Finish(document,
                        fmt::format("recovery-key:{}\n", EscapeForTerminal(options.name)) +
                            RenderFields(document, kFields));
}

Result<int> DoExport(const RecoveryKeyExportOptions& options, Session& session) {
  const bool to_stdout = options.output.empty() || options.output == "-";
  if (to_stdout) RETURN_IF_ERROR(session.CheckStdoutSink("--output", false));
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  const std::string sink = to_stdout ? "-" : options.output;
  ASSIGN_OR_RETURN(const RecoveryKeyState key, ExportRecoveryKey(*agent, options.name, sink));
  Json document = NewDocument("recovery-key export");
  document.update(StateJson(key));
  document["output"] = sink;
  ASSIGN_OR_RETURN(
      const int status,
      session.Finish(document,
                     fmt::format("wrote the record of recovery-key:{} to {}\n",
                                 EscapeForTerminal(options.name), EscapeForTerminal(sink)) +
                         RenderFields(document, kFields),
                     kExitDone, to_stdout));
  session.terminal().Note("there: keyescrow recovery-key import FILE --sha256 " +
                          EncodeBase64Url(key.row.sha256));
  return status;
}

Error OtherRecord(const Bytes32& sha256) {
  return Error(ErrorCode::kExpectationFailed, Action::kFixInput,
               "the file holds another record: its SHA-256 is " + EncodeBase64Url(sha256),
               "fetch it again from the host that made it; nothing was registered")
      .WithFailure(Failure::kSignature);
}

Result<int> DoImport(const RecoveryKeyImportOptions& options, Session& session) {
  std::optional<Bytes32> given;
  if (!options.sha256.empty()) {
    given = ParseSha256(options.sha256);
    if (!given) {
      return Error(ErrorCode::kUsage, Action::kFixInput, "--sha256 is no SHA-256",
                   "give 64 hexadecimal digits, or what 'recovery-key show' prints");
    }
  }
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  const auto confirm = [&](const RecoveryKeyState& key, const Bytes32& sha256,
                           bool is_pinned) -> Status {
    const std::string hash = EncodeBase64Url(sha256);
    if (given) return *given == sha256 ? Ok() : OtherRecord(sha256);
    if (is_pinned) return Ok();
    session.terminal().Note("recovery-key:" + EscapeForTerminal(key.row.name) + " opens by " +
                            EscapeForTerminal(key.factors) + "; record sha-256 " + hash);
    session.terminal().Note(
        "compare it with what 'keyescrow recovery-key show' tells on the host that made it");
    return session.Confirm("to trust this record with every key that is escrowed to it", hash);
  };
  ASSIGN_OR_RETURN(const RecoveryKeyImport result,
                   ImportRecoveryKey(*agent, options.file, confirm));
  if (!result.already_there) {
    return FinishChange("recovery-key import", "registered", result.change, kExitDone, session);
  }
  if (given && *given != result.change.key.row.sha256) {
    return OtherRecord(result.change.key.row.sha256);
  }
  Json document = NewDocument("recovery-key import");
  document.update(StateJson(result.change.key));
  document["already_there"] = true;
  return session.Finish(document, fmt::format("recovery-key:{} is registered already\n",
                                              EscapeForTerminal(result.change.key.row.name)));
}

Result<int> DoPassword(const GlobalOptions& global, const RecoveryKeyPasswordOptions& options,
                       Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(CliSecrets* const secrets, session.OpenSecrets(options.secrets));
  OfficersDesk desk(*secrets, global, session.progress());
  ASSIGN_OR_RETURN(RecoveryKeyChange change,
                   ChangeRecoveryKeyPassword(*agent, {options.name, "", KdfName(options.kdf)}, desk,
                                             session.progress()));
  change.findings.emplace_back(
      "copies in envelopes that were made before still open by the old password with its token: "
      "after a suspected theft make a new recovery key, back every key up again, and rotate");
  ASSIGN_OR_RETURN(const int status,
                   FinishChange("recovery-key password", "changed the password of", change,
                                change.proven ? kExitDone : kExitFindings, session));
  session.terminal().Note(
      "hosts that imported this recovery key need its record again: keyescrow "
      "recovery-key export " +
      options.name + " -o FILE");
  return status;
}

Result<int> DoRetire(const RecoveryKeyRetireOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const RecoveryKeyUse use, UseOfRecoveryKey(*agent, options.name));
  if (use.stranded.empty()) {
    session.terminal().Note("no escrowed key depends on this recovery key alone");
  }
  for (const std::string& key : use.stranded) {
    session.terminal().Warn(key + " has no other path: back it up again under another one");
  }
  std::string what = "to retire the recovery key " + options.name;
  if (session.terminal().json() && !use.stranded.empty()) {
    what += fmt::format(", the only path of {},", fmt::join(use.stranded, ", "));
  }
  RETURN_IF_ERROR(session.Confirm(what, options.name));
  RETURN_IF_ERROR(RetireRecoveryKey(*agent, options.name));
  Json document = NewDocument("recovery-key retire");
  document["name"] = options.name;
  document["envelopes"] = use.num_envelopes;
  document["stranded"] = ListJson(use.stranded);
  const std::string text =
      "retired recovery-key:" + EscapeForTerminal(options.name) +
      "; what is escrowed to it opens as before\n" +
      (use.stranded.empty()
           ? ""
           : "with no other path: " + Count(use.stranded.size(), "envelope") + "\n");
  return session.Finish(document, text, use.stranded.empty() ? kExitDone : kExitFindings);
}

}  // namespace

int RunRecoveryKeyCreate(const GlobalOptions& global, const RecoveryKeyCreateOptions& options,
                         Session& session) {
  return session.Exit(DoCreate(global, options, session));
}
int RunRecoveryKeyList(const GlobalOptions& /*global*/, const RecoveryKeyListOptions& /*options*/,
                       Session& session) {
  return session.Exit(DoList(session));
}
int RunRecoveryKeyShow(const GlobalOptions& /*global*/, const RecoveryKeyShowOptions& options,
                       Session& session) {
  return session.Exit(DoShow(options, session));
}
int RunRecoveryKeyExport(const GlobalOptions& /*global*/, const RecoveryKeyExportOptions& options,
                         Session& session) {
  return session.Exit(DoExport(options, session));
}
int RunRecoveryKeyImport(const GlobalOptions& /*global*/, const RecoveryKeyImportOptions& options,
                         Session& session) {
  return session.Exit(DoImport(options, session));
}
int RunRecoveryKeyPassword(const GlobalOptions& global, const RecoveryKeyPasswordOptions& options,
                           Session& session) {
  return session.Exit(DoPassword(global, options, session));
}
int RunRecoveryKeyRetire(const GlobalOptions& /*global*/, const RecoveryKeyRetireOptions& options,
                         Session& session) {
  return session.Exit(DoRetire(options, session));
}

}  // namespace keyescrow::agent
