// Edits of a key's paths: added, removed, replaced, their passwords changed, with any one path
// open.
#pragma once

#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/edit_plan.h"
#include "agent/usecases/secrets.h"

namespace keyescrow::agent {

// EditedPath: a path of the new revision.
struct EditedPath {
  std::string path_id;
  std::string expression;
  bool portable = false;  // needs no TPM
  PathChange change = PathChange::kKept;
  bool proven = false;         // reopened from the bytes that were then committed
  bool proven_before = false;  // kept, and proven at an earlier revision
  std::string why_not;         // cause, where it is not proven now
};

struct EditResult {
  std::string key_name;
  std::uint32_t key_version = 0;
  std::uint32_t revision = 0;
  std::string via;  // the path that opened
  std::string envelope_id;
  Bytes32 envelope_hash{};
  Bytes32 previous_hash{};
  std::vector<EditedPath> paths;
  std::vector<std::string> removed;  // path ids
  bool old_copies_open = false;      // something was revoked that copies of before still open by
  std::uint64_t log_seq = 0;
  bool p256_signed = false;
  bool portable_proven = false;  // one of them was reopened
  std::vector<std::string> findings;
};

// EditPaths opens the newest revision by one path, makes the next one, reopens its bytes by every
// path whose factors are at hand, and commits it with its events and proofs in one transaction. A
// path that is made anew, is at hand and does not open ends it: then nothing was changed.
// Errors: PlanEdit's, those of opening, of EnrollPaths and Journal::Append; kStoreBusy where
// another edit came between, EditGuard's.
Result<EditResult> EditPaths(Agent& agent, const EditRequest& request, Secrets& secrets,
                             Progress& progress);

}  // namespace keyescrow::agent
