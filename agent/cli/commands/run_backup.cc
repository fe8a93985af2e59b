// backup: escrow one key, or every declared one, and prove that it opens.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/backup.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

constexpr std::string_view kNotProven =
    "no path that opens without this host's TPM was proven: the key may not be recoverable "
    "elsewhere";

Result<BackupRequest> MakeRequest(const BackupOptions& options, const std::string& name,
                                  const AgentConfig& config) {
  BackupRequest request;
  request.key_name = name;
  request.source = options.from;
  request.generate_bytes = options.generate_bytes.value_or(0);
  request.sink = options.to;
  request.paths = options.paths;
  if (options.kdf == KdfChoice::kArgon2id) request.kdf = "argon2id";
  if (options.kdf == KdfChoice::kPbkdf2Sha512) request.kdf = "pbkdf2-sha512";
  request.prove_none = options.prove.size() == 1 && options.prove.front() == "none";
  if (!request.prove_none) request.prove = options.prove;
  request.note = options.note;
  request.output = options.output;
  request.luks_unlock_file = options.luks_unlock_file;
  if (request.source.empty() && request.generate_bytes == 0) {
    const DeclaredKey* declared = config.FindKey(name);
    if (declared == nullptr) {
      return Error(ErrorCode::kUsage, Action::kFixInput,
                   "where is the key " + name + "? it is not declared, and --from is missing",
                   "add --from SOURCE, or declare it with 'keyescrow key add'");
    }
    request.source = declared->source;
  }
  return request;
}

Json ResultJson(const BackupResult& result) {
  Json json = Json::object();
  json["key"] = KeyJson(result.key_name, result.key_version);
  json["portable_proven"] = result.portable_proven;
  Json paths = Json::array();
  for (const PathProof& path : result.paths) {
    Json item = Json::object();
    item["id"] = path.path_id;
    item["factors"] = path.expression;
    item["portable"] = path.portable;
    item["proven"] = path.proven;
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
  std::vector<std::string> findings = result.findings;
  if (!result.portable_proven && findings.empty()) findings.emplace_back(kNotProven);
  json["findings"] = ListJson(findings);
  return json;
}

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

void TellFindings(Session& session, const Json& result) {
  for (const Json& finding : result["findings"]) {
    session.terminal().Warn(finding.get_ref<const std::string&>());
  }
}

Result<int> BackupOne(const BackupOptions& options, Session& session) {
  const bool stdout_taken = options.to == "-" || options.output == "-";
  if (options.to == "-" && options.output == "-") {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "--to - and --output - both want standard output", "name a file for one of them");
  }
  if (options.to == "-") RETURN_IF_ERROR(session.CheckStdoutSink("--to", true));
  if (options.output == "-") RETURN_IF_ERROR(session.CheckStdoutSink("--output", false));
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const BackupRequest request,
                   MakeRequest(options, options.name, session.config()));
  ASSIGN_OR_RETURN(CliSecrets* const secrets,
                   session.OpenSecrets(options.secrets, request.source == "-" ? "--from -" : ""));
  ASSIGN_OR_RETURN(const BackupResult result,
                   Backup(*agent, request, *secrets, session.progress()));

  Json document = NewDocument("backup");
  document.update(ResultJson(result));
  ASSIGN_OR_RETURN(
      const int status,
      session.Finish(document, RenderResult(document),
                     result.portable_proven ? kExitDone : kExitFindings, stdout_taken));
  TellFindings(session, document);
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

// BackupAll goes on after a failure; the first error decides the exit status.
Result<int> BackupAll(const BackupOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  if (session.config().keys.empty()) {
    return Error(ErrorCode::kNotFound, Action::kFixInput, "no key is declared",
                 "declare one with 'keyescrow key add NAME --source SOURCE'");
  }
  bool reads_stdin = false;
  for (const DeclaredKey& key : session.config().keys) reads_stdin |= key.source == "-";
  ASSIGN_OR_RETURN(CliSecrets* const secrets,
                   session.OpenSecrets(options.secrets, reads_stdin ? "a declared source" : ""));
  Json results = Json::array();
  int status = kExitDone;
  std::size_t num_escrowed = 0;
  for (const DeclaredKey& key : session.config().keys) {
    Result<BackupResult> result = [&]() -> Result<BackupResult> {
      ASSIGN_OR_RETURN(const BackupRequest request,
                       MakeRequest(options, key.name, session.config()));
      return Backup(*agent, request, *secrets, session.progress());
    }();
    session.progress().Pause();
    Json item = Json::object();
    if (result) {
      ++num_escrowed;
      item = ResultJson(*result);
      item["outcome"] = result->portable_proven ? "proven" : "not proven";
      item["error"] = nullptr;
      TellFindings(session, item);
      if (!result->portable_proven && status == kExitDone) status = kExitFindings;
    } else {
      item["key"] = {{"name", key.name}, {"version", nullptr}};
      item["outcome"] = "failed";
      item["error"] = ErrorJson(result.error());
      if (status == kExitDone || status == kExitFindings) status = ExitStatus(result.error());
      if (!session.terminal().json()) {
        session.terminal().PrintError(Error(result.error()).WithContext(key.name));
      }
    }
    results.push_back(std::move(item));
  }
  Json document = NewDocument("backup-all");
  document["num_declared"] = session.config().keys.size();
  document["num_escrowed"] = num_escrowed;
  document["keys"] = std::move(results);
  constexpr Column kColumns[] = {
      {"key.name", "key"},
      {"key.version", "version", CellFormat::kText, true},
      {"outcome", "outcome"},
      {"error.message", "why"},
  };
  const std::string text = fmt::format("escrowed {} of {}\n", num_escrowed,
                                       Count(session.config().keys.size(), "declared key")) +
                           RenderTable(document["keys"], kColumns);
  return session.Finish(document, text, status);
}

}  // namespace

int RunBackup(const GlobalOptions& /*global*/, const BackupOptions& options, Session& session) {
  return session.Exit(options.all ? BackupAll(options, session) : BackupOne(options, session));
}

}  // namespace keyescrow::agent
