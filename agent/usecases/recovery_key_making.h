// Making a recovery key's record: enrolled, opened once from its text, then registered, with both
// told by one commit. Creating one, changing its password and importing one are made of these.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/usecases/open_path.h"
#include "agent/usecases/recovery_keys.h"
#include "agent/usecases/secrets.h"
#include "envelope/path_expression.h"
#include "envelope/recovery_key.h"

namespace keyescrow::agent {

// RecoveryKeyRow is the record's row, as of now.
store::RecoveryKeyRecord RecoveryKeyRow(const Agent& agent, const envelope::RecoveryKey& key);

// RecoveryKeyOpening: the options to open the recovery key with.
PathOpenOptions RecoveryKeyOpening(Agent& agent, const std::string& name, Secrets& secrets,
                                   Progress& progress);

// EnrollRecoveryKey protects the pair by fresh secrets of the path's factors. Errors: EnrollPaths',
// ProtectRecoveryKey's, those of Secrets::ConfirmLoss.
Result<envelope::RecoveryKey> EnrollRecoveryKey(Agent& agent, const RecoveryKeyRequest& request,
                                                const P256KeyPair& pair,
                                                envelope::PathOption option, Secrets& secrets,
                                                Progress& progress, StretchedPasswords& passwords);

struct RecoveryKeyRegistration {
  std::string reason;
  std::optional<Bytes32> replaces;  // as RecoveryKeyRecord's
  std::vector<std::string> findings;
  bool proven = false;  // it was opened a moment ago
  std::string why_not = {};
};

// ProveRecoveryKey opens the record that is about to be registered, from its text, where its
// factors are at hand, and says in `registration` how that went. Errors: where the record itself
// does not open; nothing may then be registered.
Status ProveRecoveryKey(Agent& agent, const envelope::RecoveryKey& made, Secrets& secrets,
                        Progress& progress, StretchedPasswords& passwords,
                        RecoveryKeyRegistration& registration);

// RegisterRecoveryKey commits the record, and that it was opened, in one transaction.
// Errors: kAlreadyExists, kStoreBusy where another command was faster; EscrowStore::Commit's.
Result<RecoveryKeyChange> RegisterRecoveryKey(Agent& agent, const envelope::RecoveryKey& key,
                                              RecoveryKeyRegistration registration);

}  // namespace keyescrow::agent
