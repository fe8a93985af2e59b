// The keys of an evidence pack held against the policy in it, as far as the pack tells of them.
#pragma once

#include <cstdint>
#include <string_view>

#include "agent/audit/log_faults.h"
#include "agent/policy/policy.h"
#include "agent/report/ustar.h"
#include "agent/usecases/pack_facts.h"

namespace keyescrow::agent {

struct PackPolicyCheck {
  std::size_t num_held = 0;
  std::size_t num_unknown = 0;  // shares of before their members were told
};

// HoldToPackPolicy evaluates require, forbid, portable, kdf and fips for the newest envelope of
// each key's version in use, with graces and exceptions as of `now`. Losses and thefts, drills,
// rotation, and what devices and recovery keys are, stay status.json's word. A critical finding
// that status.json (`status`) does not state goes to `findings`. Errors: kLogDamaged.
Result<PackPolicyCheck> HoldToPackPolicy(const report::TarReader& pack,
                                         const policy::Policy& policy, std::int64_t policy_set,
                                         std::int64_t now, const Summaries& summaries,
                                         const VersionLife& life, std::string_view status,
                                         audit::LogFindings& findings);

}  // namespace keyescrow::agent
