#include "agent/usecases/pack_facts.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "agent/audit/drill_proof.h"
#include "agent/report/ustar.h"
#include "agent/usecases/pack_fields.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

using Json = nlohmann::ordered_json;
using Fields = PackFields;

// As many as an envelope has (envelope/FORMAT.md).
constexpr std::size_t kMaxPaths = 16;
constexpr std::size_t kMaxFactors = 4;

}  // namespace

Result<std::vector<std::string_view>> SplitLines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return report::PackDamaged("the last line is cut off");
    lines.push_back(text.substr(0, end));
    text.remove_prefix(end + 1);
  }
  return lines;
}

std::vector<audit::EventFactor> ReadFactors(PackFields& object) {
  std::vector<audit::EventFactor> factors;
  for (const Json& json : object.List("factors")) {
    Fields fields(json);
    audit::EventFactor& factor = factors.emplace_back();
    factor.kind = fields.Text("kind");
    if (json.contains("id")) factor.id = fields.Text("id");
    if (json.contains("key_sha256")) factor.key_sha256 = fields.Hash("key_sha256");
    if (json.contains("kdf")) factor.kdf = fields.Text("kdf");
    object.Need(fields.good());
  }
  object.Need(!factors.empty() && factors.size() <= kMaxFactors);
  return factors;
}

Result<EnvelopeSummary> ParseSummary(std::string_view line) {
  const Json json = ParsePackJson(line);
  Fields fields(json);
  Fields key(fields.Of("key"));
  EnvelopeSummary summary;
  summary.key_name = key.Text("name");
  summary.key_version = key.NumberOf<std::uint32_t>("version");
  summary.revision = fields.NumberOf<std::uint32_t>("revision");
  summary.envelope_id = fields.Text("envelope_id");
  summary.sha256 = fields.Hash("envelope_sha256");
  summary.log_seq = fields.NumberOf<std::uint64_t>("log_seq");
  summary.previous = fields.Text("previous");
  summary.host = fields.Text("host");
  summary.agent = fields.Text("agent");
  summary.created = fields.Time("created");
  fields.Time("updated");
  for (const Json& item : fields.List("paths")) {
    Fields path(item);
    summary.drill_keys.emplace_back(path.Text("id"), path.Hash("drill_key"));
    audit::EventPath& described = summary.paths.emplace_back();
    described.id = summary.drill_keys.back().first;
    described.factors = ReadFactors(path);
    EnvelopeSummary::RecoveryKey& recovery_key = summary.recovery_keys.emplace_back();
    if (item.contains("recovery_key") || item.contains("recovery_thumbprint")) {
      recovery_key = {path.Text("recovery_key"), path.Text("recovery_thumbprint")};
    }
    fields.Need(path.good());
  }
  fields.Need(!summary.paths.empty() && summary.paths.size() <= kMaxPaths);
  if (!fields.good() || !key.good()) return MisshapenPart("a line of summaries");
  return summary;
}

bool SameFactors(const std::vector<audit::EventFactor>& told,
                 const std::vector<audit::EventFactor>& stated) {
  const auto same_factor = [](const audit::EventFactor& one, const audit::EventFactor& other) {
    return one.kind == other.kind && one.id == other.id &&
           (!one.key_sha256 || one.key_sha256 == other.key_sha256) &&
           (one.kdf.empty() || one.kdf == other.kdf);
  };
  return told.empty() ||
         std::equal(told.begin(), told.end(), stated.begin(), stated.end(), same_factor);
}

bool PathsOfEntry(const EnvelopeSummary& summary, const std::vector<audit::EventPath>& entry) {
  const auto same_path = [&](const audit::EventPath& told, const audit::EventPath& stated) {
    return told.id == stated.id && SameFactors(told.factors, stated.factors);
  };
  return entry.empty() || std::equal(entry.begin(), entry.end(), summary.paths.begin(),
                                     summary.paths.end(), same_path);
}

std::map<std::pair<std::string, std::uint32_t>, std::uint64_t> NewestOfVersions(
    const Summaries& summaries) {
  std::map<std::pair<std::string, std::uint32_t>, std::pair<std::uint32_t, std::uint64_t>> newest;
  for (const auto& [seq, summary] : summaries) {
    auto& of_version = newest[{summary.key_name, summary.key_version}];
    of_version = std::max(of_version, {summary.revision, seq});
  }
  std::map<std::pair<std::string, std::uint32_t>, std::uint64_t> places;
  for (const auto& [version, revision] : newest) places[version] = revision.second;
  return places;
}

std::string ProofMember(std::uint64_t log_seq) {
  return fmt::format("proofs/{:012}.receipt", log_seq);
}

Status PackDrills::Check(std::uint64_t seq, const audit::Event& event,
                         const EnvelopeSummary& summary, std::string& line) const {
  ASSIGN_OR_RETURN(const auto statement, audit::DrillStatementOf(event));
  const auto path = std::find_if(summary.drill_keys.begin(), summary.drill_keys.end(),
                                 [&](const auto& item) { return item.first == statement.path_id; });
  const bool same = event.outcome == audit::Outcome::kSuccess && event.key &&
                    event.key->name == summary.key_name &&
                    event.key->version == summary.key_version &&
                    event.envelope->revision == summary.revision &&
                    event.envelope->id == summary.envelope_id && path != summary.drill_keys.end();
  if (!same) return report::PackDamaged("it is not of a path of that envelope");
  if (statement.time > event.time) {
    return report::PackDamaged("it is of a later time than its entry");
  }
  const bool stateless = event.source == audit::kStatelessSource;
  if (stateless ? statement.checkpoint.size != 0 : statement.checkpoint.size > seq) {
    return report::PackDamaged("it is of a log that was longer than this one at the time");
  }
  if (statement.checkpoint.size == 0 && statement.checkpoint.root != Sha256(ByteView())) {
    return report::PackDamaged("it is of another log");
  }
  RETURN_IF_ERROR(audit::VerifyDrillProof(event, path->second));
  ASSIGN_OR_RETURN(const std::string text, envelope::FormatDrillStatement(statement));
  line = JsonLine({{"seq", seq},
                   {"drill_key", EncodeBase64Url(path->second)},
                   {"statement", text},
                   {"signature", EncodeBase64Url(event.drill->signature)}});
  return Ok();
}

PackDrills::Checked PackDrills::Add(std::uint64_t seq, const audit::Event& event) {
  const auto found = event.envelope ? envelopes_.find(event.envelope->sha256) : envelopes_.end();
  if (found == envelopes_.end()) return {Verdict::kUnknownEnvelope, ""};
  std::string line;
  const Status status = Check(seq, event, *found->second, line);
  if (!status) return {Verdict::kFails, status.error().message()};
  newest_[{event.envelope->sha256, event.paths.front().id}] = {seq, std::move(line)};
  return {Verdict::kHolds, ""};
}

std::string PackDrills::Lines() const {
  std::map<std::uint64_t, std::string_view> in_order;
  for (const auto& [path, proof] : newest_) in_order[proof.first] = proof.second;
  std::string text;
  for (const auto& [seq, line] : in_order) text += line;
  return text;
}

std::string AnchorLine(std::uint64_t seq, std::string_view entry, const audit::Event& event) {
  if (event.type != audit::EventType::kAnchorTpm || event.outcome != audit::Outcome::kSuccess ||
      !event.anchor || event.source == audit::kStatelessSource) {
    return "";
  }
  return JsonLine({{"seq", seq}, {"entry", entry}});
}

std::string FormatPolicyFacts(const PolicyFacts& facts) {
  const Json json = {{"schema", "keyescrow/pack-policy/1"},
                     {"name", facts.name},
                     {"serial", facts.serial},
                     {"sha256", EncodeBase64Url(facts.sha256)},
                     {"set", facts.serial == 0 ? Json() : Json(FormatUtc(facts.set_time))}};
  return JsonText(json);
}

Result<PolicyFacts> ParsePolicyFacts(std::string_view text) {
  const Json json = ParsePackJson(text);
  Fields fields(json);
  PolicyFacts facts;
  facts.name = fields.Text("name");
  facts.serial = fields.NumberOf<std::uint64_t>("serial");
  facts.sha256 = fields.Hash("sha256");
  if (facts.serial != 0) facts.set_time = fields.Time("set");
  if (!fields.good() || FormatPolicyFacts(facts) != text)
    return MisshapenPart("policy/policy.json");
  return facts;
}

Result<PackStatus> ComparePackStatus(std::string_view inventory_text, std::string_view status_text,
                                     std::string_view checkpoint, const Summaries& summaries,
                                     const VersionLife& life) {
  // Version, revision, hash and entry of each key's newest envelope.
  using Newest = std::tuple<std::uint32_t, std::uint32_t, Bytes32, std::uint64_t>;
  std::map<std::string, Newest> newest;
  for (const auto& [seq, item] : summaries) {
    if (!life.CountsInUse({item.key_name, item.key_version})) continue;
    auto& of_key = newest[item.key_name];
    of_key = std::max(of_key, Newest{item.key_version, item.revision, item.sha256, seq});
  }
  const Json inventory = ParsePackJson(inventory_text);
  const Json status = ParsePackJson(status_text);
  Fields inventory_fields(inventory);
  std::map<std::string, Newest> listed;
  OnePerName escrowed_names("inventory.json");
  for (const Json& item : inventory_fields.List("escrowed")) {
    Fields key(item);
    const std::string name = key.Text("name");
    RETURN_IF_ERROR(escrowed_names.Add(name));
    listed[name] = {key.NumberOf<std::uint32_t>("version"), key.NumberOf<std::uint32_t>("revision"),
                    key.Hash("envelope_sha256"), key.NumberOf<std::uint64_t>("log_seq")};
    inventory_fields.Need(key.good());
  }
  std::set<std::string> declared;
  OnePerName declared_names("inventory.json");
  for (const Json& item : inventory_fields.List("declared")) {
    Fields key(item);
    const std::string name = key.Text("name");
    RETURN_IF_ERROR(declared_names.Add(name));
    declared.insert(name);
    inventory_fields.Need(key.good());
  }
  if (!inventory_fields.good()) return MisshapenPart("inventory.json");
  if (listed != newest) {
    return report::PackDamaged("inventory.json's escrowed keys are not those of the summaries");
  }
  Fields status_fields(status);
  using Stated = std::tuple<std::uint32_t, std::uint32_t, Bytes32, std::vector<std::string>>;
  std::map<std::string, Stated> stated, expected;
  std::set<std::string> stated_declared;
  for (const Json& item : status_fields.List("keys")) {
    Fields key(item);
    const std::string name = key.Text("name");
    if (key.Of("declared") == true) stated_declared.insert(name);
    if (key.Of("escrowed") == true) {
      std::vector<std::string> paths;
      for (const Json& path : key.List("paths")) paths.push_back(Fields(path).Text("id"));
      stated[name] = {key.NumberOf<std::uint32_t>("version"),
                      key.NumberOf<std::uint32_t>("revision"), key.Hash("envelope_sha256"),
                      std::move(paths)};
    }
    status_fields.Need(key.good());
  }
  Fields stated_checkpoint(status_fields.Of("checkpoint"));
  const std::string note = stated_checkpoint.Text("note");
  PackStatus result;
  for (const Json& item : status_fields.List("findings")) {
    Fields finding(item);
    result.num_critical += finding.Text("severity") == "critical" ? 1U : 0U;
    status_fields.Need(finding.good());
  }
  if (!status_fields.good()) return MisshapenPart("status.json");
  if (status_fields.Of("complies") != (result.num_critical == 0)) {
    return report::PackDamaged("status.json's verdict is not that of its findings");
  }
  for (const auto& [name, fact] : newest) {
    std::vector<std::string> paths;
    for (const auto& [id, key] : summaries.at(std::get<3>(fact)).drill_keys) paths.push_back(id);
    expected[name] = {std::get<0>(fact), std::get<1>(fact), std::get<2>(fact), std::move(paths)};
  }
  if (stated != expected) {
    return report::PackDamaged("status.json's keys are not those of the summaries");
  }
  if (stated_declared != declared) {
    return report::PackDamaged("status.json's declared keys are not those of inventory.json");
  }
  if (note != checkpoint) return report::PackDamaged("status.json is of another checkpoint");
  for (const std::string& name : declared) {
    if (!newest.contains(name)) result.not_escrowed.push_back(name);
  }
  result.num_escrowed = newest.size();
  result.num_declared = declared.size();
  return result;
}

}  // namespace keyescrow::agent
