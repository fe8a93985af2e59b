// path list, add, replace, remove and password change: edits of a key's paths.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/kdf_name.h"
#include "agent/cli/officers_desk.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/destroy.h"
#include "agent/usecases/edit_paths.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

Result<int> DoList(const PathListOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const std::vector<KeyView> keys, ListKeys(*agent, options.name));
  if (keys.empty()) {
    auto found = agent->store().FindEnvelope(options.name, std::nullopt);
    if (!found && found.error().code() == ErrorCode::kNotFound) {
      return TellDestroyed(*agent, options.name, std::move(found).error());
    }
    return Error(ErrorCode::kKeyNotFound, Action::kFixInput,
                 "no key named " + options.name + " is escrowed here",
                 "'keyescrow list' shows those that are");
  }
  Json document = NewDocument("path list");
  document["key"] = KeyJson(keys.front().name, keys.front().version);
  document["revision"] = keys.front().revision;
  document["paths"] = Json::array();
  for (const PathView& path : keys.front().paths) document["paths"].push_back(PathViewJson(path));
  constexpr Column kColumns[] = {
      {"id", "path"},         {"factors", "factors"}, {"portable", "portable"},
      {"condition", "state"}, {"proven", "proven"},   {"proven_by", "by"},
  };
  return session.Finish(document, RenderTable(document["paths"], kColumns));
}

Json ResultJson(std::string_view command, const EditResult& result) {
  Json document = NewDocument(command);
  document["key"] = KeyJson(result.key_name, result.key_version);
  document["revision"] = result.revision;
  document["via"] = result.via;
  document["portable_proven"] = result.portable_proven;
  document["paths"] = Json::array();
  for (const EditedPath& path : result.paths) {
    Json item = Json::object();
    item["id"] = path.path_id;
    item["factors"] = path.expression;
    item["change"] = PathChangeName(path.change);
    item["portable"] = path.portable;
    item["proven"] = path.proven;
    item["proven_before"] = path.proven_before;
    item["why_not"] = TextOrNull(path.why_not);
    document["paths"].push_back(std::move(item));
  }
  document["removed"] = ListJson(result.removed);
  document["old_copies_open"] = result.old_copies_open;
  document["envelope_id"] = result.envelope_id;
  document["envelope_sha256"] = EncodeBase64Url(result.envelope_hash);
  document["previous_sha256"] = EncodeBase64Url(result.previous_hash);
  document["log_seq"] = result.log_seq;
  document["agent_signed_log"] = result.p256_signed;
  document["findings"] = ListJson(result.findings);
  return document;
}

std::string RenderResult(const Json& document) {
  constexpr Column kPaths[] = {
      {"id", "  path"},     {"factors", "factors"},   {"change", "change"},
      {"proven", "proven"}, {"portable", "portable"}, {"why_not", "why not"},
  };
  constexpr Column kFields[] = {
      {"via", "  opened by"},
      {"removed", "  removed"},
      {"envelope_sha256", "  envelope hash"},
      {"log_seq", "  log entry"},
  };
  Json rows = document["paths"];
  for (Json& row : rows) row["id"] = "  " + row["id"].get<std::string>();
  Json fields = document;
  if (fields["removed"].empty()) fields["removed"] = nullptr;
  return fmt::format("{} version {} is at revision {}\n",
                     EscapeForTerminal(document["key"]["name"].get_ref<const std::string&>()),
                     document["key"]["version"].get<std::uint32_t>(),
                     document["revision"].get<std::uint32_t>()) +
         RenderTable(rows, kPaths) + RenderFields(fields, kFields);
}

EditRequest MakeRequest(const std::string& name, const EditOptions& edit,
                        const std::optional<KdfChoice>& kdf) {
  EditRequest request;
  request.key_name = name;
  request.version = edit.version;
  request.via = edit.via;
  request.module = edit.module;
  request.use_last_try = edit.use_last_try;
  request.kdf = KdfName(kdf);
  return request;
}

Result<int> DoEdit(std::string_view command, const EditRequest& request,
                   const GlobalOptions& global, const SecretOptions& secret_options,
                   Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(CliSecrets* const secrets, session.OpenSecrets(secret_options));
  if (request.change_passwords) secrets->WantNewPasswords();
  OfficersDesk desk(*secrets, global, session.progress());
  ASSIGN_OR_RETURN(const EditResult result, EditPaths(*agent, request, desk, session.progress()));
  const Json document = ResultJson(command, result);
  ASSIGN_OR_RETURN(const int status,
                   session.Finish(document, RenderResult(document),
                                  result.portable_proven ? kExitDone : kExitFindings));
  Terminal& terminal = session.terminal();
  for (const std::string& finding : result.findings) terminal.Warn(finding);
  if (result.old_copies_open) {
    terminal.Warn(
        "copies of the envelope from before (exported files, backups of the store, its older "
        "revisions) still open as they did");
    terminal.Note("where that matters, give the application a new key: keyescrow rotate " +
                  result.key_name);
  }
  terminal.Note("a new copy for the safe: keyescrow export " + result.key_name + " -o FILE");
  return status;
}

}  // namespace

int RunPathList(const GlobalOptions& /*global*/, const PathListOptions& options, Session& session) {
  return session.Exit(DoList(options, session));
}

int RunPathAdd(const GlobalOptions& global, const PathAddOptions& options, Session& session) {
  EditRequest request = MakeRequest(options.name, options.edit, options.kdf);
  request.add = options.paths;
  return session.Exit(DoEdit("path add", request, global, options.secrets, session));
}

int RunPathReplace(const GlobalOptions& global, const PathReplaceOptions& options,
                   Session& session) {
  EditRequest request = MakeRequest(options.name, options.edit, options.kdf);
  request.add = options.paths;
  request.replace = options.id;
  return session.Exit(DoEdit("path replace", request, global, options.secrets, session));
}

int RunPathRemove(const GlobalOptions& global, const PathRemoveOptions& options, Session& session) {
  EditRequest request = MakeRequest(options.name, options.edit, std::nullopt);
  request.remove = options.ids;
  return session.Exit(DoEdit("path remove", request, global, options.secrets, session));
}

int RunPasswordChange(const GlobalOptions& global, const PasswordChangeOptions& options,
                      Session& session) {
  EditRequest request = MakeRequest(options.name, options.edit, options.kdf);
  request.change_passwords = true;
  request.password_paths = options.path_ids;
  return session.Exit(DoEdit("password change", request, global, options.secrets, session));
}

}  // namespace keyescrow::agent
