#include "agent/usecases/pack_recovery_keys.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>

#include "agent/usecases/pack_documents.h"
#include "agent/usecases/pack_fields.h"
#include "agent/usecases/registered_recovery_key.h"

namespace keyescrow::agent {
namespace {

using Json = nlohmann::ordered_json;
using audit::LogFault;

Json TimeOrNull(const std::optional<std::int64_t>& time) {
  return time ? Json(FormatUtc(*time)) : Json();
}

// CoveredBy returns the keys whose newest envelope has a path to that recovery key, by name.
std::vector<std::string> CoveredBy(const std::string& name, const std::string& thumbprint,
                                   const std::vector<const EnvelopeSummary*>& newest) {
  std::vector<std::string> keys;
  for (const EnvelopeSummary* summary : newest) {
    const bool covers =
        std::ranges::any_of(summary->recovery_keys, [&](const EnvelopeSummary::RecoveryKey& key) {
          return key.name == name && key.thumbprint == thumbprint;
        });
    if (covers) keys.push_back(summary->key_name);
  }
  std::sort(keys.begin(), keys.end());
  return keys;
}

}  // namespace

Result<std::string> RecoveryKeysJson(const std::vector<store::RecoveryKeyRecord>& rows,
                                     const std::vector<const EnvelopeSummary*>& newest) {
  Json list = Json::array();
  for (const store::RecoveryKeyRecord& row : rows) {
    ASSIGN_OR_RETURN(const envelope::RecoveryKey key, ReadRegistered(row));
    list.push_back({{"name", row.name},
                    {"thumbprint", row.thumbprint},
                    {"record_sha256", EncodeBase64Url(row.sha256)},
                    {"added", FormatUtc(row.added)},
                    {"retired", TimeOrNull(row.retired)},
                    {"opened", TimeOrNull(row.drilled)},
                    {"factors", FactorsJson(RecoveryKeyPath(key))},
                    {"drill_key", EncodeBase64Url(key.drill_key)},
                    {"covers", CoveredBy(row.name, row.thumbprint, newest)}});
  }
  return JsonText(list);
}

Result<RecoveryKeyList> RecoveryKeyList::Parse(std::string_view text) {
  const Json json = ParsePackJson(text);
  bool good = json.is_array();
  OnePerName names("keys/recovery-keys.json");
  RecoveryKeyList list;
  for (std::size_t i = 0; good && i < json.size(); ++i) {
    PackFields fields(json[i]);
    store::RecoveryKeyRecord& row = list.rows_.emplace_back();
    row.name = fields.Text("name");
    RETURN_IF_ERROR(names.Add(row.name));
    row.thumbprint = fields.Text("thumbprint");
    row.sha256 = fields.Hash("record_sha256");
    row.added = fields.Time("added");
    if (!fields.Of("retired").is_null()) row.retired = fields.Time("retired");
    if (!fields.Of("opened").is_null()) row.drilled = fields.Time("opened");
    Stated& stated = list.stated_.emplace_back();
    stated.factors = ReadFactors(fields);
    fields.Hash("drill_key");
    for (const Json& name : fields.List("covers")) {
      fields.Need(name.is_string());
      if (name.is_string()) stated.covers.push_back(name.get<std::string>());
    }
    good = fields.good();
  }
  if (!good) return MisshapenPart("keys/recovery-keys.json");
  return list;
}

std::optional<std::int64_t> RecoveryKeyList::OpenedAt(std::string_view name,
                                                      std::string_view thumbprint) const {
  const auto row = std::ranges::find_if(rows_, [&](const store::RecoveryKeyRecord& known) {
    return known.name == name && known.thumbprint == thumbprint;
  });
  return row == rows_.end() ? std::nullopt : row->drilled;
}

void RecoveryKeyList::Notice(std::string_view line, const audit::EventFacts& facts) {
  if (facts.has_key || facts.factor_kind != kRecoveryKeyKind) return;
  const std::string name(facts.factor_id);
  if (facts.type == audit::EventType::kDrillPassed && facts.factor_key_sha256) {
    opened_[name].emplace(*facts.factor_key_sha256, facts.time);
  }
  if (facts.type != audit::EventType::kFactorEnrolled) return;
  const auto event = audit::ParseEvent(line);
  if (!event || event->paths.empty() || event->paths.front().factors.empty()) return;
  const std::vector<audit::EventFactor>& factors = event->paths.front().factors;
  enrolled_[name].assign(factors.begin() + 1, factors.end());
}

void RecoveryKeyList::Finish(const TokenChanges& logged,
                             const std::vector<const EnvelopeSummary*>& newest,
                             audit::LogFindings& findings) const {
  CompareRecoveryKeyList(rows_, logged, findings);
  const auto bad = [&](LogFault fault, std::string text) {
    findings.Add(fault, 0, "keys/recovery-keys.json: " + std::move(text));
  };
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const store::RecoveryKeyRecord& row = rows_[i];
    const auto enrolled = enrolled_.find(row.name);
    if (enrolled != enrolled_.end() && !SameFactors(enrolled->second, stated_[i].factors)) {
      bad(LogFault::kTokenUnlogged, fmt::format("{} was registered with other factors", row.name));
    }
    if (stated_[i].covers != CoveredBy(row.name, row.thumbprint, newest)) {
      bad(LogFault::kPackContents,
          fmt::format("the keys that go to {} are not those of the summaries", row.name));
    }
    if (!row.drilled) continue;
    const auto opened = opened_.find(row.name);
    const bool told =
        opened != opened_.end() && std::ranges::any_of(opened->second, [&](const Opened& entry) {
          return entry.first == row.sha256 &&
                 std::llabs(entry.second - *row.drilled) <= kProofToleranceSeconds;
        });
    if (told) continue;
    bad(LogFault::kProofUnlogged,
        fmt::format("no entry tells that {} was opened at {}", row.name, FormatUtc(*row.drilled)));
  }
}

}  // namespace keyescrow::agent
