// Edits and rotations of one key, one after the other. A rotation copies the paths of the version
// in use: what was edited beside it, a password that was changed or a path that was removed, would
// be undone once the new version is in use.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "agent/usecases/agent.h"
#include "agent/usecases/rotation_record.h"

namespace keyescrow::agent {

class EditGuard {
 public:
  // Begin, before anything is read. Errors: kStoreBusy while a rotation of the key is under way.
  static Result<EditGuard> Begin(Agent& agent, const std::string& key_name);

  // BeforeCommit looks again: people have been asked meanwhile. Until the lock is given back no
  // rotation begins or goes on, and `change` is not committed (kAlreadyExists) where another
  // version came into use. Errors: kStoreBusy where a rotation is under way.
  Result<RotationLock> BeforeCommit(Agent& agent, store::Change& change) const;

 private:
  EditGuard(std::string key_name, std::optional<std::uint32_t> in_use)
      : key_name_(std::move(key_name)), in_use_(in_use) {}
  static Status CheckNoneOpen(Agent& agent, const std::string& key_name);

  std::string key_name_;
  std::optional<std::uint32_t> in_use_;  // when it began
};

}  // namespace keyescrow::agent
