// drill: prove that paths open; nothing of a key is written anywhere.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/officers_desk.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/key_locations/crash_safe_file.h"
#include "agent/usecases/drill.h"
#include "agent/usecases/recovery_key_drill.h"
#include "agent/usecases/shell_word.h"
#include "envelope/base/base64url.h"

namespace keyescrow::agent {
namespace {

DrillRequest MakeRequest(const DrillOptions& options) {
  DrillRequest request;
  request.name_or_file = options.name_or_file;
  request.all = options.all;
  request.via = options.via;
  request.challenge_file = options.challenge;
  request.module = options.module;
  request.trusted_agent = options.agent;
  request.pcr_policy_signature = options.pcr_policy_signature;
  request.event_log = options.event_log;
  return request;
}

Json PathJson(const PathDrill& path) {
  Json json = Json::object();
  json["id"] = path.path_id;
  json["factors"] = path.expression;
  json["outcome"] = DrillOutcomeName(path.outcome);
  json["error"] = path.error ? ErrorJson(*path.error) : Json(nullptr);
  json["statement"] = TextOrNull(path.statement);
  json["signature"] =
      path.statement.empty() ? Json(nullptr) : Json(EncodeBase64Url(path.signature));
  json["drill_key"] = EncodeBase64Url(path.drill_key);
  return json;
}

Json ReportJson(const DrillReport& report) {
  Json document = NewDocument("drill");
  document["complete"] = report.Complete();
  document["proven"] = report.num_proven;
  document["failed"] = report.num_failed;
  document["skipped"] = report.num_skipped;
  document["challenge"] =
      report.challenge ? Json(EncodeBase64Url(*report.challenge)) : Json(nullptr);
  document["keys"] = Json::array();
  for (const KeyDrill& key : report.keys) {
    Json row = Json::object();
    row["key"] = KeyJson(key.key_name, key.key_version);
    row["envelope_sha256"] = EncodeBase64Url(key.envelope_hash);
    row["error"] = key.error ? ErrorJson(*key.error) : Json(nullptr);
    row["paths"] = Json::array();
    for (const PathDrill& path : key.paths) row["paths"].push_back(PathJson(path));
    document["keys"].push_back(std::move(row));
  }
  document["answers"] = Json::array();
  for (const NonceAnswer& answer : report.answers) {
    Json row = Json::object();
    row["token"] = answer.token;
    row["key_sha256"] = EncodeBase64Url(answer.key_sha256);
    row["outcome"] = answer.error ? DrillOutcomeName(answer.outcome) : "answered";
    row["answer"] = answer.error ? Json(nullptr) : Json(EncodeBase64Url(answer.answer));
    row["error"] = answer.error ? ErrorJson(*answer.error) : Json(nullptr);
    document["answers"].push_back(std::move(row));
  }
  document["event_file"] = TextOrNull(report.event_file);
  document["agent_signed_log"] = report.p256_signed;
  return document;
}

std::string RenderReport(const Json& document) {
  constexpr Column kColumns[] = {
      {"key.name", "key"},      {"key.version", "version", CellFormat::kText, true},
      {"id", "path"},           {"outcome", "outcome"},
      {"error.message", "why"},
  };
  constexpr Column kAnswers[] = {
      {"token", "token"}, {"outcome", "nonce"}, {"error.message", "why"}};
  Json rows = Json::array();
  for (const Json& key : document["keys"]) {
    if (!key["error"].is_null()) {
      rows.push_back({{"key", key["key"]}, {"outcome", "failed"}, {"error", key["error"]}});
    }
    for (const Json& path : key["paths"]) {
      Json row = path;
      row["key"] = key["key"];
      rows.push_back(std::move(row));
    }
  }
  std::string text =
      fmt::format("{} proven, {} failed, {} skipped\n\n", document["proven"].get<std::size_t>(),
                  document["failed"].get<std::size_t>(), document["skipped"].get<std::size_t>());
  text += RenderTable(rows, kColumns);
  if (!document["answers"].empty()) text += "\n" + RenderTable(document["answers"], kAnswers);
  // Without a log the statements are all there is: they are for whoever checks the drill.
  if (document["event_file"].is_null()) return text;
  for (const Json& key : document["keys"]) {
    for (const Json& path : key["paths"]) {
      if (path["statement"].is_null()) continue;
      text += "\n" + path["statement"].get<std::string>() + "signature " +
              path["signature"].get<std::string>() + "\n";
    }
  }
  return text;
}

Status WriteAnswers(const DrillReport& report, const std::string& file) {
  audit::TokenAnswers answers;
  answers.nonce = *report.challenge;
  for (const NonceAnswer& row : report.answers) {
    if (!row.error) answers.answers.push_back({row.key_sha256, row.answer});
  }
  DurableWriteOptions options;
  options.mode = 0644;
  options.exclusive = true;
  return WriteFileDurably(file, AsBytes(audit::FormatTokenAnswers(answers)), options);
}

// DrillKey is `drill recovery-key:NAME`.
Result<int> DrillKey(const DrillOptions& options, Session& session) {
  if (!options.via.empty() || !options.challenge.empty() || !options.agent.empty() ||
      !options.event_log.empty()) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "the drill of a recovery key takes no --via, --challenge, --agent or --event-log",
                 "drill one key by its path with 'keyescrow drill NAME --via ID'");
  }
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(CliSecrets* const secrets, session.OpenSecrets(options.secrets));
  RecoveryKeyDrillRequest request;
  request.name = options.name_or_file.substr(kRecoveryKeyPrefix.size());
  request.module = options.module;
  ASSIGN_OR_RETURN(const RecoveryKeyDrillReport report,
                   DrillRecoveryKey(*agent, request, *secrets, session.progress()));
  Json document = NewDocument("drill recovery-key");
  document["name"] = request.name;
  document["complete"] = report.Complete();
  document["envelopes"] = report.num_envelopes;
  document["proven"] = report.num_proven;
  document["opened"] = report.num_opened;
  document["failed"] = Json::array();
  for (const EnvelopeDrill& row : report.failed) {
    Json item = Json::object();
    item["key"] = KeyJson(row.key_name, row.key_version);
    item["id"] = TextOrNull(row.path_id);
    item["error"] = row.error ? ErrorJson(*row.error) : Json(nullptr);
    document["failed"].push_back(std::move(item));
  }
  document["log_seq"] = report.log_seq;
  document["agent_signed_log"] = report.p256_signed;
  constexpr Column kColumns[] = {{"key.name", "key"},
                                 {"key.version", "version", CellFormat::kText, true},
                                 {"id", "path"},
                                 {"error.message", "why"}};
  std::string text =
      fmt::format("opened recovery-key:{}, and by it {}: {} proven, {} failed\n",
                  EscapeForTerminal(request.name), Count(report.num_envelopes, "envelope"),
                  report.num_proven + report.num_opened, report.failed.size());
  text += RenderTable(document["failed"], kColumns);
  ASSIGN_OR_RETURN(const int status,
                   session.Finish(document, text, report.Complete() ? kExitDone : kExitFindings));
  if (report.num_opened > 0) {
    session.terminal().Note(
        Count(report.num_opened, "envelope") +
        " with a copy of the recovery key from before a change of its password: opened, and the "
        "log's entry has no signature of the copy's own drill key");
  }
  if (!report.p256_signed) {
    session.terminal().Warn(
        "the log's checkpoint lacks the agent key's signature: see 'keyescrow doctor'");
  }
  return status;
}

Result<int> DoDrill(const GlobalOptions& global, const DrillOptions& options, Session& session) {
  if (options.name_or_file.starts_with(kRecoveryKeyPrefix)) return DrillKey(options, session);
  const bool is_file = !options.name_or_file.empty() && MeansFile(options.name_or_file);
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgentFor(is_file));
  if (agent != nullptr && !options.event_log.empty()) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "--event-log is for a machine without a state: here the audit log has the event",
                 "leave --event-log out");
  }
  ASSIGN_OR_RETURN(CliSecrets* const secrets, session.OpenSecrets(options.secrets));
  OfficersDesk desk(*secrets, global, session.progress());
  ASSIGN_OR_RETURN(const DrillReport report, Drill(session.environment(), agent,
                                                   MakeRequest(options), desk, session.progress()));
  if (!options.answers.empty()) RETURN_IF_ERROR(WriteAnswers(report, options.answers));
  const Json document = ReportJson(report);
  const bool one_key = !options.name_or_file.empty();
  ASSIGN_OR_RETURN(const int status, session.Finish(document, RenderReport(document),
                                                    report.Complete() ? kExitDone : kExitFindings));
  Terminal& terminal = session.terminal();
  if (!report.p256_signed) {
    terminal.Warn("the log's checkpoint lacks the agent key's signature: see 'keyescrow doctor'");
  }
  if (!report.event_file.empty()) {
    terminal.Note("next: on the agent's host, keyescrow import-event " +
                  ShellWord(report.event_file));
  }
  // One key, and not one path of it: the status says why.
  if (one_key && report.num_proven == 0) {
    if (const auto cause = report.Cause()) return *cause;
  }
  return status;
}

}  // namespace

int RunDrill(const GlobalOptions& global, const DrillOptions& options, Session& session) {
  return session.Exit(DoDrill(global, options, session));
}

}  // namespace keyescrow::agent
