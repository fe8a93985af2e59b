#include "agent/report/report_json.h"

#include <nlohmann/json.hpp>

#include "agent/report/control_map.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent::report {
namespace {

using Json = nlohmann::ordered_json;

Json TextOrNull(std::string_view text) { return text.empty() ? Json(nullptr) : Json(text); }
Json TimeOrNull(const std::optional<std::int64_t>& time) {
  return time ? Json(FormatUtc(*time)) : Json(nullptr);
}

Json PathJson(const ReportPath& path) {
  return {{"id", path.id},
          {"factors", path.expression},
          {"portable", path.portable},
          {"condition", path.condition},
          {"proven", TimeOrNull(path.proven)},
          {"covered_since", TimeOrNull(path.covered_since)},
          {"failure", TextOrNull(path.failure)}};
}

Json KeyJson(const ReportKey& key) {
  Json json = {{"name", key.name},
               {"declared", key.declared},
               {"source", TextOrNull(key.source)},
               {"escrowed", key.escrowed}};
  if (!key.escrowed) return json;
  json["version"] = key.version;
  json["revision"] = key.revision;
  json["versions"] = key.num_versions;
  json["host"] = key.host;
  json["policy"] = key.policy;
  json["created"] = key.created;
  json["updated"] = key.updated;
  json["agent"] = key.agent;
  json["agent_trusted"] = key.agent_trusted;
  json["envelope_id"] = key.envelope_id;
  json["envelope_sha256"] = key.envelope_sha256;
  json["note"] = TextOrNull(key.note);
  if (!key.survival.empty()) json["survival"] = key.survival;
  json["paths"] = Json::array();
  for (const ReportPath& path : key.paths) json["paths"].push_back(PathJson(path));
  return json;
}

Json ForeignJson(const ForeignItem& item) {
  return {{"place", item.place},
          {"item", item.item},
          {"kind", item.kind},
          {"volume", TextOrNull(item.volume)},
          {"opens_by", item.expression},
          {"survival", item.survival},
          {"caveats", item.caveats},
          {"sha256", item.sha256},
          {"found", FormatUtc(item.found)},
          {"held", false},
          {"proven", false}};
}

Json ReleaseJson(const Release& release) {
  return {{"seq", release.seq},
          {"outcome_seq", release.outcome_seq ? Json(*release.outcome_seq) : Json(nullptr)},
          {"time", FormatUtc(release.time)},
          {"key", release.key},
          {"version", release.version},
          {"path", TextOrNull(release.path)},
          {"actor", release.actor},
          {"host", release.host},
          {"reason", TextOrNull(release.reason)},
          {"ticket", TextOrNull(release.ticket)},
          {"outcome", release.outcome},
          {"error", TextOrNull(release.error)},
          {"imported", release.imported}};
}

}  // namespace

Json ForeignListJson(const ReportModel& model) {
  Json list = Json::array();
  for (const ForeignItem& item : model.foreign) list.push_back(ForeignJson(item));
  return list;
}

Json ReportDocument(const ReportModel& model) {
  Json document = {{"schema", kReportSchema},
                   {"form", kReportForm},
                   {"host", model.host},
                   {"agent", model.agent},
                   {"policy", model.policy},
                   {"keyescrow", model.version},
                   {"complies", Complies(model)},
                   {"evaluated", FormatUtc(model.now)},
                   {"query", kQuery}};
  document["drill_every_s"] = nullptr;
  if (model.drill_every_shortest_s) {
    document["drill_every_s"] = {
        {"shortest", *model.drill_every_shortest_s},
        {"longest", model.drill_every_longest_s.value_or(*model.drill_every_shortest_s)}};
  }
  document["checkpoint"] = {{"origin", model.checkpoint.origin},
                            {"size", model.checkpoint.size},
                            {"root", model.checkpoint.root},
                            {"note", model.checkpoint.note}};
  for (const Figure& figure : FiguresOf(model)) {
    document["figures"][std::string(figure.name)] = figure.value;
  }
  document["proof_ages"] = Json::array();
  for (const AgeBucket& bucket : DrillAges(model)) {
    document["proof_ages"].push_back({{"age", bucket.label}, {"paths", bucket.num_paths}});
  }
  document["findings"] = Json::array();
  for (const ReportFinding& finding : model.findings) {
    document["findings"].push_back({{"rule", finding.rule},
                                    {"key", TextOrNull(finding.key)},
                                    {"severity", finding.critical ? "critical" : "warning"},
                                    {"what", finding.what},
                                    {"remedy", finding.remedy}});
  }
  document["keys"] = Json::array();
  for (const ReportKey& key : model.keys) document["keys"].push_back(KeyJson(key));
  document["foreign"] = ForeignListJson(model);
  document["releases"] = Json::array();
  for (const Release& release : model.releases) {
    document["releases"].push_back(ReleaseJson(release));
  }
  document["verifications"] = Json::array();
  for (const Verification& item : model.verifications) {
    document["verifications"].push_back({{"seq", item.seq},
                                         {"time", FormatUtc(item.time)},
                                         {"passed", item.passed},
                                         {"actor", item.actor},
                                         {"what", TextOrNull(item.what)},
                                         {"error", TextOrNull(item.error)}});
  }
  document["checked"] = model.checked;
  document["not_checked"] = model.not_checked;
  document["controls"] = Json::array();
  for (const Control& control : ControlMap()) {
    document["controls"].push_back({{"standard", control.standard},
                                    {"id", control.id},
                                    {"asks", control.asks},
                                    {"evidence", control.evidence}});
  }
  return document;
}

std::string ReportJson(const ReportModel& model) {
  return ReportDocument(model).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace keyescrow::agent::report
