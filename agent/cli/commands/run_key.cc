// key add, list, remove: which keys must be escrowed, as agent.toml declares them.
#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/key_locations/key_location.h"
#include "agent/usecases/backup.h"
#include "agent/usecases/inventory.h"

namespace keyescrow::agent {
namespace {

Status CheckKeyName(const std::string& name) {
  if (envelope::IsKeyName(name)) return Ok();
  return Error(ErrorCode::kInvalidName, Action::kFixInput, "'" + name + "' is not a key name",
               "a key name has letters, digits, '.', '_' and '-' in segments of at most 64, joined "
               "by '/', at most 128 in all; no segment is '.' or '..'");
}

Result<int> DoAdd(const KeyAddOptions& options, Session& session) {
  RETURN_IF_ERROR(session.RequireConfig());
  RETURN_IF_ERROR(CheckKeyName(options.name));
  RETURN_IF_ERROR(ParseLocation(options.source));
  if (options.source == "-") {
    return Error(ErrorCode::kInvalidLocation, Action::kFixInput,
                 "standard input is not a place where a key lives",
                 "name the file, or exec:CMD, that gives the key");
  }
  if (!options.paths.empty()) RETURN_IF_ERROR(envelope::ParsePathOptions(options.paths));
  DeclaredKey key;
  key.name = options.name;
  key.source = AbsoluteLocation(options.source);  // it is read from any folder
  key.paths = options.paths;
  RETURN_IF_ERROR(AddDeclaredKey(session.paths().config_file, key));
  Json document = NewDocument("key add");
  document["name"] = key.name;
  document["source"] = key.source;
  document["paths"] = ListJson(key.paths);
  document["config"] = session.paths().config_file;
  ASSIGN_OR_RETURN(const int status,
                   session.Finish(document, EscapeForTerminal("declared " + key.name + " in " +
                                                              session.paths().config_file) +
                                                "\n"));
  session.terminal().Note("next: keyescrow backup " + key.name);
  return status;
}

Result<int> DoList(Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  if (session.config().keys.empty()) {
    return Error(ErrorCode::kNotFound, Action::kFixInput, "no key is declared",
                 "declare one with 'keyescrow key add NAME --source SOURCE'");
  }
  ASSIGN_OR_RETURN(const std::vector<KeyView> escrowed, ListKeys(*agent));
  std::map<std::string, std::uint32_t, std::less<>> versions;
  for (const KeyView& key : escrowed) versions[key.name] = key.version;
  Json document = NewDocument("key list");
  document["config"] = session.paths().config_file;
  Json keys = Json::array();
  for (const DeclaredKey& key : session.config().keys) {
    const auto version = versions.find(key.name);
    Json item = Json::object();
    item["name"] = key.name;
    item["source"] = key.source;
    item["paths"] = ListJson(key.paths.empty() ? session.config().default_paths : key.paths);
    item["escrowed"] = version != versions.end();
    item["version"] = version != versions.end() ? Json(version->second) : Json(nullptr);
    keys.push_back(std::move(item));
  }
  document["keys"] = std::move(keys);
  constexpr Column kColumns[] = {
      {"name", "key"},
      {"escrowed", "escrowed"},
      {"version", "version", CellFormat::kText, true},
      {"source", "source"},
      {"paths", "paths"},
  };
  return session.Finish(document, RenderTable(document["keys"], kColumns));
}

Result<int> DoRemove(const KeyRemoveOptions& options, Session& session) {
  RETURN_IF_ERROR(session.RequireConfig());
  if (session.config().FindKey(options.name) == nullptr) {
    return Error(ErrorCode::kNotFound, Action::kFixInput, "no key " + options.name + " is declared",
                 "'keyescrow key list' shows those that are");
  }
  RETURN_IF_ERROR(session.Confirm("to take back the declaration of " + options.name, options.name));
  RETURN_IF_ERROR(RemoveDeclaredKey(session.paths().config_file, options.name));
  Json document = NewDocument("key remove");
  document["name"] = options.name;
  document["config"] = session.paths().config_file;
  return session.Finish(document, EscapeForTerminal(options.name) +
                                      " is no longer declared; what was escrowed stays\n");
}

}  // namespace

int RunKeyAdd(const GlobalOptions& /*global*/, const KeyAddOptions& options, Session& session) {
  return session.Exit(DoAdd(options, session));
}

int RunKeyList(const GlobalOptions& /*global*/, const KeyListOptions& /*options*/,
               Session& session) {
  return session.Exit(DoList(session));
}

int RunKeyRemove(const GlobalOptions& /*global*/, const KeyRemoveOptions& options,
                 Session& session) {
  return session.Exit(DoRemove(options, session));
}

}  // namespace keyescrow::agent
