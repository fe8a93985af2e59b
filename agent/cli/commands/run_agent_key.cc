// agent-key show, export: this host's own key.
#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/key_locations/crash_safe_file.h"
#include "agent/key_locations/key_location.h"
#include "agent/usecases/registry.h"

namespace keyescrow::agent {
namespace {

Result<int> DoShow(Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  const AgentIdentity& identity = agent->identity();
  Json document = NewDocument("agent-key show");
  document["thumbprint"] = identity.Thumbprint();
  document["host"] = identity.host;
  document["place"] = identity.place == AgentKeyPlace::kTpm ? "tpm" : "file";
  document["created"] = identity.created;
  document["log_origin"] = identity.origin;
  document["log_keys"] = Json::array();
  for (const audit::NoteKey& key : agent->journal().Keys()) {
    document["log_keys"].push_back(key.Vkey());
  }
  constexpr Column kFields[] = {
      {"thumbprint", "thumbprint"}, {"host", "host"},      {"place", "kept in"},
      {"created", "created"},       {"log_origin", "log"}, {"log_keys", "log keys"},
  };
  return session.Finish(document, RenderFields(document, kFields));
}

// WritePublic writes what everybody may read: a file gets mode 0644.
Status WritePublic(const std::string& sink, const std::string& text) {
  ASSIGN_OR_RETURN(const auto location, ParseLocation(sink));
  RETURN_IF_ERROR(CheckTakesFiles(*location));
  const std::string path = location->FilePath();
  if (!path.empty()) {
    DurableWriteOptions options;
    options.may_write = [&] {
      return CheckDocumentPlace(path, "the public key of an agent", {"keyescrow/agent-key/1"});
    };
    return WriteFileDurably(path, AsBytes(text), options);
  }
  ASSIGN_OR_RETURN(const SecretBytes bytes, SecretBytes::CopyOf(AsBytes(text)));
  RETURN_IF_ERROR(location->Write(bytes, {}));
  return Ok();
}

Result<int> DoExport(const AgentKeyExportOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  const std::string text = AgentKeyDocument(*agent);
  if (options.output.empty() || options.output == "-") {
    // What is exported is a JSON document of its own, with --json or without.
    RETURN_IF_ERROR(session.terminal().WriteResult(text));
    return kExitDone;
  }
  RETURN_IF_ERROR(WritePublic(options.output, text));
  Json document = NewDocument("agent-key export");
  document["thumbprint"] = agent->identity().Thumbprint();
  document["output"] = options.output;
  return session.Finish(
      document, EscapeForTerminal("wrote the public key of agent " +
                                  agent->identity().Thumbprint() + " to " + options.output) +
                    "\n");
}

}  // namespace

int RunAgentKeyShow(const GlobalOptions& /*global*/, const AgentKeyShowOptions& /*options*/,
                    Session& session) {
  return session.Exit(DoShow(session));
}

int RunAgentKeyExport(const GlobalOptions& /*global*/, const AgentKeyExportOptions& options,
                      Session& session) {
  return session.Exit(DoExport(options, session));
}

}  // namespace keyescrow::agent
