#include "tpm/srk.h"

#include <algorithm>

#include "envelope/factor.h"
#include "tpm/marshal.h"

namespace keyescrow::tpm {
namespace {

// TPMT_PUBLIC up to `unique`: ECC, SHA-256, fixedTPM|fixedParent|sensitiveDataOrigin|userWithAuth|
// noDA|restricted|decrypt, no policy, AES-128-CFB, scheme NULL, P-256, kdf NULL.
constexpr std::uint8_t kArea[] = {0x00, 0x23, 0x00, 0x0b, 0x00, 0x03, 0x04, 0x72, 0x00, 0x00, 0x00,
                                  0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x00, 0x03, 0x00, 0x10};

Error NotThePinnedKey() {
  return Error(ErrorCode::kTpmWrongDevice, Action::kWrongDevice,
               "this TPM's storage key is not the one that was pinned: the TPM was cleared or "
               "replaced",
               "restore by a path without tpm, then make a new state with 'keyescrow init --state "
               "DIR' and adopt or back up each key there");
}

}  // namespace

Bytes SrkTemplate() {
  Bytes area = ToBytes(kArea);
  AppendTpm2b(area, {});  // unique.x and .y of size 0
  AppendTpm2b(area, {});
  Bytes tpm2b;
  AppendTpm2b(tpm2b, area);
  return tpm2b;
}

std::optional<P256Point> ParseSrkPublic(ByteView tpm2b_public) {
  ByteReader reader(tpm2b_public);
  const auto size = reader.TakeU16();
  const auto area = reader.Take(sizeof(kArea));
  if (tpm2b_public.size() != kSrkPublicBytes || !size || *size != kSrkPublicBytes - 2 || !area ||
      !std::equal(area->begin(), area->end(), std::begin(kArea))) {
    return std::nullopt;
  }
  const auto x = TakeTpm2b(reader);
  const auto y = TakeTpm2b(reader);
  if (!x || !y || x->size() != 32 || y->size() != 32) return std::nullopt;
  return P256Point::FromXy(*x, *y);
}

Result<const Srk*> StorageRoot::Get() {
  if (srk_) return &*srk_;
  if (pinned_.empty()) return Resolve();
  const auto point = ParseSrkPublic(pinned_);
  if (!point) {
    return Error(ErrorCode::kTpmSrkUntrusted, Action::kCheckSystemState,
                 "the pinned storage key is not of the expected kind",
                 "restore the agent's state from its backup, or make a new one with 'keyescrow "
                 "init --state DIR'");
  }
  srk_ = Srk{{kSrkHandle, envelope::Tpm2Name(pinned_)}, pinned_, *point};
  return &*srk_;
}

Result<std::optional<Bytes>> StorageRoot::ReadHandle() {
  const Command command{
      .code = kCcReadPublic, .name = "TPM2_ReadPublic", .handles = {{kSrkHandle, {}}}};
  auto reply = channel_.Run(command);
  if (!reply) {
    if (ResponseCode(reply.error()) == 0x8b) return std::optional<Bytes>();
    return std::move(reply).error();
  }
  ByteReader reader(reply->parameters);
  const auto area = TakeTpm2b(reader);
  if (!area) return ResponseError("the TPM's response to TPM2_ReadPublic does not parse");
  Bytes tpm2b;
  AppendTpm2b(tpm2b, *area);
  return std::optional<Bytes>(std::move(tpm2b));
}

Result<const Srk*> StorageRoot::Resolve() {
  RETURN_IF_ERROR(Close());
  ASSIGN_OR_RETURN(const std::optional<Bytes> found, ReadHandle());
  if (found) {
    // The Name is computed here from the public area; the TPM's claim of it is not used.
    const auto point = ParseSrkPublic(*found);
    if (point && (pinned_.empty() || pinned_ == *found)) {
      srk_ = Srk{{kSrkHandle, envelope::Tpm2Name(*found)}, *found, *point, false, true};
      return &*srk_;
    }
  }
  ASSIGN_OR_RETURN(Srk made, MakeTransient());
  if (!pinned_.empty() && pinned_ != made.tpm2b_public) {
    channel_.FlushQuietly(made.entity.handle);
    return NotThePinnedKey();
  }
  srk_ = std::move(made);
  return &*srk_;
}

Result<Srk> StorageRoot::MakeTransient() {
  Command command{.code = kCcCreatePrimary,
                  .name = "TPM2_CreatePrimary",
                  .context = Context::kOwner,
                  .handles = {{kRhOwner, {}}},
                  .returns_handle = true};
  // inSensitive with empty auth and data; outsideInfo empty; no creation PCRs.
  constexpr std::uint8_t kEmptySensitive[] = {0, 4, 0, 0, 0, 0};
  AppendBytes(command.parameters, kEmptySensitive);
  AppendBytes(command.parameters, SrkTemplate());
  AppendTpm2b(command.parameters, {});
  AppendU32(command.parameters, 0);
  ASSIGN_OR_RETURN(const Reply reply, channel_.Run(command, EmptyPassword()));
  ByteReader reader(reply.parameters);
  const auto area = TakeTpm2b(reader);
  Bytes tpm2b;
  if (area) AppendTpm2b(tpm2b, *area);
  const auto point = ParseSrkPublic(tpm2b);
  if (!point) {
    channel_.FlushQuietly(reply.handle);
    return Error(ErrorCode::kTpmSrkUntrusted, Action::kCallOperator,
                 "the TPM made a storage key other than the template's",
                 "use a path without tpm, and inspect the TPM or what stands before it");
  }
  return Srk{{reply.handle, envelope::Tpm2Name(tpm2b)}, tpm2b, *point, true, true};
}

Status StorageRoot::Persist() {
  ASSIGN_OR_RETURN(const Srk* srk, Resolve());
  if (!srk->transient) return Ok();
  ASSIGN_OR_RETURN(const std::optional<Bytes> found, ReadHandle());
  if (found) return Ok();  // another's key: left alone
  Command command{.code = kCcEvictControl,
                  .name = "TPM2_EvictControl",
                  .context = Context::kOwner,
                  .handles = {{kRhOwner, {}}, srk->entity}};
  AppendU32(command.parameters, kSrkHandle);
  RETURN_IF_ERROR(channel_.Run(command, EmptyPassword()));
  RETURN_IF_ERROR(Resolve());
  return Ok();
}

Status StorageRoot::Close() {
  if (!srk_) return Ok();
  const bool transient = srk_->transient;
  const std::uint32_t handle = srk_->entity.handle;
  srk_.reset();
  if (transient) RETURN_IF_ERROR(channel_.Flush(handle));
  return Ok();
}

bool StorageRoot::MayBeMissing(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kTpmWrongDevice:
    case ErrorCode::kTpmSrkUntrusted:
    case ErrorCode::kTpmFailure:
    case ErrorCode::kTpmReset:
    case ErrorCode::kAnchorMissing:
    case ErrorCode::kAgentKeyUnavailable: return error.native_domain() == "TPM_RC";
    default: return false;
  }
}

}  // namespace keyescrow::tpm
