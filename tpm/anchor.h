// TpmAnchor: the log's counter in the TPM's NV memory, and the restricted key that certifies it.
//
// The key (fixedTPM, restricted, sign; no auth value) signs what the TPM itself made and nothing
// else, so it attests; it is never the agent key. The index is defined with the owner's empty auth;
// its own auth value of 256 random bits is needed to read, count and certify, and never crosses the
// bus in clear. An index that is not this log's, by its public area, is not touched.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/anchor.h"
#include "envelope/base/secret_bytes.h"
#include "tpm/device.h"

namespace keyescrow::tpm {

// The handles that are tried, in this order, in the owner's range (TCG Registry of Reserved TPM 2.0
// Handles: 0x01800000–0x01bfffff): the first one that is free, or already this log's.
inline constexpr std::uint32_t kFirstAnchorIndex = 0x0180'4b45;
inline constexpr std::uint32_t kNumAnchorIndexes = 16;

// AnchorBlob: the anchor as the state keeps it; only the TPM that made it can use it.
struct AnchorBlob {
  envelope::AnchorKey key;
  Bytes attestation_private;  // TPM2B_PRIVATE
};

struct CreatedAnchor {
  AnchorBlob blob;
  std::uint64_t base = 0;  // one below what its first count makes it
};

// AnchorIndex: an index of a log, told by its public area.
struct AnchorIndex {
  std::uint32_t handle = 0;
  bool counted = false;
};

class TpmAnchor : public envelope::Anchor {
 public:
  // Create makes key and index for the log of `origin`, and counts nothing: its caller has the
  // value of the first count in the log before it counts, so that whoever finds the index counted
  // knows whether a killed process did it. A TPM starts a counter above all that were removed; a
  // probe, an index that is counted once and removed, tells where. `auth` is 32 random bytes. This
  // log's indexes that never counted are removed, and so is a probe that a killed Create left;
  // where a handle is taken by another, or by a counter of this log, the next one is tried. Errors:
  // kTpmOwnerAuth where the owner has a password, kAnchorNoIndex, kTpm*. Source: TPM 2.0 Part 3,
  // TPM2_Create, TPM2_NV_DefineSpace, TPM2_NV_Increment.
  static Result<CreatedAnchor> Create(Device& device, const SecretBytes& auth,
                                      std::string_view origin);

  // Find tells which indexes of the log of `origin` the TPM has; 1 command, and 1 for each index in
  // the range. Remove removes one of them, and no other. Errors: kAnchorMissing where it is another
  // log's; kTpmOwnerAuth; kTpm*.
  static Result<std::vector<AnchorIndex>> Find(Device& device, std::string_view origin);
  static Status Remove(Device& device, std::uint32_t handle, std::string_view origin);

  // Open checks the blob and sends no command. `base` as Create gave it while the counter may not
  // have counted yet, and 0 once it has: such an index was made anew. Errors: kAnchorMissing when
  // the public area is not an attestation key's.
  static Result<std::unique_ptr<TpmAnchor>> Open(std::shared_ptr<Device> device, AnchorBlob blob,
                                                 std::uint64_t base, SecretBytes auth,
                                                 std::string origin);
  // The destructor calls Close() and drops its error.
  ~TpmAnchor() override;

  const envelope::AnchorKey& Key() const override;
  // Read: NV_Read, and StartAuthSession at the first use; the session stays until Certify or Close.
  // A counter that never counted is at `base`.
  Result<std::uint64_t> Read() override;
  // Increment: NV_Increment, and NV_Read after the first count.
  Result<std::uint64_t> Increment(std::uint64_t before) override;
  // Certify: Load, NV_Certify, FlushContext; it ends the session.
  Result<envelope::AnchorStatement> Certify(const Bytes32& checkpoint_hash) override;
  Status Close() override;

 private:
  struct Impl;
  explicit TpmAnchor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace keyescrow::tpm
