#include "agent/usecases/pack_report.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <variant>

#include "agent/audit/checkpoint.h"
#include "agent/policy/evaluate.h"
#include "agent/policy/policy.h"
#include "agent/report/control_map.h"
#include "agent/report/report_html.h"
#include "agent/report/report_json.h"
#include "agent/report/report_read.h"
#include "agent/usecases/inventory.h"
#include "agent/usecases/number_text.h"
#include "agent/usecases/pack_fields.h"
#include "agent/usecases/pack_policy.h"
#include "agent/usecases/registry.h"
#include "agent/usecases/summary_paths.h"
#include "agent/usecases/survival_text.h"
#include "agent/usecases/verified_pack.h"
#include "envelope/base/base64url.h"
#include "envelope/recoverability.h"

namespace keyescrow::agent {
namespace {

using audit::LogFault;

bool HasTpm(const envelope::PathRecord& path) {
  return std::ranges::any_of(path.factors, [](const envelope::FactorRecord& factor) {
    return std::holds_alternative<envelope::Tpm2Record>(factor);
  });
}

class ReportChecker {
 public:
  ReportChecker(const report::TarReader& pack, const PackLog& log, const report::ReportModel& model,
                audit::LogFindings& findings)
      : pack_(pack), log_(log), model_(model), findings_(findings) {}

  Status Run(const std::string& status) {
    if (report::ReportJson(model_) != status) {
      Bad(0, "status.json is not what its own facts give: figures, ages or form are others");
    }
    RETURN_IF_ERROR(Compare("report.html", report::ReportHtml(model_)));
    RETURN_IF_ERROR(Compare("report.csv", report::ReportCsv(model_)));
    RETURN_IF_ERROR(CompareHead());
    RETURN_IF_ERROR(CompareInventory());
    RETURN_IF_ERROR(ComparePolicy());
    CompareHistory();
    return CompareKeys();
  }

 private:
  void Bad(std::uint64_t seq, std::string text) {
    findings_.Add(LogFault::kPackContents, seq, std::move(text));
  }

  Status Compare(std::string_view name, const std::string& expected) {
    ASSIGN_OR_RETURN(const std::string text, pack_.Read(name));
    if (text != expected) {
      Bad(0, fmt::format("{} is not the report that status.json gives", name));
    }
    return Ok();
  }

  // CompareHead: whose report it is, of when, and of which log.
  Status CompareHead() {
    ASSIGN_OR_RETURN(const std::string keys, pack_.Read("keys/agent-key.json"));
    ASSIGN_OR_RETURN(const TrustDocument agent, ParseAgentKeyDocument(keys));
    ASSIGN_OR_RETURN(const audit::Checkpoint newest,
                     audit::ParseCheckpoint(audit::NoteText(log_.checkpoint())));
    const report::ReportCheckpoint& stated = model_.checkpoint;
    if (model_.host != agent.host || model_.agent != agent.thumbprint ||
        model_.now != pack_.time() || stated.origin != newest.origin ||
        stated.size != newest.size || stated.root != EncodeBase64(newest.root)) {
      Bad(0, "status.json's host, agent, time or checkpoint are not those of the pack");
    }
    return Ok();
  }

  Status CompareInventory() {
    ASSIGN_OR_RETURN(const std::string text, pack_.Read("inventory.json"));
    const auto json = ParsePackJson(text);
    PackFields fields(json);
    if (fields.List("foreign") != report::ForeignListJson(model_)) {
      Bad(0, "status.json's foreign escrows are not those of inventory.json");
    }
    std::map<std::string, std::string> sources;
    for (const auto& item : fields.List("declared")) {
      PackFields key(item);
      sources[key.Text("name")] = key.Text("source");
      fields.Need(key.good());
    }
    if (!fields.good()) return MisshapenPart("inventory.json");
    for (const report::ReportKey& key : model_.keys) {
      const auto source = sources.find(key.name);
      if (key.source == (source == sources.end() ? "" : source->second)) continue;
      Bad(0, key.name + ": status.json's source is not that of inventory.json");
    }
    return Ok();
  }

  // ComparePolicy: how old a proof may be. Of a policy for a newer keyescrow, the host's word.
  Status ComparePolicy() {
    ASSIGN_OR_RETURN(const std::string text, pack_.Read("policy/policy.toml"));
    const auto policy = policy::ParsePolicy(text, "policy/policy.toml");
    if (!policy) return Ok();  // told by whoever holds the keys to it
    std::optional<std::int64_t> shortest;
    std::optional<std::int64_t> longest;
    for (const policy::Rule& rule : policy->rules) {
      if (!rule.drill_every_s) continue;
      shortest = std::min(shortest.value_or(*rule.drill_every_s), *rule.drill_every_s);
      longest = std::max(longest.value_or(*rule.drill_every_s), *rule.drill_every_s);
    }
    if (model_.policy != policy->name || model_.drill_every_shortest_s != shortest ||
        model_.drill_every_longest_s != longest) {
      Bad(0, "status.json's policy, or how often it asks for drills, is not that of policy/");
    }
    for (const report::ReportKey& key : model_.keys) CompareAges(key, *policy);
    return Ok();
  }

  // CompareAges: what counts as proven or covered was opened within the time that the policy asks.
  void CompareAges(const report::ReportKey& key, const policy::Policy& policy) {
    const auto rules = policy::MatchingRules(policy, key.name, key.host, model_.now);
    for (const report::ReportPath& path : key.paths) {
      const bool is_proven = path.condition == "proven";
      if (!is_proven && path.condition != "covered") continue;
      const std::optional<std::int64_t>& opened = is_proven ? path.proven : path.covered_since;
      const auto period = policy::DrillPeriod(rules, path.id);
      if (!opened || !period || model_.now - *opened <= *period) continue;
      Bad(0, fmt::format("{}: the path {} was opened longer ago than the policy asks for, and "
                         "status.json calls it {}",
                         key.name, path.id, path.condition));
    }
  }

  void CompareHistory() {
    const ReportHistory& history = log_.history();
    if (model_.releases != history.releases()) {
      Bad(FirstDifference(model_.releases, history.releases()),
          "status.json's releases are not as the entries tell them");
    }
    if (model_.verifications != history.verifications()) {
      Bad(FirstDifference(model_.verifications, history.verifications()),
          "status.json's verifications are not as the entries tell them");
    }
    if (model_.num_drills_passed != history.num_drills_passed() ||
        model_.num_drills_failed != history.num_drills_failed()) {
      Bad(0, "status.json's numbers of drills are not those of the entries");
    }
  }

  template <typename Item>
  static std::uint64_t FirstDifference(const std::vector<Item>& stated,
                                       const std::vector<Item>& told) {
    const auto [one, other] = std::mismatch(stated.begin(), stated.end(), told.begin(), told.end());
    return other != told.end() ? other->seq : one->seq;
  }

  // CompareKeys holds what status.json says of each newest envelope against its summary.
  Status CompareKeys() {
    std::map<std::string_view, const report::ReportKey*> keys;
    for (const report::ReportKey& key : model_.keys) {
      if (key.escrowed) keys[key.name] = &key;
    }
    const auto newest = NewestInUse(log_.summaries(), log_.life());
    return ForSummaries(pack_, [&](std::string_view line) -> Status {
      ASSIGN_OR_RETURN(const EnvelopeSummary summary, ParseSummary(line));
      const auto key = keys.find(summary.key_name);
      if (!newest.contains(summary.log_seq) || key == keys.end()) return Ok();
      CompareCover(*key->second, summary);
      if (!SameKey(*key->second, line, summary)) {
        Bad(summary.log_seq,
            fmt::format("{}: what status.json says of it is not what its summary says",
                        summary.key_name));
      }
      return Ok();
    });
  }

  // CompareCover: a path is covered by its recovery key, which was opened then, and by no other.
  void CompareCover(const report::ReportKey& key, const EnvelopeSummary& summary) {
    for (std::size_t i = 0; i < key.paths.size(); ++i) {
      const report::ReportPath& path = key.paths[i];
      bool good = path.condition != "covered" || path.covered_since;
      if (path.covered_since) {
        const bool known = !path.proven && i < summary.recovery_keys.size();
        good = known && log_.recovery_keys().OpenedAt(summary.recovery_keys[i].name,
                                                      summary.recovery_keys[i].thumbprint) ==
                            path.covered_since;
      }
      if (good) continue;
      Bad(summary.log_seq, fmt::format("{}: no recovery key was opened that covers the path {} as "
                                       "status.json says",
                                       key.name, path.id));
    }
  }

  static bool SameKey(const report::ReportKey& key, std::string_view line,
                      const EnvelopeSummary& summary) {
    const auto json = ParsePackJson(line);
    PackFields fields(json);
    const std::string note = fields.Of("note").is_null() ? "" : fields.Text("note");
    const bool same = key.host == summary.host && key.agent == summary.agent &&
                      key.envelope_id == summary.envelope_id && key.note == note &&
                      key.policy == fields.Text("policy") &&
                      key.created == fields.Text("created") &&
                      key.updated == fields.Text("updated") && fields.good();
    if (!same) return false;
    const auto header = SummaryHeader(line);
    if (!header) return true;  // whoever holds it to the policy says so
    std::optional<envelope::Recoverability> recoverability;
    if (auto analysed = envelope::Recoverability::Of(header->paths)) {
      recoverability = std::move(*analysed);
    }
    return key.survival == SurvivalText(recoverability) &&
           std::ranges::equal(
               key.paths, header->paths,
               [](const report::ReportPath& stated, const envelope::PathRecord& path) {
                 return stated.id == path.id && stated.expression == PathExpressionText(path) &&
                        stated.portable == !HasTpm(path);
               });
  }

  const report::TarReader& pack_;
  const PackLog& log_;
  const report::ReportModel& model_;
  audit::LogFindings& findings_;
};

}  // namespace

Status CheckPackReport(const report::TarReader& pack, const PackLog& log,
                       std::vector<std::string>& checked, std::vector<std::string>& not_checked,
                       audit::LogFindings& findings) {
  ASSIGN_OR_RETURN(const std::string status, pack.Read("status.json"));
  const auto form = report::FormOf(status);
  if (form && *form != report::kReportForm) {
    const std::string why = fmt::format(
        "the report is of form {}, and this keyescrow makes form {}", *form, report::kReportForm);
    findings.Add(LogFault::kUnreadable, 0,
                 why + ": verify the pack with the keyescrow that its status.json names");
    not_checked.push_back(
        "report.html, report.csv, controls.md and what status.json says of keys and releases: " +
        why);
    return Ok();
  }
  const auto model = report::ReadReportJson(status);
  if (!model) return MisshapenPart("status.json");
  ASSIGN_OR_RETURN(const std::string controls, pack.Read("controls.md"));
  if (controls != report::ControlsMarkdown()) {
    findings.Add(LogFault::kPackContents, 0,
                 "controls.md is not the control map of a report of this form");
  }
  RETURN_IF_ERROR(ReportChecker(pack, log, *model, findings).Run(status));
  checked.push_back(
      "status.json, report.html, report.csv and controls.md, made anew and compared byte by "
      "byte; " +
      Plural(model->releases.size(), "release", "releases") +
      " with reason, person and outcome by the entries; keys and their paths by the summaries");
  return Ok();
}

}  // namespace keyescrow::agent
