// backup: escrow one key, and prove that it opens.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/commands/backup_output.h"
#include "agent/cli/kdf_name.h"
#include "agent/cli/officers_desk.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/backup.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

constexpr std::string_view kNotProven =
    "no path that opens without this host's TPM was proven: the key may not be recoverable "
    "elsewhere";

}  // namespace

std::vector<std::string> FindingsOf(const BackupResult& result) {
  std::vector<std::string> findings = result.findings;
  if (!result.Recoverable() && findings.empty()) findings.emplace_back(kNotProven);
  return findings;
}

Result<BackupRequest> MakeBackupRequest(const BackupOptions& options, const std::string& name,
                                        const std::string& declared_source) {
  BackupRequest request;
  request.key_name = name;
  request.source = options.from;
  request.generate_bytes = options.generate_bytes.value_or(0);
  request.sink = options.to;
  request.paths = options.paths;
  request.kdf = KdfName(options.kdf);
  request.prove_none = options.prove.size() == 1 && options.prove.front() == "none";
  if (!request.prove_none) request.prove = options.prove;
  request.note = options.note;
  request.output = options.output;
  request.luks_unlock_file = options.luks_unlock_file;
  if (request.source.empty() && request.generate_bytes == 0) {
    if (declared_source.empty()) {
      return Error(ErrorCode::kUsage, Action::kFixInput,
                   "where is the key " + name + "? it is not declared, and --from is missing",
                   "add --from SOURCE, or declare it with 'keyescrow key add'");
    }
    request.source = declared_source;
  }
  return request;
}

Json BackupJson(const BackupResult& result) {
  Json json = Json::object();
  json["key"] = KeyJson(result.key_name, result.key_version);
  json["portable_proven"] = result.portable_proven;
  json["covered"] = result.covered;
  Json paths = Json::array();
  for (const PathProof& path : result.paths) {
    Json item = Json::object();
    item["id"] = path.path_id;
    item["factors"] = path.expression;
    item["portable"] = path.portable;
    item["proven"] = path.proven;
    item["covered_since"] = TimeJson(path.covered_since);
    item["why_not"] = TextOrNull(path.why_not);
    paths.push_back(std::move(item));
  }
  json["paths"] = std::move(paths);
  json["agent"] = result.thumbprint;
  json["envelope_id"] = result.envelope_id;
  json["envelope_sha256"] = EncodeBase64Url(result.envelope_hash);
  json["log_seq"] = result.log_seq;
  json["agent_signed_log"] = result.p256_signed;
  json["delivered"] = result.delivered ? Json(*result.delivered) : Json(nullptr);
  json["keyslot"] = result.keyslot ? Json(*result.keyslot) : Json(nullptr);
  json["output"] = TextOrNull(result.output);
  json["receipt"] = TextOrNull(result.receipt);
  json["findings"] = ListJson(FindingsOf(result));
  return json;
}

namespace {

std::string RenderResult(const Json& result) {
  constexpr Column kPaths[] = {
      {"id", "  path"},         {"factors", "factors"}, {"proven", "proven"},
      {"portable", "portable"}, {"why_not", "why not"},
  };
  constexpr Column kFields[] = {
      {"agent", "  agent"},         {"envelope_sha256", "  envelope hash"},
      {"log_seq", "  log entry"},   {"delivered", "  handed over"},
      {"keyslot", "  keyslot"},     {"output", "  file"},
      {"receipt", "  its receipt"},
  };
  Json rows = result["paths"];
  for (Json& row : rows) row["id"] = "  " + row["id"].get<std::string>();
  return fmt::format("escrowed {} version {}\n",
                     EscapeForTerminal(result["key"]["name"].get_ref<const std::string&>()),
                     result["key"]["version"].get<std::uint32_t>()) +
         RenderTable(rows, kPaths) + RenderFields(result, kFields);
}

Result<int> BackupOne(const GlobalOptions& global, const BackupOptions& options, Session& session) {
  const bool stdout_taken = options.to == "-" || options.output == "-";
  if (options.to == "-" && options.output == "-") {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "--to - and --output - both want standard output", "name a file for one of them");
  }
  if (options.to == "-") RETURN_IF_ERROR(session.CheckStdoutSink("--to", true));
  if (options.output == "-") RETURN_IF_ERROR(session.CheckStdoutSink("--output", false));
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  const DeclaredKey* const declared = session.config().FindKey(options.name);
  ASSIGN_OR_RETURN(
      const BackupRequest request,
      MakeBackupRequest(options, options.name, declared != nullptr ? declared->source : ""));
  ASSIGN_OR_RETURN(CliSecrets* const secrets,
                   session.OpenSecrets(options.secrets, request.source == "-" ? "--from -" : ""));
  OfficersDesk desk(*secrets, global, session.progress());
  ASSIGN_OR_RETURN(const BackupResult result, Backup(*agent, request, desk, session.progress()));

  Json document = NewDocument("backup");
  document.update(BackupJson(result));
  ASSIGN_OR_RETURN(const int status,
                   session.Finish(document, RenderResult(document),
                                  result.Recoverable() ? kExitDone : kExitFindings, stdout_taken));
  for (const std::string& finding : FindingsOf(result)) session.terminal().Warn(finding);
  session.terminal().Note("restore it with: keyescrow restore " + result.key_name + " --to SINK");
  if (result.output.empty()) {
    session.terminal().Note("a copy for the safe: keyescrow export " + result.key_name +
                            " -o FILE");
  } else {
    session.terminal().Note(
        "keep the agent's thumbprint with the file: elsewhere it is trusted by "
        "--agent THUMBPRINT");
  }
  return status;
}

}  // namespace

int RunBackup(const GlobalOptions& global, const BackupOptions& options, Session& session) {
  return session.Exit(options.all ? BackupAll(options, session)
                                  : BackupOne(global, options, session));
}

}  // namespace keyescrow::agent
