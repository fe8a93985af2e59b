#include "agent/usecases/edit_guard.h"

#include <fmt/format.h>

#include <utility>

namespace keyescrow::agent {

Status EditGuard::CheckNoneOpen(Agent& agent, const std::string& key_name) {
  ASSIGN_OR_RETURN(const auto open, agent.store().OpenRotation(key_name));
  if (!open) return Ok();
  const Error error = RotationIsOpen(*open);
  return Error(
      error.code(), error.action(),
      fmt::format("{}: version {} has the paths of before, and an edit now would be undone "
                  "by it; nothing was changed",
                  error.message(), open->key_version),
      fmt::format("finish it with 'keyescrow rotate {}', or roll it back with 'keyescrow "
                  "rotate {} --abandon'; then run this again",
                  key_name, key_name));
}

Result<EditGuard> EditGuard::Begin(Agent& agent, const std::string& key_name) {
  RETURN_IF_ERROR(CheckNoneOpen(agent, key_name));
  ASSIGN_OR_RETURN(const auto in_use, agent.store().VersionInUse(key_name));
  return EditGuard(key_name, in_use);
}

Result<RotationLock> EditGuard::BeforeCommit(Agent& agent, store::Change& change) const {
  auto lock = RotationLock::Take(agent.environment().state_dir, key_name_);
  if (!lock) return std::move(lock).error().WithContext("nothing was changed");
  RETURN_IF_ERROR(CheckNoneOpen(agent, key_name_));
  change.in_use_seen.push_back({key_name_, in_use_});
  return lock;
}

}  // namespace keyescrow::agent
