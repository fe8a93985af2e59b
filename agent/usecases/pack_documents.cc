#include "agent/usecases/pack_documents.h"

#include <utility>
#include <variant>

#include "agent/usecases/agent.h"
#include "agent/usecases/pack_fields.h"
#include "agent/usecases/token_sessions.h"
#include "envelope/base/hash.h"
#include "envelope/base/p256.h"

namespace keyescrow::agent {
namespace {

using Json = nlohmann::ordered_json;

std::vector<std::string> Patterns(PackFields& fields, const char* name) {
  std::vector<std::string> patterns;
  for (const Json& item : fields.List(name)) {
    fields.Need(item.is_string());
    if (item.is_string()) patterns.push_back(item.get<std::string>());
  }
  return patterns;
}

// MembersJson lists the officers of a path that k of n of them open.
Json MembersJson(const envelope::SharesRecord& shares) {
  Json members = Json::array();
  for (const envelope::ShareMember& member : shares.members) {
    const envelope::FactorRecord factor =
        std::visit([](const auto& row) { return envelope::FactorRecord(row); }, member.factor);
    const TokenIdentity identity = *IdentityOf(factor);
    Json row = {{"name", member.name},
                {"kind", envelope::FactorType(factor)},
                {"key_sha256", EncodeBase64Url(Sha256(*identity.spki))}};
    if (*identity.token != member.name) row["token"] = *identity.token;
    members.push_back(std::move(row));
  }
  return members;
}

Json PathJson(const envelope::PathRecord& path) {
  Json json = {{"id", path.id},
               {"factors", FactorsJson(path)},
               {"drill_key", EncodeBase64Url(path.drill_key)}};
  if (path.recovery_key) {
    json["recovery_key"] = path.recovery_key->name;
    json["recovery_thumbprint"] = JwkThumbprint(*path.recovery_key->public_key);
  }
  return json;
}

}  // namespace

Json FactorsJson(const envelope::PathRecord& path) {
  const auto described = DescribePaths({&path});
  Json factors = Json::array();
  for (std::size_t i = 0; i < path.factors.size(); ++i) {
    const audit::EventFactor& factor = described.front().factors[i];
    Json item = {{"kind", factor.kind}};
    if (!factor.id.empty()) item["id"] = factor.id;
    if (factor.key_sha256) item["key_sha256"] = EncodeBase64Url(*factor.key_sha256);
    if (!factor.kdf.empty()) item["kdf"] = factor.kdf;
    if (const auto* const shares = std::get_if<envelope::SharesRecord>(&path.factors[i])) {
      item["members"] = MembersJson(*shares);
    }
    factors.push_back(std::move(item));
  }
  return factors;
}

std::string SummaryLine(const store::EnvelopeRecord& record,
                        const envelope::SealedEnvelope& sealed) {
  const envelope::Header& header = sealed.header();
  Json summary = {{"key", {{"name", header.key_name}, {"version", header.key_version}}},
                  {"revision", header.revision},
                  {"envelope_id", header.envelope_id},
                  {"envelope_sha256", EncodeBase64Url(sealed.hash())},
                  {"log_seq", record.log_seq},
                  {"size_bytes", record.bytes.size()},
                  {"host", header.host},
                  {"policy", header.policy},
                  {"created", header.created},
                  {"updated", header.updated},
                  {"previous", header.previous},
                  {"agent", header.agent},
                  {"note", header.note ? Json(*header.note) : Json()},
                  {"paths", Json::array()}};
  for (const envelope::PathRecord& path : header.paths) {
    summary["paths"].push_back(PathJson(path));
  }
  return JsonLine(summary);
}

std::string TrustedAgentsJson(const std::vector<store::TrustRecord>& agents) {
  Json list = Json::array();
  for (const store::TrustRecord& record : agents) {
    list.push_back({{"thumbprint", record.thumbprint},
                    {"host", record.name},
                    {"hosts", record.hosts},
                    {"keys", record.keys},
                    {"added", FormatUtc(record.added)},
                    {"removed", record.removed ? Json(FormatUtc(*record.removed)) : Json()}});
  }
  return JsonText(list);
}

Result<std::vector<store::TrustRecord>> ParseTrustedAgents(std::string_view text) {
  const Json json = ParsePackJson(text);
  bool good = json.is_array();
  OnePerName names("keys/trusted-agents.json");
  std::vector<store::TrustRecord> rows;
  for (std::size_t i = 0; good && i < json.size(); ++i) {
    PackFields fields(json[i]);
    store::TrustRecord& row = rows.emplace_back();
    row.thumbprint = fields.Text("thumbprint");
    RETURN_IF_ERROR(names.Add(row.thumbprint));
    row.name = fields.Text("host");
    row.hosts = Patterns(fields, "hosts");
    row.keys = Patterns(fields, "keys");
    row.added = fields.Time("added");
    if (!fields.Of("removed").is_null()) row.removed = fields.Time("removed");
    good = fields.good();
  }
  if (!good) return MisshapenPart("keys/trusted-agents.json");
  return rows;
}

std::string TokensJson(const std::vector<store::TokenRecord>& tokens) {
  Json list = Json::array();
  for (const store::TokenRecord& record : tokens) {
    list.push_back(
        {{"name", record.name}, {"spki", EncodeBase64Url(record.spki)}, {"uri", record.uri}});
  }
  return JsonText(list);
}

Result<std::vector<store::TokenRecord>> ParseTokens(std::string_view text) {
  const Json json = ParsePackJson(text);
  bool good = json.is_array();
  OnePerName names("keys/tokens.json");
  std::vector<store::TokenRecord> rows;
  for (std::size_t i = 0; good && i < json.size(); ++i) {
    PackFields fields(json[i]);
    store::TokenRecord& row = rows.emplace_back();
    row.name = fields.Text("name");
    RETURN_IF_ERROR(names.Add(row.name));
    row.uri = fields.Text("uri");
    const auto spki = DecodeBase64Url(fields.Text("spki"));
    fields.Need(spki.has_value());
    if (spki) row.spki = *spki;
    good = fields.good();
  }
  if (!good) return MisshapenPart("keys/tokens.json");
  return rows;
}

}  // namespace keyescrow::agent
