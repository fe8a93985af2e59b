// verify: everything that can be checked without a secret, and what was not checked.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/cli/commands.h"
#include "agent/cli/session.h"
#include "agent/cli/view_json.h"
#include "agent/usecases/verify.h"
#include "agent/usecases/verify_pack.h"

namespace keyescrow::agent {
namespace {

std::string Escaped(const Json& text) {
  return EscapeForTerminal(text.get_ref<const std::string&>());
}

// Record logs the outcome. Where that fails, a verification that found something still says so.
Result<std::optional<std::uint64_t>> Record(const std::vector<VerifyItem>& items, bool passes,
                                            Session& session) {
  const auto agent = session.OpenAgent();
  auto seq = agent ? RecordVerification(**agent, items) : Result<std::uint64_t>(agent.error());
  if (seq) return std::optional(*seq);
  if (passes) return seq.error();
  session.progress().Warn("the outcome was not logged: " + seq.error().message());
  return std::optional<std::uint64_t>();
}

// OutcomeOf: the item in one word.
std::string_view OutcomeOf(const VerifyItem& item) {
  if (item.error) return "BAD";
  if (item.num_findings > 0) return "findings";
  return item.partial ? "in part" : "good";
}

Color ColorOf(std::string_view outcome) {
  if (outcome == "BAD") return Color::kRed;
  return outcome == "good" ? Color::kGreen : Color::kYellow;
}

std::string RenderItems(const Terminal& terminal, const Json& items) {
  std::string text;
  for (const Json& item : items) {
    const auto& outcome = item["outcome"].get_ref<const std::string&>();
    text += Escaped(item["what"]) + ": " + terminal.PaintResult(ColorOf(outcome), outcome) + "\n";
    if (!item["error"].is_null()) {
      text += "  error: " + Escaped(item["error"]["message"]) +
              "\n  hint: " + Escaped(item["error"]["hint"]) + "\n";
    }
    std::string remedy;
    for (const Json& finding : item["findings"]) {
      text += fmt::format("  finding: {} at {}: {}\n", Escaped(finding["fault"]),
                          finding["position"].get<std::uint64_t>(), Escaped(finding["what"]));
      if (finding["remedy"] != remedy) {
        remedy = finding["remedy"].get<std::string>();
        text += "    remedy: " + EscapeForTerminal(remedy) + "\n";
      }
    }
    const auto shown = item["findings"].size();
    if (item["num_findings"].get<std::uint64_t>() > shown) {
      text += fmt::format("  finding: and {} more\n",
                          item["num_findings"].get<std::uint64_t>() - shown);
    }
    for (const auto& [member, title] :
         {std::pair{"checked", "checked"}, std::pair{"not_checked", "not checked"}}) {
      for (const Json& line : item[member]) text += fmt::format("  {}: {}\n", title, Escaped(line));
    }
  }
  return text;
}

Json StoreJson(const StoreVerification& store) {
  Json json = Json::object();
  json["entries"] = store.log.num_entries;
  json["checkpoints"] = store.log.num_checkpoints;
  json["checkpoint_signatures"] = store.log.num_signatures;
  json["tiles"] = store.log.num_tiles;
  json["root"] = ToHex(store.log.root);
  json["envelopes"] = store.num_envelopes;
  json["envelope_signatures"] = store.num_envelope_signatures;
  json["keys"] = store.num_keys;
  json["paths"] = store.num_paths;
  json["proofs"] = store.num_proofs;
  json["signed_proofs"] = store.num_signed_proofs;
  json["drill_proofs"] = store.drills.num_held;
  json["drill_proofs_unchecked"] = store.drills.num_no_envelope + store.drills.num_no_tile;
  json["tpm_public_areas"] = store.num_tpm_objects;
  json["tokens"] = store.num_tokens;
  json["trusted_agents"] = store.num_trusted;
  json["imported_events"] = store.num_imported;
  json["restores"] = store.num_releases;
  json["anchors"] = store.num_anchors;
  json["file_bytes"] = store.file_bytes;
  json["threads"] = store.num_threads;
  json["seconds"] = store.seconds;
  return json;
}

Json ItemJson(const VerifyItem& item) {
  Json json = Json::object();
  json["what"] = item.what;
  json["good"] = !item.error.has_value();
  json["outcome"] = OutcomeOf(item);
  json["error"] = item.error ? ErrorJson(*item.error) : Json(nullptr);
  json["findings"] = Json::array();
  for (const VerifyFinding& finding : item.findings) {
    Json row = Json::object();
    row["fault"] = finding.fault;
    row["position"] = finding.position;
    row["what"] = finding.what;
    row["damage"] = finding.damage;
    row["remedy"] = finding.remedy;
    json["findings"].push_back(std::move(row));
  }
  json["num_findings"] = item.num_findings;
  json["checked"] = ListJson(item.checked);
  json["not_checked"] = ListJson(item.not_checked);
  json["partial"] = item.partial;
  json["counts"] = item.store ? StoreJson(*item.store) : Json(nullptr);
  return json;
}

struct Summary {
  int status = kExitDone;
  std::size_t num_bad = 0;
  std::uint64_t num_findings = 0;
  bool partial = false;
  std::uint64_t num_envelopes = 0;

  void Add(const VerifyItem& item) {
    num_envelopes += item.num_envelopes;
    num_bad += item.error ? 1U : 0U;
    num_findings += item.num_findings;
    partial = partial || item.partial;
    if (item.error && (status == kExitDone || status == kExitFindings)) {
      status = ExitStatus(*item.error);
    }
    if (!item.Passes() && status == kExitDone) status = kExitFindings;
  }
  std::string Verdict() const {
    if (num_bad > 0) return "does not verify";
    if (num_findings > 0) return "nothing is damaged, and there are findings";
    if (num_envelopes == 0) return "nothing is escrowed";
    return partial ? "nothing is damaged, but not all was checked: not a pass" : "verified";
  }
};

Result<Agent*> AgentFor(const VerifyOptions& options, Session& session) {
  const auto& names = options.names_or_files;
  if (names.empty()) {
    // The state itself is verified, which takes none of its secrets; the agent is asked for its
    // TPM's counter alone, and what keeps it from opening is what the state's verification finds.
    RETURN_IF_ERROR(session.RequireConfig());
    auto agent = session.OpenAgent();
    return agent ? *agent : nullptr;
  }
  const bool no_names = std::ranges::all_of(
      names, [](const std::string& name) { return IsStateFolder(name) || MeansFile(name); });
  const bool only_states = std::ranges::all_of(names, &IsStateFolder);
  if (only_states) return nullptr;
  return session.OpenAgentFor(no_names);
}

Result<int> DoVerify(const VerifyOptions& options, Session& session) {
  ASSIGN_OR_RETURN(Agent* const agent, AgentFor(options, session));
  // A state or a pack has a log of its own that can be compared.
  const bool has_log = options.names_or_files.empty() ||
                       std::ranges::any_of(options.names_or_files, [](const std::string& name) {
                         return IsStateFolder(name) || IsPack(name);
                       });
  if (agent == nullptr && !has_log && !options.since.empty()) {
    return Error(ErrorCode::kNotInitialized, Action::kFixInput,
                 "there is no log here that could be compared with " + options.since,
                 "run this on the agent's host, or leave --since out");
  }
  VerifyRequest request;
  request.names_or_files = options.names_or_files;
  request.trust_file = options.trust;
  request.trusted_agent = options.agent;
  request.since_file = options.since;
  request.sample = {options.challenge, options.expected, options.answers};
  request.num_threads = options.threads.value_or(0);
  request.quick = options.quick;
  session.progress().Step("verifying");
  ASSIGN_OR_RETURN(const std::vector<VerifyItem> items,
                   Verify(session.environment().state_dir, agent, request, session.progress()));
  session.progress().Pause();
  // One thing that was asked for and cannot be read, or is bad, is the command's error.
  const bool nothing_read = items.size() == 1 && items.front().error && !items.front().store &&
                            items.front().findings.empty();
  if (nothing_read && options.names_or_files.empty()) {
    // Of a state whose store is gone the agent says more than who looks for any state.
    const auto opened = session.OpenAgent();
    if (!opened && items.front().error->code() == ErrorCode::kNotInitialized) return opened.error();
  }
  if (nothing_read) return *items.front().error;
  Summary summary;
  Json document = NewDocument("verify");
  Json list = Json::array();
  for (const VerifyItem& item : items) {
    summary.Add(item);
    list.push_back(ItemJson(item));
  }
  document["verdict"] = summary.Verdict();
  document["good"] = summary.status == kExitDone && summary.num_envelopes > 0;
  document["num_envelopes"] = summary.num_envelopes;
  document["num_bad"] = summary.num_bad;
  document["items"] = std::move(list);
  std::optional<std::uint64_t> log_entry;
  if (options.record && summary.num_envelopes + summary.num_bad > 0) {
    ASSIGN_OR_RETURN(log_entry, Record(items, summary.status == kExitDone, session));
  }
  document["log_entry"] = log_entry ? Json(*log_entry) : Json(nullptr);
  std::string text = RenderItems(session.terminal(), document["items"]);
  text += fmt::format("{}, {} bad: {}\n", Count(summary.num_envelopes, "envelope"), summary.num_bad,
                      summary.Verdict());
  if (log_entry) text += fmt::format("log entry: {}\n", *log_entry);
  ASSIGN_OR_RETURN(const int status, session.Finish(document, text, summary.status));
  if (summary.num_envelopes == 0 && summary.num_bad == 0) {
    return Error(ErrorCode::kNotFound, Action::kFixInput, "no envelope is in the store",
                 "escrow a key with 'keyescrow backup', or name a file to verify");
  }
  return status;
}

}  // namespace

int RunVerify(const GlobalOptions& /*global*/, const VerifyOptions& options, Session& session) {
  return session.Exit(DoVerify(options, session));
}

}  // namespace keyescrow::agent
