// trust add, list, remove: the agents whose signatures count here.
#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/host_ties.h"
#include "agent/usecases/registry.h"

namespace keyescrow::agent {
namespace {

std::string VersionText(const HostTies::Version& key) {
  return key.key_name + " version " + std::to_string(key.key_version);
}

Json RecordJson(const store::TrustRecord& record) {
  Json json = Json::object();
  json["thumbprint"] = record.thumbprint;
  json["name"] = TextOrNull(record.name);
  json["hosts"] = ListJson(record.hosts);
  json["keys"] = ListJson(record.keys);
  json["added"] = TimeJson(record.added);
  json["removed"] = TimeJson(record.removed);
  return json;
}

Result<int> DoAdd(const TrustAddOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  session.devices().LastSignature();
  ASSIGN_OR_RETURN(const TrustAddResult added,
                   AddTrust(*agent, {options.agent, options.hosts, options.keys}));
  const store::TrustRecord& record = added.record;
  ASSIGN_OR_RETURN(const std::vector<HostTies::Version> beyond, VersionsBeyond(*agent, record));
  Json document = NewDocument("trust add");
  document.update(RecordJson(record));
  document["beyond"] = Json::array();
  for (const HostTies::Version& key : beyond) {
    document["beyond"].push_back(KeyJson(key.key_name, key.key_version));
  }
  document["findings"] = ListJson(added.findings);
  const bool any = record.hosts.empty() && record.keys.empty();
  ASSIGN_OR_RETURN(
      const int status,
      session.Finish(document, "trusted: agent " + EscapeForTerminal(record.thumbprint) + "\n"));
  for (const std::string& finding : added.findings) session.terminal().Warn(finding);
  for (const HostTies::Version& key : beyond) {
    session.terminal().Warn(VersionText(key) +
                            " was signed by this agent, which is not trusted for it: it will not "
                            "open here; 'trust remove', then add it again with a --host and --key "
                            "that reach it");
  }
  if (any) {
    session.terminal().Note("it may sign for every host and key; --host and --key narrow that");
  }
  return status;
}

Result<int> DoList(Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const std::vector<store::TrustRecord> records, agent->store().Trust());
  Json document = NewDocument("trust list");
  document["own"] = agent->identity().Thumbprint();
  Json agents = Json::array();
  for (const store::TrustRecord& record : records) agents.push_back(RecordJson(record));
  document["agents"] = std::move(agents);
  constexpr Column kColumns[] = {
      {"thumbprint", "agent"}, {"name", "name"},   {"hosts", "hosts"},
      {"keys", "keys"},        {"added", "added"}, {"removed", "removed"},
  };
  return session.Finish(document, "this host's own: " + agent->identity().Thumbprint() + "\n" +
                                      RenderTable(document["agents"], kColumns));
}

// TellTies says what the removal of an agent changes here.
void TellTies(Terminal& terminal, const HostTies& ties) {
  for (const HostTies::Version& key : ties.signed_by) {
    terminal.Warn(VersionText(key) +
                  " was signed by this agent alone, and will not open here; 'keyescrow "
                  "adopt' first gives it paths of this host");
  }
  for (const HostTies::TpmPath& path : ties.tpm_paths) {
    terminal.Warn("the path " + path.path_id + " of " + VersionText(path.key) +
                  " is sealed to the tpm of " + path.host +
                  ", and opens nowhere without that host");
  }
}

Result<int> DoRemove(const TrustRemoveOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  auto found = agent->store().FindTrust(options.agent);
  if (!found) {
    return std::move(found).error().WithHint("'keyescrow trust list' shows those that are trusted");
  }
  const store::TrustRecord& record = *found;
  ASSIGN_OR_RETURN(const HostTies ties, FindHostTies(*agent, record));
  TellTies(session.terminal(), ties);
  std::string what = "to trust this agent no longer";
  if (session.terminal().json() && !ties.signed_by.empty()) {
    what += ", which signed";
    for (const HostTies::Version& key : ties.signed_by) {
      what += (&key == &ties.signed_by.front() ? " " : ", ") + VersionText(key);
    }
    what += ",";
  }
  RETURN_IF_ERROR(session.Confirm(what, record.thumbprint));
  session.devices().LastSignature();
  RETURN_IF_ERROR(RemoveTrust(*agent, record.thumbprint));
  Json document = NewDocument("trust remove");
  document["thumbprint"] = record.thumbprint;
  document["signed"] = Json::array();
  for (const HostTies::Version& key : ties.signed_by) {
    document["signed"].push_back(KeyJson(key.key_name, key.key_version));
  }
  document["tpm_paths"] = Json::array();
  for (const HostTies::TpmPath& path : ties.tpm_paths) {
    document["tpm_paths"].push_back({{"key", KeyJson(path.key.key_name, path.key.key_version)},
                                     {"path", path.path_id},
                                     {"host", path.host}});
  }
  return session.Finish(document, "no longer trusted: agent " + record.thumbprint + "\n");
}

}  // namespace

int RunTrustAdd(const GlobalOptions& /*global*/, const TrustAddOptions& options, Session& session) {
  return session.Exit(DoAdd(options, session));
}

int RunTrustList(const GlobalOptions& /*global*/, const TrustListOptions& /*options*/,
                 Session& session) {
  return session.Exit(DoList(session));
}

int RunTrustRemove(const GlobalOptions& /*global*/, const TrustRemoveOptions& options,
                   Session& session) {
  return session.Exit(DoRemove(options, session));
}

}  // namespace keyescrow::agent
