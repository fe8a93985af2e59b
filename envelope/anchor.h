// Anchor: a counter outside the store that only goes up, and a device that certifies it together
// with the log's newest checkpoint. Whoever puts an older store back cannot put the counter back.
// tpm/ implements it with an NV counter index; what a verifier checks is here, and needs no device.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "envelope/base/bytes.h"
#include "envelope/base/p256.h"
#include "envelope/base/result.h"

namespace keyescrow::envelope {

// AnchorKey: what a verifier holds: the attestation key's public area, and the handle of the NV
// index. The index's own public area follows from the handle and the log's origin.
struct AnchorKey {
  Bytes attestation_public;    // TPM2B_PUBLIC, 90 bytes
  std::uint32_t nv_index = 0;  // in 0x01800000–0x01bfffff
  bool operator==(const AnchorKey&) const = default;
};

// AnchorStatement: what the TPM certified.
struct AnchorStatement {
  Bytes attest;         // TPMS_ATTEST
  Bytes64 signature{};  // ES256 by the attestation key over SHA-256(attest)
  bool operator==(const AnchorStatement&) const = default;
};

// AnchorFacts: what a statement says, once its signature and shape were checked.
struct AnchorFacts {
  std::uint64_t counter = 0;
  Bytes32 checkpoint_hash{};     // qualifyingData
  std::uint64_t clock_ms = 0;    // TPMS_CLOCK_INFO: powered-on time since the last clear
  std::uint32_t num_resets = 0;  // resetCount
  std::uint32_t num_restarts = 0;
  bool clock_safe = false;
};

// AttestationTemplate returns the TPM2B_PUBLIC with which the key is created: P-256, ECDSA with
// SHA-256, fixedTPM|fixedParent|sensitiveDataOrigin|userWithAuth|noDA|restricted|sign.
Bytes AttestationTemplate();

// ParseAttestationKey returns the key of a TPM2B_PUBLIC that has exactly the template's attributes
// and parameters. An unrestricted key signs a forged attestation; nothing is returned for it.
std::optional<P256Point> ParseAttestationKey(ByteView tpm2b_public);

// AnchorIndexPublic returns the TPM2B_NV_PUBLIC of the counter: TPM_NT_COUNTER, not ORDERLY,
// AUTHREAD and AUTHWRITE, NO_DA, 8 bytes. Its authPolicy, which authorises nothing, is SHA-256 over
// a label and the log's origin: the index's Name is that of this log's counter and of no other
// index. `written`: as it is once it was incremented. Source: TPM 2.0 Part 2, 13.5.
Bytes AnchorIndexPublic(std::uint32_t nv_index, std::string_view origin, bool written);
// AnchorIndexName: 000B ‖ SHA-256(TPMS_NV_PUBLIC).
Bytes AnchorIndexName(std::uint32_t nv_index, std::string_view origin, bool written);

// CheckAnchorStatement checks signature, attestation key, TPMS_ATTEST (magic, TPM_ST_ATTEST_NV, the
// index's Name, offset 0, 8 bytes) and returns what it says. Source: TPM 2.0 Part 2, 10.12.
// Errors: kAnchorInvalid.
Result<AnchorFacts> CheckAnchorStatement(const AnchorKey& key, std::string_view origin,
                                         const AnchorStatement& statement);

// Anchor: the counter and its attestation key. Blocking, with a deadline for every command; used
// from one thread. Errors of all: kAnchorMissing (the TPM was cleared or replaced, or another holds
// the handle), kTpm*.
class Anchor {
 public:
  virtual ~Anchor() = default;

  virtual const AnchorKey& Key() const = 0;

  // Read returns the counter. The answer is authenticated by the index's auth value.
  virtual Result<std::uint64_t> Read() = 0;

  // Increment adds one, once, and returns the counter. Where the command's outcome is not known the
  // counter is read, and the command is not repeated.
  virtual Result<std::uint64_t> Increment(std::uint64_t before) = 0;

  // Certify has the attestation key sign `checkpoint_hash` with the counter; the statement was
  // checked. Errors: kAnchorInvalid.
  virtual Result<AnchorStatement> Certify(const Bytes32& checkpoint_hash) = 0;

  // Close leaves nothing in the TPM.
  virtual Status Close() = 0;
};

}  // namespace keyescrow::envelope
