// list, show, status: what is escrowed, and how well.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/foreign_text.h"
#include "agent/cli/nagios.h"
#include "agent/cli/prometheus.h"
#include "agent/cli/recoverability_text.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/key_locations/crash_safe_file.h"
#include "agent/usecases/destroy.h"
#include "agent/usecases/foreign_escrow.h"
#include "agent/usecases/inventory.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kNamedOfMany = 3;

Error NothingEscrowed() {
  return Error(ErrorCode::kNotFound, Action::kFixInput, "no key is escrowed here",
               "escrow one with 'keyescrow backup NAME --from SOURCE --path EXPR'");
}

// PathSummary: "token-ops proven, tpm unproven", for one cell.
std::string PathSummary(const Json& paths) {
  std::string summary;
  for (const Json& path : paths) {
    if (!summary.empty()) summary += ", ";
    summary += path["id"].get<std::string>();
    if (path["condition"].is_string()) summary += " " + path["condition"].get<std::string>();
  }
  return summary;
}

// KeyRows adds the cell to copies of the keys: it is text, not a part of the document.
Json KeyRows(const Json& keys) {
  Json rows = keys;
  for (Json& row : rows) row["path_summary"] = PathSummary(row["paths"]);
  return rows;
}

constexpr Column kKeyColumns[] = {
    {"key.name", "key"},       {"key.version", "version", CellFormat::kText, true},
    {"path_summary", "paths"}, {"updated", "escrowed"},
    {"host", "host"},
};

Result<int> DoList(Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  ASSIGN_OR_RETURN(const std::vector<KeyView> keys, ListKeys(*agent));
  ASSIGN_OR_RETURN(const std::vector<ForeignEscrow> foreign, ForeignInventory(*agent));
  ASSIGN_OR_RETURN(const std::vector<DestroyedKey> destroyed, DestroyedKeys(*agent, ""));
  if (keys.empty() && foreign.empty() && destroyed.empty()) return NothingEscrowed();
  Json document = NewDocument("list");
  document["keys"] = Json::array();
  for (const KeyView& key : keys) document["keys"].push_back(KeyViewJson(key));
  document["foreign"] = ForeignListJson(foreign);
  document["destroyed"] = Json::array();
  std::string text = keys.empty() ? "" : RenderTable(KeyRows(document["keys"]), kKeyColumns);
  for (const DestroyedKey& key : destroyed) {
    document["destroyed"].push_back({{"name", key.name},
                                     {"versions", key.num_versions},
                                     {"time", TimeJson(key.time)},
                                     {"by", key.by},
                                     {"reason", TextOrNull(key.reason)}});
    text += EscapeForTerminal(fmt::format("destroyed: {}, {}, on {} by {}", key.name,
                                          Count(key.num_versions, "version"), FormatUtc(key.time),
                                          key.by)) +
            "\n";
  }
  if (!text.empty() && !foreign.empty()) text += "\n";
  return session.Finish(document, text + RenderForeign(document["foreign"]));
}

std::string RenderKey(const Json& document) {
  constexpr Column kFields[] = {
      {"revision", "  revision"},
      {"versions", "  versions"},
      {"host", "  host"},
      {"policy", "  policy"},
      {"created", "  created"},
      {"updated", "  updated"},
      {"agent", "  agent"},
      {"agent_trusted", "  trusted"},
      {"envelope_sha256", "  envelope hash"},
      {"envelope_bytes", "  envelope size", CellFormat::kBytes},
      {"note", "  note"},
      {"source", "  source"},
  };
  constexpr Column kPaths[] = {
      {"id", "path"},
      {"factors", "factors"},
      {"portable", "portable"},
      {"condition", "state"},
      {"proven", "proven"},
      {"proven_by", "by"},
      {"proof_seq", "signed entry"},
      {"opens_here", "opens here"},
      {"why_not", "why not"},
  };
  return fmt::format("{} version {}\n",
                     EscapeForTerminal(document["key"]["name"].get_ref<const std::string&>()),
                     document["key"]["version"].get<std::uint32_t>()) +
         RenderFields(document, kFields) + "\n" + RenderTable(document["paths"], kPaths) +
         "\nwhat it takes\n" + RecoverabilityDrawing(document["recoverability"]);
}

// DoShowForeign needs no state, as little as `show FILE` of an envelope.
Result<int> DoShowForeign(const std::string& file, Session& session) {
  ASSIGN_OR_RETURN(const std::vector<ForeignEscrow> foreign, ReadForeign(file));
  Json document = NewDocument("show-foreign");
  document["foreign"] = ForeignListJson(foreign);
  return session.Finish(document, RenderForeign(document["foreign"]));
}

Result<int> DoShow(const ShowOptions& options, Session& session) {
  const std::string& file = options.name_or_file;
  if ((MeansFile(file) || file.starts_with("luks:")) && LooksForeign(file)) {
    return DoShowForeign(file, session);
  }
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgentFor(MeansFile(options.name_or_file)));
  ASSIGN_OR_RETURN(const EnvelopeSource source,
                   FindEnvelope(agent, options.name_or_file, std::nullopt));
  // Nothing is opened: an agent that nobody trusts is shown as such.
  ASSIGN_OR_RETURN(const envelope::ReadOptions trust, TrustFor(agent, "", true));
  ASSIGN_OR_RETURN(CliSecrets* const secrets, session.OpenSecrets({}));
  PathOpenOptions probe;
  probe.devices = &session.devices();
  probe.secrets = secrets;
  probe.progress = &session.progress();
  probe.store = agent != nullptr ? &agent->store() : nullptr;
  probe.module = options.module;
  // Without the pin, which would stand for the TPM's own answer.
  if (agent != nullptr) session.devices().UseTpm(agent->tcti(), {});
  session.progress().Step("looking for the paths' devices");
  ASSIGN_OR_RETURN(const KeyView view, ShowEnvelope(agent, source, trust, &probe));
  Json document = NewDocument("show");
  document["file"] = TextOrNull(source.file);
  document.update(KeyViewJson(view));
  ASSIGN_OR_RETURN(const int status, session.Finish(document, RenderKey(document)));
  const bool is_known = std::ranges::any_of(
      trust.trusted,
      [&](const envelope::TrustedAgent& trusted) { return trusted.thumbprint == view.agent; });
  if (!view.agent_trusted) {
    session.terminal().Warn("the agent " + view.agent +
                            (is_known
                                 ? " is trusted, but not for this host and key: 'keyescrow "
                                   "trust list' shows what it may sign for"
                                 : " is not trusted here: compare its thumbprint, then restore "
                                   "with --agent, or 'keyescrow trust add' it"));
  }
  return status;
}

// RecoverabilityLines: one line a key, of what it survives and what opens it.
std::string RecoverabilityLines(const Json& keys) {
  std::string text = keys.empty() ? "" : "\n";
  for (const Json& key : keys) {
    text += EscapeForTerminal(key["key"]["name"].get_ref<const std::string&>()) + ": " +
            RecoverabilityLine(key["recoverability"]) + "\n";
  }
  return text;
}

// NamesOfMany names the keys of which one thing is said: a few of them, and how many more.
std::string NamesOfMany(const std::vector<std::string>& keys) {
  std::string names = fmt::format("{}", fmt::join(keys.begin(), keys.begin() + kNamedOfMany, ", "));
  return fmt::format("{} and {} more keys", names, keys.size() - kNamedOfMany);
}

// FindingLines: what is said of many keys in the same words is said once, where it comes first.
std::string FindingLines(const Terminal& terminal, const Json& findings) {
  const auto words = [](const Json& finding) {
    return finding["severity"].get<std::string>() + "\n" + finding["what"].get<std::string>() +
           "\n" + finding["remedy"].get<std::string>();
  };
  std::map<std::string, std::vector<std::string>> keys_of;
  for (const Json& finding : findings) {
    if (!finding["key"].is_string()) continue;
    std::vector<std::string>& keys = keys_of[words(finding)];
    if (keys.empty() || keys.back() != finding["key"]) keys.push_back(finding["key"]);
  }
  std::string text;
  for (const Json& finding : findings) {
    std::string key = finding["key"].is_string() ? finding["key"].get<std::string>() : "";
    if (!key.empty()) {
      const std::vector<std::string>& keys = keys_of[words(finding)];
      const bool many = keys.size() > kNamedOfMany + 1;
      if (many && key != keys.front()) continue;
      key = (many ? NamesOfMany(keys) : key) + ": ";
    }
    const bool critical = finding["severity"] == "critical";
    text += terminal.PaintResult(critical ? Color::kRed : Color::kYellow,
                                 critical ? "critical" : "warning");
    text += ": " + EscapeForTerminal(key + finding["what"].get_ref<const std::string&>()) + "\n";
    text +=
        "  remedy: " + EscapeForTerminal(finding["remedy"].get_ref<const std::string&>()) + "\n";
  }
  return text;
}

std::string RenderStatus(const Terminal& terminal, const Json& document) {
  const bool complies = document["complies"].get<bool>();
  const auto num_findings = document["findings"].size();
  std::string text = complies ? terminal.PaintResult(Color::kGreen, "complies")
                              : terminal.PaintResult(Color::kRed, "does not comply");
  text += fmt::format(": {}, {}, policy {}\n\n", Count(document["keys"].size(), "escrowed key"),
                      Count(num_findings, "finding"),
                      EscapeForTerminal(document["policy"].get_ref<const std::string&>()));
  text += RenderTable(KeyRows(document["keys"]), kKeyColumns);
  text += RecoverabilityLines(document["keys"]);
  if (num_findings != 0 && !document["keys"].empty()) text += "\n";
  return text + FindingLines(terminal, document["findings"]);
}

Result<StatusReport> Evaluate(const StatusOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  return EvaluateStatus(*agent, options.name, DriftOptions{options.exec_sources});
}

Result<int> DoStatus(const StatusOptions& options, Session& session) {
  ASSIGN_OR_RETURN(const StatusReport report, Evaluate(options, session));
  Json document = NewDocument("status");
  bool complies = true;
  Json findings = Json::array();
  for (const Finding& finding : report.findings) {
    const bool critical = finding.severity == Severity::kCritical;
    complies = complies && !critical;
    Json item = Json::object();
    item["rule"] = finding.rule;
    item["key"] = TextOrNull(finding.key);
    item["host"] = finding.host;
    item["severity"] = critical ? "critical" : "warning";
    item["what"] = finding.what;
    item["remedy"] = finding.remedy;
    item["policy_rule"] = TextOrNull(finding.policy_rule);
    findings.push_back(std::move(item));
  }
  document["complies"] = complies;
  document["host"] = report.host;
  document["policy"] = report.policy;
  document["agent"] = report.thumbprint;
  document["log_size"] = report.log_size;
  document["evaluated"] = TimeJson(session.Now());
  document["keys"] = Json::array();
  for (const KeyView& key : report.keys) document["keys"].push_back(KeyViewJson(key));
  document["findings"] = std::move(findings);
  // They are no keys of a policy's: said, and no finding. One key's status is of that key alone.
  std::vector<ForeignEscrow> foreign;
  if (options.name.empty()) {
    ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
    ASSIGN_OR_RETURN(foreign, ForeignInventory(*agent));
  }
  document["foreign"] = ForeignListJson(foreign);
  const std::string tail = RenderForeign(document["foreign"]);
  return session.Finish(
      document, RenderStatus(session.terminal(), document) + (tail.empty() ? "" : "\n" + tail),
      complies ? kExitDone : kExitFindings);
}

// Nagios wants one line and its own exit statuses, whatever happens.
Result<int> DoNagios(const StatusOptions& options, Session& session) {
  const Result<StatusReport> report = Evaluate(options, session);
  session.progress().Pause();
  const NagiosLine line = report ? FormatNagios(*report) : FormatNagiosError(report.error());
  const Status written = session.terminal().WriteResult(line.text);
  if (written) return line.status;
  session.terminal().PrintError(written.error());
  return kNagiosUnknown;
}

Result<int> DoPrometheus(const StatusOptions& options, Session& session) {
  ASSIGN_OR_RETURN(const StatusReport report, Evaluate(options, session));
  ASSIGN_OR_RETURN(Agent* const agent, session.OpenAgent());
  MonitorFacts facts;
  facts.now = session.Now();
  ASSIGN_OR_RETURN(facts.counts, agent->journal().Counts());
  ASSIGN_OR_RETURN(facts.checkpoint_time, NewestEntryTime(*agent));
  const std::string text = FormatPrometheus(report, facts);
  session.progress().Pause();
  if (options.output.empty()) {
    RETURN_IF_ERROR(session.terminal().WriteResult(text));
  } else {
    DurableWriteOptions write;
    write.may_write = [&] {
      return CheckDocumentPlace(options.output, "metrics of keyescrow", {"keyescrow_build_info"});
    };
    RETURN_IF_ERROR(WriteFileDurably(options.output, AsBytes(text), write));
  }
  return kExitDone;
}

}  // namespace

int RunList(const GlobalOptions& /*global*/, const ListOptions& /*options*/, Session& session) {
  return session.Exit(DoList(session));
}

int RunShow(const GlobalOptions& /*global*/, const ShowOptions& options, Session& session) {
  return session.Exit(DoShow(options, session));
}

int RunStatus(const GlobalOptions& global, const StatusOptions& options, Session& session) {
  if ((options.nagios || options.prometheus) && global.json) {
    const Error error(ErrorCode::kUsage, Action::kFixInput,
                      std::string(options.nagios ? "--nagios" : "--prometheus") +
                          " and --json exclude each other",
                      "leave one of them out");
    const int status = session.Exit(error);
    return options.nagios ? kNagiosUnknown : status;
  }
  if (options.prometheus) return session.Exit(DoPrometheus(options, session));
  return session.Exit(options.nagios ? DoNagios(options, session) : DoStatus(options, session));
}

}  // namespace keyescrow::agent
