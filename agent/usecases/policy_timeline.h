// PolicyTimeline: a store's policies as the log tells that they were set, and envelopes held
// against the one that was in force when they were escrowed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "agent/audit/log_faults.h"
#include "agent/policy/policy.h"
#include "agent/store/escrow_store.h"
#include "agent/usecases/event_order.h"
#include "envelope/header.h"

namespace keyescrow::agent {

class PolicyTimeline {
 public:
  // The store's rows are held against the log's `policies`: their texts by hash, their notes and
  // signers by what the policy before them names, their times by their entries, their files by what
  // they name. What does not agree goes to `findings`.
  PolicyTimeline(const std::vector<PolicySet>& policies,
                 const std::vector<store::PolicyRecord>& rows, audit::LogFindings& findings);

  // Violation returns what the envelope's paths lack under the policy in force at entry `seq`, or
  // "". A backup reads the policy and commits afterwards: where another process set one between,
  // the policy before it counts too, up to 60 s. What tokens and TPMs were then is not known any
  // more, and not asked. `first_created`: of the key's first version. With `before`, the revision
  // before it, only what that one did not lack. Thread-safe.
  std::string Violation(const envelope::Header& header, std::uint64_t seq,
                        std::int64_t first_created, const envelope::Header* before = nullptr) const;

  // asks_age: some rule has a grace, so that `first_created` matters.
  bool asks_age() const { return asks_age_; }
  // num_policies counts those that were checked, the built-in one not among them.
  std::uint64_t num_policies() const { return num_checked_; }
  // num_unread: they ask for a newer keyescrow; what was escrowed under them is not checked.
  std::uint64_t num_unread() const { return num_unread_; }

 private:
  struct Period {
    std::uint64_t seq = 0;                 // from the entry after this one on
    std::int64_t time = 0;                 // when it was set
    std::optional<policy::Policy> policy;  // none: its text is missing, changed or too new
  };
  std::optional<policy::Policy> Read(const PolicySet& set, const store::PolicyRecord& row,
                                     const policy::Signers& signers, audit::LogFindings& findings);
  static std::string ViolationOf(const Period& period, const envelope::Header& header,
                                 std::int64_t first_created, const envelope::Header* before);

  std::vector<Period> periods_;  // the first is the built-in policy's
  bool asks_age_ = false;
  std::uint64_t num_checked_ = 0;
  std::uint64_t num_unread_ = 0;
};

}  // namespace keyescrow::agent
