// backup: escrow one key, then prove that the written bytes open.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/open_path.h"
#include "agent/usecases/secrets.h"
#include "agent/usecases/succession.h"
#include "envelope/path_expression.h"

namespace keyescrow::agent {

struct BackupRequest {
  std::string key_name;
  std::string source;              // SOURCE; "" where `generate_bytes` is set
  std::size_t generate_bytes = 0;  // 1–65536: make the key, and deliver it to `sink` once proven
  std::string sink;
  std::string luks_unlock_file;    // what unlocks a LUKS volume that is the source or the sink
  std::vector<std::string> paths;  // [ID=]EXPR; empty: the declaration's, then the defaults
  std::string kdf;  // "argon2id", "pbkdf2-sha512"; "": the declaration's, the defaults'
  std::vector<std::string> prove;  // path ids; empty: every path whose factors are at hand
  bool prove_none = false;
  std::string note;
  std::string output;  // SINK of a portable file, or ""
  // Of a rotation: the key, which the caller has and hands over itself.
  const SecretBytes* key = nullptr;
  std::optional<RotationStart> rotation = {};
};

struct PathProof {
  std::string path_id;
  std::string expression;  // canonical
  bool portable = false;   // needs no TPM
  bool proven = false;
  std::string why_not;  // cause, where it is not proven
  // Of a path to a recovery key: when that key was last opened here, within the time in which a
  // drill is asked for. What was written was read back by the writer's side of the same secret.
  std::optional<std::int64_t> covered_since = {};
};

// MayHandOver: a path that opens elsewhere was proven, or goes to a recovery key that was opened
// lately; any such path, where none is made that opens elsewhere.
bool MayHandOver(const std::vector<PathProof>& paths);

struct BackupResult {
  std::string key_name;
  std::uint32_t key_version = 0;
  std::string envelope_id;
  Bytes32 envelope_hash{};
  std::string thumbprint;  // of the agent key
  std::uint64_t log_seq = 0;
  bool p256_signed = false;
  std::vector<PathProof> paths;
  std::string output;   // as written, or ""
  std::string receipt;  // file beside it, or ""
  std::vector<std::string> findings;
  bool portable_proven = false;
  bool covered = false;  // a portable path goes to a recovery key that was opened lately
  bool Recoverable() const { return portable_proven || covered; }
  std::optional<bool> delivered;    // of a generated key: whether it went to its sink
  std::optional<unsigned> keyslot;  // of the LUKS volume that it went to
};

// Backup follows ARCHITECTURE's order: read, check, enroll, seal, commit, reopen, log the proofs.
// Nothing is said to be escrowed before the commit returned. A generated key is handed over last,
// and only where a path that needs no TPM was proven (any path, where no such path was asked for)
// or is covered by a recovery key: else it stays escrowed, which is a finding. A path to a recovery
// key is not opened, unless `prove` names it: it needs nobody. Errors: kInvalidName, kInvalidPath,
// kPathForbidden, kPasswordWeak, kTokenNotRegistered, kSource*, kTpm*, kStore*, kDestination*.
Result<BackupResult> Backup(Agent& agent, const BackupRequest& request, Secrets& secrets,
                            Progress& progress);

}  // namespace keyescrow::agent
