// The state folder: who this agent is, and its keys.
//
//   agent.json       public: schema, host, origin, keys, the agent key's place; written last
//   ed25519.seed     32 bytes, signs checkpoints
//   agent-p256.key   32-byte scalar; only where the agent key is not in the TPM
//   agent-tpm.auth   32 bytes; only where it is
//   fingerprint.key  32 bytes, makes the fingerprints that drift is found by; made anew if lost
//   anchor-tpm.auth  32 bytes; where the log has a counter in the TPM
//   store.db         agent/store
//
// The folder has mode 0700, every file 0600, owned by us or by root. Without agent.json there is no
// state: an init that was killed left nothing usable, and the next one starts over.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "envelope/anchor.h"
#include "envelope/base/bytes.h"
#include "envelope/base/p256.h"
#include "envelope/base/random.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/signer.h"

namespace keyescrow::agent {

enum class AgentKeyPlace : std::uint8_t { kFile, kTpm };

// UnsetPoint is the curve's base point: nobody's key, since its private half is 1. It stands where
// no key was loaded yet, and LoadAgentIdentity refuses it.
const P256Point& UnsetPoint();

// AnchorIdentity: the log's counter in the TPM and the key that certifies it.
struct AnchorIdentity {
  envelope::AnchorKey key;
  Bytes tpm_private;       // TPM2B_PRIVATE of the attestation key
  std::uint64_t base = 0;  // the counter as it was made
};

// AgentIdentity: all that is public of this agent (agent.json).
struct AgentIdentity {
  std::string host;
  std::string origin;             // of the log; fixed at init, whatever keys come later
  std::string created;            // T
  P256Point p256 = UnsetPoint();  // the agent key
  AgentKeyPlace place = AgentKeyPlace::kFile;
  Bytes tpm_public;  // TPM2B_PUBLIC and TPM2B_PRIVATE of the agent key; empty in kFile
  Bytes tpm_private;
  Bytes srk_public;  // TPM2B_PUBLIC of the pinned storage root key; empty without a TPM
  Bytes32 ed25519{};
  std::optional<AnchorIdentity> anchor{};  // none without a TPM, and in states of before 0.1.0

  std::string Thumbprint() const { return JwkThumbprint(p256); }
};

struct AgentSecrets {
  SecretBytes ed25519_seed;          // 32 bytes
  SecretBytes p256_scalar;           // 32 bytes, or empty: kTpm
  SecretBytes tpm_auth;              // 32 bytes, or empty: kFile
  SecretBytes fingerprint_key = {};  // 32 bytes, or empty: made at first need
};

// CreateAgentState makes the folder, the secrets, an empty store and, last, agent.json; each file
// by O_EXCL temporary, fsync, rename, fsync of the folder. Killed anywhere, it can be run again.
// Errors: kAlreadyInitialized (also where a store with entries lies there without its agent.json);
// kStatePermissions; kStoreBusy while another init runs; kStoreFull, kStoreReadOnly,
// kStoreUnavailable.
Status CreateAgentState(const std::string& state_dir, const AgentIdentity& identity,
                        const AgentSecrets& secrets);

// LoadAgentIdentity reads agent.json and checks the folder's and the file's permissions.
// Errors: kNotInitialized; kStatePermissions; kStoreNewerSchema; kStoreDamaged.
Result<AgentIdentity> LoadAgentIdentity(const std::string& state_dir);
// ReadAgentIdentity reads agent.json of a folder that may be anybody's: evidence.
// Errors: kStoreUnavailable; kStoreNewerSchema; kStoreDamaged.
Result<AgentIdentity> ReadAgentIdentity(const std::string& state_dir);

// The secrets, each 32 bytes. Errors: kStoreUnavailable where the file is not there or not of that
// size (LoadAnchorAuth: kAgentKeyUnavailable); kStatePermissions.
Result<SecretBytes> LoadEd25519Seed(const std::string& state_dir);
Result<SecretBytes> LoadAgentScalar(const std::string& state_dir);
Result<SecretBytes> LoadAgentTpmAuth(const std::string& state_dir);
// LoadFingerprintKey: kNotFound where it is not there or not of that size; otherwise as the other
// secrets.
Result<SecretBytes> LoadFingerprintKey(const std::string& state_dir);
// EnsureFingerprintKey makes fingerprint.key where LoadFingerprintKey says kNotFound. Of two
// processes at once, both get the same key. Errors: also kStoreFull, kStoreReadOnly.
Result<SecretBytes> EnsureFingerprintKey(const std::string& state_dir, RandomSource& random);

// WriteAgentIdentity replaces agent.json (a rotated agent key), with the same care.
Status WriteAgentIdentity(const std::string& state_dir, const AgentIdentity& identity);

// LoadAnchorAuth as the other secrets. MakeAnchorAuth returns it, and makes it where it is not
// there. Under a StateLock alone. Errors: also kStoreFull, kStoreReadOnly, kStoreUnavailable.
Result<SecretBytes> LoadAnchorAuth(const std::string& state_dir);
Result<SecretBytes> MakeAnchorAuth(const std::string& state_dir, RandomSource& random);

// StateLock: one process at a time makes a state, or moves the log's counter or judges it. It ends
// with the object, or with the process.
class StateLock {
 public:
  // Take waits for nobody. Errors: kStoreBusy, kStoreUnavailable.
  static Result<StateLock> Take(const std::string& state_dir);
  StateLock(StateLock&& other) noexcept : folder_(std::exchange(other.folder_, -1)) {}
  StateLock& operator=(StateLock&&) = delete;
  ~StateLock();

 private:
  explicit StateLock(int folder) : folder_(folder) {}
  int folder_;
};

// FileSigner is the agent key of a host without a TPM.
class FileSigner final : public envelope::Signer {
 public:
  explicit FileSigner(P256KeyPair key) : key_(std::move(key)) {}
  // Load reads agent-p256.key and checks it against the identity. Errors: kStoreUnavailable.
  static Result<FileSigner> Load(const std::string& state_dir, const AgentIdentity& identity);
  const P256Point& PublicKey() const override { return key_.Public(); }
  Result<Bytes64> SignDigest(const Bytes32& digest) override { return key_.SignEs256(digest); }

 private:
  P256KeyPair key_;
};

}  // namespace keyescrow::agent
