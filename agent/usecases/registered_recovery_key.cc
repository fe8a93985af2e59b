#include "agent/usecases/registered_recovery_key.h"

#include <utility>

#include "envelope/path_expression.h"

namespace keyescrow::agent {

Result<envelope::RecoveryKey> ReadRegistered(const store::RecoveryKeyRecord& row) {
  const auto damaged = [&row] {
    return Error(ErrorCode::kStoreDamaged, Action::kCallOperator,
                 "the record that is registered for the recovery key " + row.name +
                     " is not the one that its row and the log name",
                 "compare the store with a copy, and run 'keyescrow verify'");
  };
  // Whoever escrows many keys asks for the same one each time.
  thread_local std::optional<std::pair<store::RecoveryKeyRecord, envelope::RecoveryKey>> last;
  if (last && last->first.record == row.record && last->first.name == row.name &&
      last->first.thumbprint == row.thumbprint && last->first.sha256 == row.sha256) {
    return last->second;
  }
  auto key = envelope::ParseRecoveryKey(row.record);
  if (!key || key->record.name != row.name || key->Thumbprint() != row.thumbprint ||
      key->Sha256() != row.sha256) {
    return damaged();
  }
  last.emplace(row, *key);
  return std::move(*key);
}

Result<std::optional<envelope::RecoveryKey>> RegisteredRecoveryKey(
    store::EscrowStore& store, const envelope::PathRecord& path) {
  std::optional<envelope::RecoveryKey> none;
  if (!path.recovery_key) return none;
  const auto row = store.FindRecoveryKey(path.recovery_key->name);
  if (!row) {
    if (row.error().code() == ErrorCode::kNotFound) return none;
    return row.error();
  }
  ASSIGN_OR_RETURN(envelope::RecoveryKey key, ReadRegistered(*row));
  if (!key.IsIn(path)) return none;
  return std::optional(std::move(key));
}

std::string RecoveryKeyPathId(const std::string& name) {
  envelope::PathExpression expression;
  expression.factors.push_back({envelope::FactorKind::kRecoveryKey, name, 0, {}});
  return envelope::DefaultPathId(expression);
}

envelope::PathRecord RecoveryKeyPath(const envelope::RecoveryKey& key) {
  envelope::PathRecord path;
  path.id = RecoveryKeyPathId(key.record.name);
  path.factors = key.factors;
  path.drill_key = key.drill_key;
  path.recovery_key = key.record;
  return path;
}

}  // namespace keyescrow::agent
