// adopt: a key of another host gets paths on this one.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/kdf_name.h"
#include "agent/cli/officers_desk.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/adopt.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

AdoptRequest MakeRequest(const AdoptOptions& options) {
  AdoptRequest request;
  request.name_or_file = options.name_or_file;
  request.as = options.as;
  request.paths = options.paths;
  request.via = options.via;
  request.kdf = KdfName(options.kdf);
  request.note = options.note;
  request.reason = options.reason;
  request.ticket = options.ticket;
  request.module = options.module;
  request.trusted_agent = options.agent;
  request.use_last_try = options.use_last_try;
  return request;
}

Json ResultJson(const AdoptResult& result) {
  const BackupResult& escrowed = result.escrowed;
  Json document = NewDocument("adopt");
  document["key"] = KeyJson(escrowed.key_name, escrowed.key_version);
  document["from"] = {{"host", result.from_host},
                      {"key", KeyJson(result.from_name, result.from_version)},
                      {"agent", result.from_agent},
                      {"via", result.via}};
  document["portable_proven"] = escrowed.portable_proven;
  document["paths"] = Json::array();
  for (const PathProof& path : escrowed.paths) {
    document["paths"].push_back({{"id", path.path_id},
                                 {"factors", path.expression},
                                 {"portable", path.portable},
                                 {"proven", path.proven},
                                 {"why_not", TextOrNull(path.why_not)}});
  }
  document["agent"] = escrowed.thumbprint;
  document["envelope_id"] = escrowed.envelope_id;
  document["envelope_sha256"] = EncodeBase64Url(escrowed.envelope_hash);
  document["log_seq"] = escrowed.log_seq;
  document["agent_signed_log"] = escrowed.p256_signed;
  document["findings"] = ListJson(escrowed.findings);
  return document;
}

std::string RenderResult(const Json& document) {
  constexpr Column kPaths[] = {
      {"id", "  path"},         {"factors", "factors"}, {"proven", "proven"},
      {"portable", "portable"}, {"why_not", "why not"},
  };
  constexpr Column kFields[] = {
      {"from.host", "  from host"},
      {"from.via", "  opened by"},
      {"envelope_sha256", "  envelope hash"},
      {"log_seq", "  log entry"},
  };
  Json rows = document["paths"];
  for (Json& row : rows) row["id"] = "  " + row["id"].get<std::string>();
  return fmt::format("adopted {} version {}\n",
                     EscapeForTerminal(document["key"]["name"].get_ref<const std::string&>()),
                     document["key"]["version"].get<std::uint32_t>()) +
         RenderTable(rows, kPaths) + RenderFields(document, kFields);
}

Result<int> DoAdopt(const GlobalOptions& global, const AdoptOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(CliSecrets* const secrets, session.OpenSecrets(options.secrets));
  OfficersDesk desk(*secrets, global, session.progress());
  ASSIGN_OR_RETURN(const AdoptResult result,
                   Adopt(*agent, MakeRequest(options), desk, session.progress()));
  const BackupResult& escrowed = result.escrowed;
  const Json document = ResultJson(result);
  ASSIGN_OR_RETURN(const int status,
                   session.Finish(document, RenderResult(document),
                                  escrowed.portable_proven ? kExitDone : kExitFindings));
  Terminal& terminal = session.terminal();
  for (const std::string& finding : escrowed.findings) terminal.Warn(finding);
  terminal.Note("the envelope of " + result.from_host +
                " still opens as it did: where that matters, give the application a new key with "
                "'keyescrow rotate'");
  terminal.Note("put the key in its place with: keyescrow restore " + escrowed.key_name +
                " --to SINK");
  return status;
}

}  // namespace

int RunAdopt(const GlobalOptions& global, const AdoptOptions& options, Session& session) {
  return session.Exit(DoAdopt(global, options, session));
}

}  // namespace keyescrow::agent
