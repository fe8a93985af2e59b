#include "agent/usecases/policy_timeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>
#include <utility>

#include "agent/policy/evaluate.h"
#include "agent/policy/signature.h"
#include "agent/policy/worse_than.h"
#include "agent/usecases/event_order.h"
#include "agent/usecases/registration_check.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

using audit::LogFault;

// These rest on what a device was then.
bool AsksDevices(const Finding& finding) {
  return finding.rule == "token_assurance" || finding.rule == "simulator";
}

bool AreSigners(const std::string& column, const policy::Signers& signers) {
  const auto read = policy::ParseSigners(column);
  return read && policy::FormatSigners(*read) == policy::FormatSigners(signers);
}

bool HasItsFiles(const store::PolicyRecord& row, const policy::Policy& policy) {
  std::map<std::string, Bytes32> named;
  for (const policy::PasswordRule& rule : policy.passwords) {
    if (!rule.blocklist.empty()) named[rule.blocklist] = rule.blocklist_sha256;
  }
  std::map<std::string, Bytes32> kept;
  for (const store::PolicyFile& file : row.files) kept[file.name] = Sha256(file.bytes);
  return named == kept;
}

// OtherColumn says what the row states beside the signed text that is not so, or "". `signers` are
// those that the policies before it name.
std::string OtherColumn(const PolicySet& set, const store::PolicyRecord& row,
                        const policy::Policy& policy, const policy::Signers& signers) {
  if (!AreSigners(row.signers, signers)) return "its row says other signers for it";
  // The first ones were pinned by hand: the log alone tells who they were.
  if (!set.signers.empty() && set.signers != PolicySigners(policy::FormatSigners(signers))) {
    return "its signers are others than those of the entry";
  }
  if (!AreSigners(row.next_signers, policy.signers.value_or(signers))) {
    return "its row says other signers for the next one";
  }
  if (std::llabs(row.set_time - set.time) > kProofToleranceSeconds) {
    return "its row says that it was set at " + FormatUtc(row.set_time);
  }
  return HasItsFiles(row, policy) ? "" : "its blocklists are not those that it names";
}

}  // namespace

PolicyTimeline::PolicyTimeline(const std::vector<PolicySet>& policies,
                               const std::vector<store::PolicyRecord>& rows,
                               audit::LogFindings& findings) {
  periods_.push_back({0, 0, policy::BuiltinPolicy()});
  std::map<std::uint64_t, const store::PolicyRecord*> by_serial;
  for (const store::PolicyRecord& row : rows) by_serial.emplace(row.serial, &row);
  std::set<std::uint64_t> logged;
  std::optional<policy::Signers> signers;  // the first ones were pinned by hand
  for (const PolicySet& set : policies) {
    logged.insert(set.serial);
    const auto found = by_serial.find(set.serial);
    if (found == by_serial.end()) {
      findings.Add(LogFault::kPolicyUnlogged, set.seq,
                   fmt::format("entry {} sets the policy with the serial {}, and it is not in the "
                               "store",
                               set.seq, set.serial));
      periods_.push_back({set.seq, set.time, std::nullopt});
      continue;
    }
    const store::PolicyRecord& row = *found->second;
    if (!signers) signers = policy::ParseSigners(row.signers);
    periods_.push_back(
        {set.seq, set.time, Read(set, row, signers.value_or(policy::Signers{}), findings)});
    const auto& read = periods_.back().policy;
    if (read && read->signers) signers = read->signers;
    // One that is too new for us was checked by its hash; its row says whom it names.
    if (!read) signers = policy::ParseSigners(row.next_signers);
  }
  for (const Period& period : periods_) {
    if (!period.policy) continue;
    asks_age_ |= std::any_of(period.policy->rules.begin(), period.policy->rules.end(),
                             [](const policy::Rule& rule) { return rule.grace_s > 0; });
  }
  for (const store::PolicyRecord& row : rows) {
    if (logged.contains(row.serial)) continue;
    findings.Add(LogFault::kPolicyUnlogged, 0,
                 fmt::format("no entry of the log sets the policy {} with the serial {}", row.name,
                             row.serial));
  }
}

std::optional<policy::Policy> PolicyTimeline::Read(const PolicySet& set,
                                                   const store::PolicyRecord& row,
                                                   const policy::Signers& signers,
                                                   audit::LogFindings& findings) {
  const auto wrong = [&](std::string_view why) {
    findings.Add(LogFault::kPolicyUnlogged, set.seq,
                 fmt::format("the policy {} with the serial {} is not the one that entry {} sets: "
                             "{}",
                             row.name, row.serial, set.seq, why));
    return std::nullopt;
  };
  if (row.sha256 != set.sha256 || Sha256(AsBytes(row.text)) != set.sha256) {
    return wrong("its text is another");
  }
  auto parsed = policy::ParsePolicy(row.text, "policy " + row.name);
  if (!parsed && parsed.error().code() == ErrorCode::kPolicyNewerAgent) {
    ++num_unread_;
    return std::nullopt;
  }
  if (!parsed) return wrong(parsed.error().message());
  if (parsed->serial != row.serial || parsed->name != row.name) {
    return wrong("its row says another name or serial");
  }
  if (const Status verified = policy::VerifySignature(*parsed, row.note, signers); !verified) {
    return wrong(verified.error().message());
  }
  if (const std::string other = OtherColumn(set, row, *parsed, signers); !other.empty()) {
    wrong(other);
  }
  ++num_checked_;
  return std::move(*parsed);
}

std::string PolicyTimeline::ViolationOf(const Period& period, const envelope::Header& header,
                                        std::int64_t first_created,
                                        const envelope::Header* before) {
  if (!period.policy) return "";
  policy::KeyFacts key = policy::FactsOf(header);
  key.first_created = first_created;
  policy::Facts facts;
  facts.host = header.host;
  facts.now = ParseUtc(header.updated).value_or(key.created);
  facts.policy_set = period.time;
  std::vector<Finding> violations;
  if (before != nullptr) {
    policy::KeyFacts old = policy::FactsOf(*before);
    old.first_created = first_created;
    violations = policy::WorseThan(*period.policy, old, key, facts);
  } else {
    violations =
        policy::EvaluateKey(*period.policy, key, facts, {.shape_only = true, .as_enforced = false})
            .findings;
  }
  for (const Finding& finding : violations) {
    if (finding.severity == Severity::kCritical && !AsksDevices(finding)) {
      return fmt::format("{} (policy {} serial {})", finding.what, period.policy->name,
                         period.policy->serial);
    }
  }
  return "";
}

std::string PolicyTimeline::Violation(const envelope::Header& header, std::uint64_t seq,
                                      std::int64_t first_created,
                                      const envelope::Header* before) const {
  const auto after = std::partition_point(periods_.begin() + 1, periods_.end(),
                                          [seq](const Period& period) { return period.seq < seq; });
  auto period = after - 1;
  std::string violation = ViolationOf(*period, header, first_created, before);
  const auto updated = ParseUtc(header.updated);
  // Whoever began before one was set may have read those before it.
  for (; !violation.empty() && period != periods_.begin(); --period) {
    if (!updated || *updated > period->time + kProofToleranceSeconds) break;
    if (ViolationOf(*(period - 1), header, first_created, before).empty()) return "";
  }
  return violation;
}

}  // namespace keyescrow::agent
