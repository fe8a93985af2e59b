// Signer: the agent key, which signs envelopes and checkpoints (ES256). tpm/ implements it with a
// key inside the TPM, agent/ with a key in a file.
#pragma once

#include "envelope/base/bytes.h"
#include "envelope/base/p256.h"
#include "envelope/base/result.h"

namespace keyescrow::envelope {

class Signer {
 public:
  virtual ~Signer() = default;
  virtual const P256Point& PublicKey() const = 0;
  // SignDigest signs a SHA-256 digest; R‖S (RFC 7518, 3.4). Blocking up to the device's deadline.
  // Errors: kAgentKeyUnavailable, kTpm*.
  virtual Result<Bytes64> SignDigest(const Bytes32& digest) = 0;
};

}  // namespace keyescrow::envelope
