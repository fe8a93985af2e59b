#include "tpm/agent_key.h"

#include <algorithm>

#include "tpm/device_impl.h"
#include "tpm/marshal.h"
#include "tpm/seal.h"

namespace keyescrow::tpm {
namespace {

// TPMT_PUBLIC up to `unique`: ECC, SHA-256, fixedTPM|fixedParent|sensitiveDataOrigin|userWithAuth|
// noDA|sign, no policy, symmetric NULL, ECDSA with SHA-256, P-256, kdf NULL. Not restricted: it
// signs digests made outside; so nobody may accept an attestation by it.
constexpr std::uint8_t kArea[] = {0x00, 0x23, 0x00, 0x0b, 0x00, 0x04, 0x04, 0x72, 0x00, 0x00,
                                  0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10};
constexpr std::size_t kPublicBytes = 2 + sizeof(kArea) + 2 * 34;
constexpr std::size_t kAuthBytes = 32;

std::optional<P256Point> ParsePublic(ByteView tpm2b_public) {
  ByteReader reader(tpm2b_public);
  const auto size = reader.TakeU16();
  const auto area = reader.Take(sizeof(kArea));
  if (tpm2b_public.size() != kPublicBytes || !size || *size != kPublicBytes - 2 || !area ||
      !std::equal(area->begin(), area->end(), std::begin(kArea))) {
    return std::nullopt;
  }
  const auto x = TakeTpm2b(reader);
  const auto y = TakeTpm2b(reader);
  if (!x || !y || x->size() != 32 || y->size() != 32) return std::nullopt;
  return P256Point::FromXy(*x, *y);
}

Result<Bytes64> ParseSignature(ByteView parameters) {
  ByteReader reader(parameters);
  const auto signature = TakeEcdsaSignature(reader);
  if (!signature || !reader.AtEnd()) {
    return ResponseError("the TPM's response to TPM2_Sign does not parse");
  }
  return *signature;
}

}  // namespace

struct TpmAgentKey::Impl {
  std::shared_ptr<Device> device;
  AgentKeyBlob blob;
  SecretBytes auth;
  P256Point point;
  bool last = false;
  std::optional<Entity> loaded{};
  std::optional<AuthSession> session{};

  CommandChannel& channel() { return device->impl().channel(); }
  Status Prepare();
  Result<Bytes64> Sign(const Bytes32& digest, bool is_last);
  Status Close();
};

// Prepare puts the key and an HMAC session into the TPM. The session is unsalted: its HMAC key is
// the auth value of 256 random bits, which no listener guesses.
Status TpmAgentKey::Impl::Prepare() {
  if (!loaded) {
    ASSIGN_OR_RETURN(loaded, device->impl().root().With([&](const Srk& srk) {
      return LoadObject(channel(), srk, blob.object_public, blob.object_private,
                        Context::kAgentKey);
    }));
  }
  if (!session) {
    ASSIGN_OR_RETURN(AuthSession started,
                     channel().StartSession(SessionType::kHmac, nullptr, nullptr));
    session.emplace(std::move(started));
    RETURN_IF_ERROR(session->SetAuthValue(auth));
  }
  return Ok();
}

Result<Bytes64> TpmAgentKey::Impl::Sign(const Bytes32& digest, bool is_last) {
  RETURN_IF_ERROR(Prepare());
  Command command{
      .code = kCcSign, .name = "TPM2_Sign", .context = Context::kAgentKey, .handles = {*loaded}};
  AppendTpm2b(command.parameters, digest);
  AppendU16(command.parameters, 0x0010);  // the key's own scheme
  AppendU16(command.parameters, 0x8024);  // TPM_ST_HASHCHECK, NULL ticket: the key is unrestricted
  AppendU32(command.parameters, kRhNull);
  AppendTpm2b(command.parameters, {});
  ASSIGN_OR_RETURN(
      const Reply reply,
      channel().Run(command, {.session = &*session,
                              .attributes = is_last ? std::uint8_t{0} : kContinueSession}));
  if (is_last) session.reset();
  return ParseSignature(reply.parameters);
}

Status TpmAgentKey::Impl::Close() {
  Status result = Ok();
  if (session) {
    const std::uint32_t handle = session->handle();
    session.reset();
    result = channel().Flush(handle);
  }
  if (loaded) {
    const std::uint32_t handle = loaded->handle;
    loaded.reset();
    Status flushed = channel().Flush(handle);
    if (result) result = std::move(flushed);
  }
  return result;
}

TpmAgentKey::TpmAgentKey(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

TpmAgentKey::~TpmAgentKey() {
  if (auto closed = Close(); !closed) return;  // the TPM is gone: so is what it held
}

Result<AgentKeyBlob> TpmAgentKey::Create(Device& device, const SecretBytes& auth) {
  if (auth.size() != kAuthBytes) {
    return Error(ErrorCode::kInternal, Action::kReportBug,
                 "an agent key's auth value must have 32 bytes", "report this bug");
  }
  Bytes area = ToBytes(kArea);
  AppendTpm2b(area, {});
  AppendTpm2b(area, {});
  Bytes in_public;
  AppendTpm2b(in_public, area);
  ASSIGN_OR_RETURN(const CreatedObject created, device.impl().root().With([&](const Srk& srk) {
    return CreateObject(device.impl().channel(), srk, &auth, nullptr, in_public);
  }));
  if (!ParsePublic(created.object_public)) {
    return ResponseError("the TPM made another key than the one asked for");
  }
  return AgentKeyBlob{created.object_public, created.object_private};
}

Result<std::unique_ptr<TpmAgentKey>> TpmAgentKey::Open(std::shared_ptr<Device> device,
                                                       AgentKeyBlob blob, SecretBytes auth) {
  const auto point = ParsePublic(blob.object_public);
  if (!point || auth.size() != kAuthBytes || blob.object_private.size() < 3) {
    return Error(ErrorCode::kAgentKeyUnavailable, Action::kCheckSystemState,
                 "the stored agent key is not a TPM key of the expected kind",
                 "restore the agent's state from its backup");
  }
  auto impl =
      std::make_unique<Impl>(Impl{std::move(device), std::move(blob), std::move(auth), *point});
  return std::unique_ptr<TpmAgentKey>(new TpmAgentKey(std::move(impl)));
}

const P256Point& TpmAgentKey::PublicKey() const { return impl_->point; }

Result<Bytes64> TpmAgentKey::SignDigest(const Bytes32& digest) {
  const bool is_last = std::exchange(impl_->last, false);
  const bool held_before = impl_->loaded.has_value();
  auto signature = impl_->Sign(digest, is_last);
  if (!signature) {
    const Error error = signature.error();
    if (auto closed = impl_->Close(); !closed && !held_before) return error;
    // A key held over a reset of the TPM is loaded anew, once; its auth has no try counter.
    if (!held_before || error.code() != ErrorCode::kTpmReset) return error;
    signature = impl_->Sign(digest, is_last);
    if (!signature) {
      const Error again = signature.error();
      if (auto closed = impl_->Close(); !closed) return again;
      return again;
    }
  }
  if (is_last) {
    // The signature is made: a key that cannot be flushed went with its TPM.
    if (auto closed = impl_->Close(); !closed) return signature;
  }
  return signature;
}

void TpmAgentKey::NextIsLast() { impl_->last = true; }

Status TpmAgentKey::Close() { return impl_->Close(); }

}  // namespace keyescrow::tpm
