// What an edit makes of an envelope's paths, and whether it may: decided before anything is opened.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/policy/finding.h"
#include "agent/usecases/agent.h"
#include "agent/usecases/kdf_choice.h"
#include "envelope/header.h"
#include "envelope/path_expression.h"

namespace keyescrow::agent {

// EditRequest: what to do with the paths of one version of a key. At most one of `replace` and
// `change_passwords`.
struct EditRequest {
  std::string key_name;
  std::optional<std::uint64_t> version;  // none: the newest
  std::vector<std::string> add;          // [ID=]EXPR
  std::vector<std::string> remove;       // path ids
  std::string replace;                   // path id, whose place the paths of `add` take
  bool change_passwords = false;
  std::vector<std::string> password_paths;  // path ids; none: all, where they have one password
  std::string via;     // path id that opens; "": the first whose hardware is here
  std::string kdf;     // as BackupRequest
  std::string module;  // --module, for tokens that are not registered
  bool use_last_try = false;
};

enum class PathChange : std::uint8_t { kKept, kAdded, kPasswordChanged };
std::string_view PathChangeName(PathChange change);  // "kept", "added", "password changed"

// PlannedPath: a path of the revision to be.
struct PlannedPath {
  envelope::PathOption option;
  PathChange change = PathChange::kKept;
  std::size_t old_index = 0;  // of the path that is kept or made again
};

struct EditPlan {
  std::vector<PlannedPath> paths;
  std::vector<std::size_t> removed;   // old indexes of the paths that are gone
  std::vector<std::string> findings;  // that the policy reports and does not refuse
  PathKdfs kdfs;

  bool Revokes() const;  // something of the old revision no longer opens the new one
  const PlannedPath* Find(std::string_view id) const;
};

// PlanEdit finds what `request` makes of the paths in `header`, and refuses what cannot be made,
// what the policy forbids and what would take the last path or the last portable one.
// Errors: kPathNotFound, kAlreadyExists, kInvalidPath, kUsage, kPathForbidden, kPolicyRefused,
// kUnsupportedHere, kTokenNotRegistered, kTpm* where a TPM's path is to be made again.
Result<EditPlan> PlanEdit(Agent& agent, const envelope::Header& header, const EditRequest& request);

// PasswordOf returns the path's password factor, or null.
const envelope::PasswordRecord* PasswordOf(const envelope::PathRecord& path);
// SamePassword: two factors with one salt were made from one password.
bool SamePassword(const envelope::PasswordRecord& left, const envelope::PasswordRecord& right);

}  // namespace keyescrow::agent
