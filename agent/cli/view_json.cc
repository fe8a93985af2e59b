#include "agent/cli/view_json.h"

#include <nlohmann/json.hpp>

#include "agent/cli/recoverability_text.h"
#include "agent/usecases/path_cover.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent {

Json KeyJson(std::string_view name, std::uint32_t version) {
  Json key = Json::object();
  key["name"] = name;
  key["version"] = version;
  return key;
}

Json ErrorJson(const Error& error) {
  Json json = Json::object();
  json["code"] = ErrorCodeName(error.code());
  json["action"] = ActionName(error.action());
  json["failure"] = TextOrNull(FailureName(error.failure()));
  json["message"] = error.message();
  json["hint"] = error.hint();
  return json;
}

Json TimeJson(const std::optional<std::int64_t>& unix_seconds) {
  return unix_seconds ? Json(FormatUtc(*unix_seconds)) : Json(nullptr);
}

Json TextOrNull(std::string_view text) { return text.empty() ? Json(nullptr) : Json(text); }

Json PathViewJson(const PathView& path) {
  Json json = Json::object();
  json["id"] = path.id;
  json["factors"] = path.expression;
  json["portable"] = path.portable;
  json["records"] = Json::array();
  for (const audit::EventFactor& factor : path.factors) {
    Json record = Json::object();
    record["kind"] = factor.kind;
    if (!factor.id.empty()) record["id"] = factor.id;
    if (factor.key_sha256) record["key_sha256"] = EncodeBase64Url(*factor.key_sha256);
    if (!factor.kdf.empty()) record["kdf"] = factor.kdf;
    json["records"].push_back(std::move(record));
  }
  json["condition"] = path.condition ? Json(ConditionName(path)) : Json(nullptr);
  json["proven"] = TimeJson(path.proven);
  json["proven_by"] = TextOrNull(path.proven_by);
  json["proof_seq"] = path.proof_seq ? Json(*path.proof_seq) : Json(nullptr);
  json["failure"] = TextOrNull(path.failure);
  json["opens_here"] = path.openable ? Json(*path.openable) : Json(nullptr);
  json["why_not"] = TextOrNull(path.why_not);
  return json;
}

Json KeyViewJson(const KeyView& key) {
  Json json = Json::object();
  json["key"] = KeyJson(key.name, key.version);
  json["revision"] = key.revision;
  json["versions"] = key.num_versions == 0 ? Json(nullptr) : Json(key.num_versions);
  json["host"] = key.host;
  json["policy"] = key.policy;
  json["created"] = key.created;
  json["updated"] = key.updated;
  json["agent"] = key.agent;
  json["agent_trusted"] = key.agent_trusted;
  json["envelope_id"] = key.envelope_id;
  json["envelope_sha256"] = EncodeBase64Url(key.envelope_hash);
  json["envelope_bytes"] = key.size_bytes;
  json["note"] = TextOrNull(key.note);
  json["source"] = TextOrNull(key.source);
  json["in_use"] = key.in_use ? Json(KeyInUseName(*key.in_use)) : Json(nullptr);
  json["paths"] = Json::array();
  for (const PathView& path : key.paths) json["paths"].push_back(PathViewJson(path));
  json["recoverability"] = RecoverabilityJson(key);
  return json;
}

Json ListJson(const std::vector<std::string>& texts) {
  Json list = Json::array();
  for (const std::string& text : texts) list.push_back(text);
  return list;
}

std::string Count(std::size_t number, std::string_view thing) {
  return std::to_string(number) + " " + std::string(thing) + (number == 1 ? "" : "s");
}

}  // namespace keyescrow::agent
