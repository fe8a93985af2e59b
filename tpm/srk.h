// StorageRoot: the storage root key (SRK), ECC P-256 from TPM.md's template, persistent at
// 0x81000001 or transient, and never evicting a key of another's.
#pragma once

#include <optional>

#include "envelope/base/bytes.h"
#include "envelope/base/p256.h"
#include "envelope/base/result.h"
#include "tpm/command_channel.h"

namespace keyescrow::tpm {

inline constexpr std::size_t kSrkPublicBytes = 92;

// SrkTemplate returns the TPM2B_PUBLIC of CreatePrimary: empty `unique`, noDA, restricted|decrypt,
// AES-128-CFB. Any other bytes give another key.
Bytes SrkTemplate();

// ParseSrkPublic returns the point of a TPM2B_PUBLIC of 92 bytes that has the template's attributes
// and parameters; nothing for any other key.
std::optional<P256Point> ParseSrkPublic(ByteView tpm2b_public);

struct Srk {
  Entity entity;
  Bytes tpm2b_public;  // 92 bytes
  P256Point point;
  bool transient = false;
  bool verified = false;  // this process saw the TPM name this key; false: pinned and not yet asked
};

class StorageRoot {
 public:
  // `pinned` is empty or an SRK's 92 bytes.
  StorageRoot(CommandChannel& channel, Bytes pinned)
      : channel_(channel), pinned_(std::move(pinned)) {}

  // Get returns the SRK; no command when it is pinned or known. Errors: as Resolve.
  Result<const Srk*> Get();

  // Resolve asks the TPM which key is at the handle, and makes the SRK transient if it is not ours.
  // Errors: kTpmWrongDevice when the TPM's SRK is not the pinned one; kTpmOwnerAuth, …
  Result<const Srk*> Resolve();

  Status Persist();
  Status Close();

  // ReadHandle returns the TPM2B_PUBLIC at 0x81000001; nothing if the handle is empty.
  Result<std::optional<Bytes>> ReadHandle();

  // With runs `operation(const Srk&)`. Where it fails before any authorisation because a pinned SRK
  // is not (or no longer) at its handle, the SRK is resolved and the operation run once more.
  template <typename Operation>
  auto With(Operation operation) -> decltype(operation(std::declval<const Srk&>())) {
    ASSIGN_OR_RETURN(const Srk* srk, Get());
    const bool was_verified = srk->verified;
    auto result = operation(*srk);
    if (result || was_verified || !MayBeMissing(result.error())) return result;
    ASSIGN_OR_RETURN(const Srk* resolved, Resolve());
    if (!resolved->transient) return result;  // it is there: the first error stands
    return operation(*resolved);
  }

 private:
  static bool MayBeMissing(const Error& error);
  Result<Srk> MakeTransient();

  CommandChannel& channel_;
  Bytes pinned_;
  std::optional<Srk> srk_;
};

}  // namespace keyescrow::tpm
