// list, show, status: everything that can be said without a secret.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/policy/facts.h"
#include "agent/policy/finding.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/drift.h"
#include "agent/usecases/envelope_source.h"
#include "agent/usecases/open_path.h"
#include "envelope/recoverability.h"

namespace keyescrow::agent {

// PathStatus: proven (reopened from the written bytes lately), stale (too long ago, or an older
// revision), unproven, broken (the last try failed after the last proof).
enum class PathCondition : std::uint8_t { kProven, kStale, kUnproven, kBroken };
std::string_view PathConditionName(PathCondition condition);

// PathExpressionText returns e.g. "token:ops & password".
std::string PathExpressionText(const envelope::PathRecord& path);

struct PathView {
  std::string id;
  std::string expression;  // "password & token:ops"
  bool portable = false;
  std::vector<audit::EventFactor> factors;
  // Of the store, where it is known there:
  std::optional<PathCondition> condition;
  std::optional<std::int64_t> proven;  // Unix seconds
  std::string proven_by;  // "backup", "restore", "drill", "edit"; "" where it is not known
  std::optional<std::uint64_t> proof_seq;  // the log entry with the signed proof
  std::string failure;                     // error code's name of the last failure
  // Of this host, where it was probed:
  std::optional<bool> openable;
  std::string why_not;
};

struct KeyView {
  std::string name;
  std::uint32_t version = 0;
  std::uint32_t revision = 0;
  std::uint32_t num_versions = 0;
  std::string host;
  std::string policy;
  std::string created;
  std::string updated;
  std::string agent;
  bool agent_trusted = true;
  std::string envelope_id;
  Bytes32 envelope_hash{};
  std::string note;
  std::string source;              // declared, or ""
  std::optional<KeyInUse> in_use;  // what stands at the declared source, where `status` looked
  std::vector<PathView> paths;
  std::optional<envelope::Recoverability> recoverability;  // none: too many factors
  std::size_t size_bytes = 0;                              // of the envelope
  policy::KeyFacts facts;                                  // what a policy is held against
};

struct StatusReport {
  std::string host;
  std::string policy;  // "builtin-1"
  std::string thumbprint;
  std::uint64_t log_size = 0;
  std::vector<KeyView> keys;  // newest version of each
  std::vector<Finding> findings;
};

// ListKeys returns the newest version of every key, or of `key_name` alone. Errors: kStore*.
Result<std::vector<KeyView>> ListKeys(Agent& agent, const std::string& key_name = "");

// ShowEnvelope describes one envelope; with `probe`, says which of its paths can be opened here.
Result<KeyView> ShowEnvelope(Agent* agent, const EnvelopeSource& source,
                             const envelope::ReadOptions& trust, PathOpenOptions* probe);

// EvaluateStatus holds every key against the policy in force; beside it, every declared key is
// escrowed, both signatures are on the newest checkpoint, no previous generation is left, and the
// key at each declared source is the escrowed one (drift.h): one read a declared key. Errors:
// kKeyNotFound; kNotFound where nothing is escrowed and nothing declared.
Result<StatusReport> EvaluateStatus(Agent& agent, const std::string& key_name,
                                    const DriftOptions& drift = {});

// NewestEntryTime returns when the newest entry was made, and its checkpoint with it; none where it
// is of a newer version. Errors: kNotFound in an empty log.
Result<std::optional<std::int64_t>> NewestEntryTime(Agent& agent);

}  // namespace keyescrow::agent
