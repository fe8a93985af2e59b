// The signature of a PCR policy, which travels beside an envelope whose tpm2 factor names a signer.
#pragma once

#include <optional>
#include <string>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent {

// ReadPcrPolicySignature reads ECDSA-SHA256 over the 32-byte PolicyPCR digest from `file`: 64 bytes
// R||S, or DER, as `openssl dgst -sha256 -sign` makes it. Nothing for "". Public data.
// Errors: kUsage where the file cannot be read or is no such signature.
Result<std::optional<Bytes64>> ReadPcrPolicySignature(const std::string& file);

}  // namespace keyescrow::agent
