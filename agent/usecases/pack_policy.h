// The keys of an evidence pack held against the policy in it, as far as the pack tells of them.
#pragma once

#include <cstdint>
#include <map>
#include <string_view>

#include "agent/audit/log_faults.h"
#include "agent/policy/policy.h"
#include "agent/report/ustar.h"
#include "agent/usecases/pack_facts.h"

namespace keyescrow::agent {

// NewestInUse returns the entry of the newest envelope of each key's version in use, with when the
// key's first was made.
std::map<std::uint64_t, std::int64_t> NewestInUse(const Summaries& summaries,
                                                  const VersionLife& life);

struct PackPolicyCheck {
  std::size_t num_held = 0;
  std::size_t num_with_shares = 0;  // of these; entries do not tell who the officers are
  std::size_t num_unknown = 0;      // shares of before their members were told
};

// HoldToPackPolicy evaluates require, forbid, portable, survive, withstand, kdf, fips and what
// tokens and recovery keys the policy pins for the newest envelope of each key's version in use,
// with graces and exceptions as of `now`. Drills, rotation and what devices are stay status.json's
// word. A critical finding that status.json (`status`) does not state goes to `findings`. Errors:
// kLogDamaged.
Result<PackPolicyCheck> HoldToPackPolicy(const report::TarReader& pack,
                                         const policy::Policy& policy, std::int64_t policy_set,
                                         std::int64_t now, const Summaries& summaries,
                                         const VersionLife& life, std::string_view status,
                                         audit::LogFindings& findings);

}  // namespace keyescrow::agent
