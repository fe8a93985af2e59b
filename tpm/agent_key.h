// TpmAgentKey: the agent's ES256 key inside the TPM (fixedTPM, unrestricted, no dictionary-attack
// protection: its auth value is 256 random bits). It signs envelopes and checkpoints; it is never
// an attestation key, and an attestation key never signs for the agent.
#pragma once

#include <memory>
#include <optional>

#include "envelope/base/random.h"
#include "envelope/signer.h"
#include "tpm/device.h"

namespace keyescrow::tpm {

// AgentKeyBlob: the key as the state keeps it; only the TPM that made it can load it.
struct AgentKeyBlob {
  Bytes object_public;   // TPM2B_PUBLIC
  Bytes object_private;  // TPM2B_PRIVATE
};

class TpmAgentKey : public envelope::Signer {
 public:
  // Create makes a key under the SRK: StartAuthSession, Create. `auth` is 32 random bytes, which
  // the state keeps in a root-only file. Errors: kTpm*. Source: TPM 2.0 Part 3, TPM2_Create.
  static Result<AgentKeyBlob> Create(Device& device, const SecretBytes& auth);

  // Open checks the blob and sends no command; the first signature loads the key.
  // Errors: kAgentKeyUnavailable when the public area is not an agent key's.
  static Result<std::unique_ptr<TpmAgentKey>> Open(std::shared_ptr<Device> device,
                                                   AgentKeyBlob blob, SecretBytes auth);
  // The destructor calls Close() and drops its error.
  ~TpmAgentKey() override;

  const P256Point& PublicKey() const override;

  // SignDigest: Load and StartAuthSession at the first signature, then Sign; key and session stay
  // in the TPM until Close() or the last signature. After any failure nothing stays. Errors:
  // kAgentKeyUnavailable (auth refused, or another TPM), kTpm*. Source: TPM 2.0 Part 3, TPM2_Sign.
  Result<Bytes64> SignDigest(const Bytes32& digest) override;

  // NextIsLast tells that the next signature is the last one for now: it ends the session by itself
  // and flushes the key. Two signatures then cost Load, StartAuthSession, Sign, Sign, FlushContext.
  void NextIsLast();

  // Close flushes the session and the key, if they are in the TPM: 0 or 2 commands.
  Status Close();

 private:
  struct Impl;
  explicit TpmAgentKey(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace keyescrow::tpm
