// Tpm: sealing factors to the TPM of this host (envelope::TpmFactor), and wrapping to another's.
#pragma once

#include <memory>

#include "envelope/base/random.h"
#include "envelope/factor.h"
#include "tpm/device.h"

namespace keyescrow::tpm {

class Tpm : public envelope::TpmFactor {
 public:
  // Open opens a device of its own. Errors: as Device::Open.
  static Result<std::unique_ptr<Tpm>> Open(DeviceOptions options);
  // The device may be shared with a TpmAgentKey; all of them on one thread.
  explicit Tpm(std::shared_ptr<Device> device);
  ~Tpm() override;

  const std::shared_ptr<Device>& device() const { return device_; }

  Result<Bytes> StorageParent() override;

  // Seal: StartAuthSession, Create; with PCRs a PCR_Read first. The secret and the auth value cross
  // the bus encrypted under a session salted to the SRK. Source: Part 3, TPM2_Create.
  Result<envelope::Tpm2Record> Seal(const envelope::SealRequest& request) override;

  // Unseal: Load, StartAuthSession, PolicyAuthValue, Unseal, FlushContext; one more each for PCRs,
  // the DA state (where the record's auth is true), the first DA-protected use after a boot and
  // `seed` (Import); five more for a signed policy.
  // Errors: kTpmWrongDevice, kTpmWrongAuth, kTpmLockout, kTpmLastTry, kTpmPcrMismatch,
  // kTpmPolicySignature, kTpmBusy, kTpmReset, kTpmTimeout, kTpmUnavailable, kTpmResponse.
  Result<SecretBytes> Unseal(const envelope::Tpm2Record& record,
                             const envelope::UnsealRequest& request) override;

  Result<envelope::TpmState> Inspect() override;

 private:
  std::shared_ptr<Device> device_;
};

// WrapForParent seals to the SRK of another host, without its TPM: a software-made duplicate that
// TPM2_Import takes there (`seed` in the record). `parent_public` is that host's 92-byte SRK, from
// a source the caller trusts. PCRs are refused (kUsage): their values are not known here. Source:
// TPM 2.0 Part 1, 23.3 (duplication), Part 3, TPM2_Import.
Result<envelope::Tpm2Record> WrapForParent(ByteView parent_public,
                                           const envelope::SealRequest& request,
                                           RandomSource& random);

}  // namespace keyescrow::tpm
