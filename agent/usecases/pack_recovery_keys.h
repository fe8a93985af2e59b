// The recovery keys of an evidence pack: `keys/recovery-keys.json`, and what the log must tell of
// each. Their records are not in a pack: on one whose factors are a password and no more, anybody
// could guess.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/audit/event_facts.h"
#include "agent/audit/log_faults.h"
#include "agent/usecases/pack_facts.h"
#include "agent/usecases/registration_check.h"

namespace keyescrow::agent {

// RecoveryKeysJson writes the document. `newest`: of each key, the newest envelope in use.
// Errors: kStoreDamaged where a row's record is not the one that it names.
Result<std::string> RecoveryKeysJson(const std::vector<store::RecoveryKeyRecord>& rows,
                                     const std::vector<const EnvelopeSummary*>& newest);

// RecoveryKeyList: the recovery keys that a pack states, held against the log and the summaries.
class RecoveryKeyList {
 public:
  // Errors: kLogDamaged where it is not of the form.
  static Result<RecoveryKeyList> Parse(std::string_view text);

  // Notice takes what the next entry tells of recovery keys.
  void Notice(std::string_view line, const audit::EventFacts& facts);
  // Finish finds what the log (EventOrder::recovery_keys()) or the newest envelope of each key
  // tells otherwise.
  void Finish(const TokenChanges& logged, const std::vector<const EnvelopeSummary*>& newest,
              audit::LogFindings& findings) const;

  // OpenedAt: when it states that the recovery key of that name and thumbprint was last opened.
  std::optional<std::int64_t> OpenedAt(std::string_view name, std::string_view thumbprint) const;

  std::size_t size() const { return rows_.size(); }

 private:
  // Stated: what the document has beside the row.
  struct Stated {
    std::vector<audit::EventFactor> factors;
    std::vector<std::string> covers;
  };
  using Opened = std::pair<Bytes32, std::int64_t>;  // the record's hash, when

  std::vector<store::RecoveryKeyRecord> rows_;
  std::vector<Stated> stated_;                                       // of each row
  std::map<std::string, std::vector<audit::EventFactor>> enrolled_;  // by name; the last ones
  std::map<std::string, std::set<Opened>> opened_;
};

}  // namespace keyescrow::agent
