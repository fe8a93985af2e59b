// Recovery keys of this agent: made, registered, handed to other hosts, given another password,
// retired. Each of these is an entry of the log, with the SHA-256 of the record.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/event_order.h"
#include "agent/usecases/secrets.h"
#include "envelope/recovery_key.h"

namespace keyescrow::agent {

// RecoveryKeyState: a registered recovery key, and what opens it.
struct RecoveryKeyState {
  store::RecoveryKeyRecord row;
  std::string factors;    // its own path, as an expression
  bool portable = false;  // it opens without a TPM
};

struct RecoveryKeyChange {
  RecoveryKeyState key;
  bool proven = false;  // its private half was opened from what was registered
  std::string why_not;
  std::uint64_t log_seq = 0;
  std::vector<std::string> findings;
};

struct RecoveryKeyRequest {
  std::string name;
  std::string path;  // EXPR; of CreateRecoveryKey alone
  std::string kdf;   // "argon2id", "pbkdf2-sha512"; "": the defaults'
  bool prove_none = false;
};

// CreateRecoveryKey makes a pair, protects its private half by the path's factors, registers the
// record, and opens it again where the factors are at hand.
// Errors: kInvalidName, kInvalidPath, kAlreadyExists, kPathForbidden (a password alone, which one
// guess for all keys would open), kPolicyRefused, and those of enrolling.
Result<RecoveryKeyChange> CreateRecoveryKey(Agent& agent, const RecoveryKeyRequest& request,
                                            Secrets& secrets, Progress& progress);

// ChangeRecoveryKeyPassword opens the registered record by its factors, enrolls the same ones anew
// with a new password, and registers that. Envelopes that were made before keep their copy with the
// old one. Errors: kNotFound, kUsage where it has no password or the new one is the old one, and
// those of opening and enrolling.
Result<RecoveryKeyChange> ChangeRecoveryKeyPassword(Agent& agent, const RecoveryKeyRequest& request,
                                                    Secrets& secrets, Progress& progress);

// PinnedSha256 returns the hash that stands in `text`: 64 hexadecimal digits, or b64u.
std::optional<Bytes32> ParseSha256(std::string_view text);

struct RecoveryKeyImport {
  RecoveryKeyChange change;
  bool already_there = false;
};
// ImportRecoveryKey registers a record that another host made. It is taken where the policy in
// force pins the public half under its name, or where `confirm` returns Ok: it is called with what
// is about to be trusted, unless the policy pins it. Errors: Failure::kFormat …, kPolicyRefused
// where the policy pins another, kAlreadyExists, those of `confirm`.
using ConfirmRecord =
    std::function<Status(const RecoveryKeyState& key, const Bytes32& sha256, bool is_pinned)>;
Result<RecoveryKeyImport> ImportRecoveryKey(Agent& agent, const std::string& file,
                                            const ConfirmRecord& confirm);

// ExportRecoveryKey writes the record, which is public, and logs it. Errors: kNotFound, the sink's.
Result<RecoveryKeyState> ExportRecoveryKey(Agent& agent, const std::string& name,
                                           const std::string& sink);

// DescribeRecoveryKey reads a row. Errors: kStoreDamaged.
Result<RecoveryKeyState> DescribeRecoveryKey(const store::RecoveryKeyRecord& row);
Result<std::vector<RecoveryKeyState>> ListRecoveryKeys(Agent& agent);
Result<RecoveryKeyState> ShowRecoveryKey(Agent& agent, const std::string& name);

// RecoveryKeyUse: which escrowed versions go to the key, and which of them have no other path.
struct RecoveryKeyUse {
  std::size_t num_envelopes = 0;
  std::vector<std::string> stranded;  // "NAME version N"
};
Result<RecoveryKeyUse> UseOfRecoveryKey(Agent& agent, const std::string& name);

// RetireRecoveryKey: nothing is escrowed to it any more; what is, stays and opens as before.
// Errors: kNotFound, kPolicyRefused where a rule of a signed policy requires it.
Status RetireRecoveryKey(Agent& agent, const std::string& name);

// RecoveryKeyEvent is an entry's path and factors for the record.
audit::EventPath RecoveryKeyEvent(const envelope::RecoveryKey& key);

// CoveredSince: when the registered key was last opened here, where that is within the time in
// which the policy in force asks for a drill of this path (90 days, where no rule asks); else
// nothing.
Result<std::optional<std::int64_t>> CoveredSince(Agent& agent, const store::RecoveryKeyRecord& row,
                                                 const std::string& key_name,
                                                 std::string_view path_id);

// CoverText tells when it was opened, or that it did not open since; `covered_since` is
// CoveredSince's.
Result<std::string> CoverText(Agent& agent, const store::RecoveryKeyRecord& row,
                              const std::optional<std::int64_t>& covered_since);

// AddCover has the paths of an envelope that this agent made, and that carry the very record that
// is registered, count as proven when that recovery key was last opened here: the writer read each
// envelope back before it was kept (envelope/sealed_envelope.h), so what opens the key opens them.
Status AddCover(Agent& agent, const envelope::Header& header,
                std::vector<store::PathState>& states);

}  // namespace keyescrow::agent
