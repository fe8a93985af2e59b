#include "agent/report/report_read.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "agent/report/report_json.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent::report {
namespace {

using Json = nlohmann::ordered_json;

// Reader reads members; `good` tells at the end whether each was of its type.
class Reader {
 public:
  const Json& Of(const Json& object, const char* name) {
    static const Json kNothing;
    const auto found = object.find(name);
    good_ = good_ && found != object.end();
    return found == object.end() ? kNothing : *found;
  }
  const Json& List(const Json& object, const char* name) {
    const Json& value = Of(object, name);
    good_ = good_ && value.is_array();
    return value;
  }
  std::string Text(const Json& value) {
    good_ = good_ && value.is_string();
    return value.is_string() ? value.get<std::string>() : std::string();
  }
  std::string Text(const Json& object, const char* name) { return Text(Of(object, name)); }
  std::string TextOrNull(const Json& object, const char* name) {
    const Json& value = Of(object, name);
    return value.is_null() ? std::string() : Text(value);
  }
  bool Flag(const Json& object, const char* name) {
    const Json& value = Of(object, name);
    good_ = good_ && value.is_boolean();
    return value.is_boolean() && value.get<bool>();
  }
  template <typename Number>
  Number NumberOf(const Json& value) {
    const std::uint64_t number = value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
    good_ = good_ && value.is_number_unsigned() &&
            number <= static_cast<std::uint64_t>(std::numeric_limits<Number>::max());
    return static_cast<Number>(number);
  }
  template <typename Number>
  Number NumberOf(const Json& object, const char* name) {
    return NumberOf<Number>(Of(object, name));
  }
  std::int64_t Time(const Json& object, const char* name) {
    const auto time = ParseUtc(Text(object, name));
    good_ = good_ && time.has_value();
    return time.value_or(0);
  }
  std::optional<std::int64_t> TimeOrNull(const Json& object, const char* name) {
    if (Of(object, name).is_null()) return std::nullopt;
    return Time(object, name);
  }
  std::vector<std::string> Texts(const Json& object, const char* name) {
    std::vector<std::string> texts;
    for (const Json& item : List(object, name)) texts.push_back(Text(item));
    return texts;
  }
  bool good() const { return good_; }

 private:
  bool good_ = true;
};

ReportPath ReadPath(const Json& json, Reader& reader) {
  ReportPath path;
  path.id = reader.Text(json, "id");
  path.expression = reader.Text(json, "factors");
  path.portable = reader.Flag(json, "portable");
  path.condition = reader.Text(json, "condition");
  path.proven = reader.TimeOrNull(json, "proven");
  path.covered_since = reader.TimeOrNull(json, "covered_since");
  path.failure = reader.TextOrNull(json, "failure");
  return path;
}

ReportKey ReadKey(const Json& json, Reader& reader) {
  ReportKey key;
  key.name = reader.Text(json, "name");
  key.declared = reader.Flag(json, "declared");
  key.source = reader.TextOrNull(json, "source");
  key.escrowed = reader.Flag(json, "escrowed");
  if (!key.escrowed) return key;
  key.version = reader.NumberOf<std::uint32_t>(json, "version");
  key.revision = reader.NumberOf<std::uint32_t>(json, "revision");
  key.num_versions = reader.NumberOf<std::uint32_t>(json, "versions");
  key.host = reader.Text(json, "host");
  key.policy = reader.Text(json, "policy");
  key.created = reader.Text(json, "created");
  key.updated = reader.Text(json, "updated");
  key.agent = reader.Text(json, "agent");
  key.agent_trusted = reader.Flag(json, "agent_trusted");
  key.envelope_id = reader.Text(json, "envelope_id");
  key.envelope_sha256 = reader.Text(json, "envelope_sha256");
  key.note = reader.TextOrNull(json, "note");
  if (json.contains("survival")) key.survival = reader.Text(json, "survival");
  for (const Json& path : reader.List(json, "paths")) key.paths.push_back(ReadPath(path, reader));
  return key;
}

ForeignItem ReadForeign(const Json& json, Reader& reader) {
  ForeignItem item;
  item.place = reader.Text(json, "place");
  item.item = reader.Text(json, "item");
  item.kind = reader.Text(json, "kind");
  item.volume = reader.TextOrNull(json, "volume");
  item.expression = reader.Text(json, "opens_by");
  item.survival = reader.Text(json, "survival");
  item.caveats = reader.Texts(json, "caveats");
  item.sha256 = reader.Text(json, "sha256");
  item.found = reader.Time(json, "found");
  return item;
}

Release ReadRelease(const Json& json, Reader& reader) {
  Release release;
  release.seq = reader.NumberOf<std::uint64_t>(json, "seq");
  if (!reader.Of(json, "outcome_seq").is_null()) {
    release.outcome_seq = reader.NumberOf<std::uint64_t>(json, "outcome_seq");
  }
  release.time = reader.Time(json, "time");
  release.key = reader.Text(json, "key");
  release.version = reader.NumberOf<std::uint32_t>(json, "version");
  release.path = reader.TextOrNull(json, "path");
  release.actor = reader.Text(json, "actor");
  release.host = reader.Text(json, "host");
  release.reason = reader.TextOrNull(json, "reason");
  release.ticket = reader.TextOrNull(json, "ticket");
  release.outcome = reader.Text(json, "outcome");
  release.error = reader.TextOrNull(json, "error");
  release.imported = reader.Flag(json, "imported");
  return release;
}

Verification ReadVerification(const Json& json, Reader& reader) {
  Verification item;
  item.seq = reader.NumberOf<std::uint64_t>(json, "seq");
  item.time = reader.Time(json, "time");
  item.passed = reader.Flag(json, "passed");
  item.actor = reader.Text(json, "actor");
  item.what = reader.TextOrNull(json, "what");
  item.error = reader.TextOrNull(json, "error");
  return item;
}

void ReadHead(const Json& json, Reader& reader, ReportModel& model) {
  model.host = reader.Text(json, "host");
  model.agent = reader.Text(json, "agent");
  model.policy = reader.Text(json, "policy");
  model.version = reader.Text(json, "keyescrow");
  model.now = reader.Time(json, "evaluated");
  const Json& period = reader.Of(json, "drill_every_s");
  if (!period.is_null()) {
    model.drill_every_shortest_s = reader.NumberOf<std::int64_t>(period, "shortest");
    model.drill_every_longest_s = reader.NumberOf<std::int64_t>(period, "longest");
  }
  const Json& checkpoint = reader.Of(json, "checkpoint");
  model.checkpoint.origin = reader.Text(checkpoint, "origin");
  model.checkpoint.size = reader.NumberOf<std::uint64_t>(checkpoint, "size");
  model.checkpoint.root = reader.Text(checkpoint, "root");
  model.checkpoint.note = reader.Text(checkpoint, "note");
  const Json& figures = reader.Of(json, "figures");
  model.num_drills_passed = reader.NumberOf<std::uint64_t>(figures, "drills_passed");
  model.num_drills_failed = reader.NumberOf<std::uint64_t>(figures, "drills_failed");
}

}  // namespace

std::optional<std::uint64_t> FormOf(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  Reader reader;
  const auto form = reader.NumberOf<std::uint64_t>(json, "form");
  return reader.good() ? std::optional(form) : std::nullopt;
}

std::optional<ReportModel> ReadReportJson(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  Reader reader;
  ReportModel model;
  if (reader.NumberOf<std::uint64_t>(json, "form") != kReportForm) return std::nullopt;
  ReadHead(json, reader, model);
  for (const Json& key : reader.List(json, "keys")) model.keys.push_back(ReadKey(key, reader));
  for (const Json& item : reader.List(json, "foreign")) {
    model.foreign.push_back(ReadForeign(item, reader));
  }
  for (const Json& item : reader.List(json, "findings")) {
    model.findings.push_back({reader.Text(item, "rule"), reader.TextOrNull(item, "key"),
                              reader.Text(item, "severity") == "critical",
                              reader.Text(item, "what"), reader.Text(item, "remedy")});
  }
  for (const Json& item : reader.List(json, "releases")) {
    model.releases.push_back(ReadRelease(item, reader));
  }
  for (const Json& item : reader.List(json, "verifications")) {
    model.verifications.push_back(ReadVerification(item, reader));
  }
  model.checked = reader.Texts(json, "checked");
  model.not_checked = reader.Texts(json, "not_checked");
  return reader.good() ? std::optional(std::move(model)) : std::nullopt;
}

}  // namespace keyescrow::agent::report
