// The recovery keys that are registered here, as paths of envelopes need them.
#pragma once

#include <optional>
#include <string>

#include "agent/store/escrow_store.h"
#include "envelope/header.h"
#include "envelope/recovery_key.h"

namespace keyescrow::agent {

// ReadRegistered parses a row's record and holds it against the row. Errors: kStoreDamaged.
Result<envelope::RecoveryKey> ReadRegistered(const store::RecoveryKeyRecord& row);

// RegisteredRecoveryKey returns the registered record of the key that `path` goes to, a retired one
// too; none where no key of that name and public half is registered. Errors: kStoreDamaged,
// kStore*.
Result<std::optional<envelope::RecoveryKey>> RegisteredRecoveryKey(
    store::EscrowStore& store, const envelope::PathRecord& path);

// RecoveryKeyPath is a path with the key's factors, under the id that envelopes have by default.
envelope::PathRecord RecoveryKeyPath(const envelope::RecoveryKey& key);
// RecoveryKeyPathId is that id.
std::string RecoveryKeyPathId(const std::string& name);

}  // namespace keyescrow::agent
