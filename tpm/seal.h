// Sealing and unsealing under the SRK (what Tpm does), and the object's public area.
#pragma once

#include <optional>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"
#include "envelope/factor.h"
#include "tpm/device_impl.h"

namespace keyescrow::tpm {

// SealedArea returns TPM2B_PUBLIC of a sealed object (envelope/FORMAT.md, `public`): attributes
// fixedTPM|fixedParent unless `portable`, noDA unless `has_auth`; `unique` of 0 or 32 bytes.
Bytes SealedArea(bool portable, bool has_auth, const Bytes32& policy, ByteView unique);

// LoadedObject: a handle in the TPM with the Name computed from its public area.
// LoadObject runs TPM2_Load under the SRK. Errors: by `context`.
Result<Entity> LoadObject(CommandChannel& channel, const Srk& srk, ByteView tpm2b_public,
                          ByteView tpm2b_private, Context context);

// CreatedObject: what TPM2_Create returns.
struct CreatedObject {
  Bytes object_public;   // TPM2B_PUBLIC
  Bytes object_private;  // TPM2B_PRIVATE
};
// CreateObject runs StartAuthSession and TPM2_Create; `auth` and `data` (either may be null) cross
// the bus encrypted. `in_public` is a TPM2B_PUBLIC.
Result<CreatedObject> CreateObject(CommandChannel& channel, const Srk& srk, const SecretBytes* auth,
                                   const SecretBytes* data, ByteView in_public);

Result<envelope::Tpm2Record> SealObject(Device::Impl& device, const envelope::SealRequest& request);
Result<SecretBytes> UnsealObject(Device::Impl& device, const envelope::Tpm2Record& record,
                                 const envelope::UnsealRequest& request);

// CheckSealRequest: the sizes of the secret (1–128) and the auth value (32). Errors: kInternal.
Status CheckSealRequest(const envelope::SealRequest& request);

}  // namespace keyescrow::tpm
