#include "tpm/seal.h"

#include <cstring>

#include "tpm/marshal.h"

namespace keyescrow::tpm {
namespace {

constexpr std::uint32_t kFixedTpmFixedParent = 0x12;  // TPMA_OBJECT
constexpr std::uint32_t kNoDa = 0x400;
constexpr std::size_t kMaxSealedBytes = 128;
constexpr std::size_t kUniqueBytes = 32;

// SensitiveCreate returns the contents of TPM2B_SENSITIVE_CREATE: userAuth and data as TPM2Bs.
Result<SecretBytes> SensitiveCreate(const SecretBytes* auth, const SecretBytes* data) {
  SecretBytes trimmed;
  if (auth != nullptr) {
    ASSIGN_OR_RETURN(trimmed, TrimAuthValue(*auth));
  }
  const ByteView fields[] = {trimmed.Expose(), data != nullptr ? data->Expose() : ByteView()};
  ASSIGN_OR_RETURN(SecretBytes contents,
                   SecretBytes::Allocate(4 + fields[0].size() + fields[1].size()));
  std::uint8_t* out = contents.ExposeMutable().data();
  for (const ByteView field : fields) {
    *out++ = static_cast<std::uint8_t>(field.size() >> 8);
    *out++ = static_cast<std::uint8_t>(field.size());
    if (!field.empty()) std::memcpy(out, field.data(), field.size());
    out += field.size();
  }
  return contents;
}

}  // namespace

Status CheckSealRequest(const envelope::SealRequest& request) {
  const bool secret_good = request.secret != nullptr && !request.secret->empty() &&
                           request.secret->size() <= kMaxSealedBytes;
  const bool auth_good = request.auth_value == nullptr || request.auth_value->size() == 32;
  if (secret_good && auth_good) return Ok();
  return Error(ErrorCode::kInternal, Action::kReportBug,
               "a seal was asked for with a secret or auth value of a wrong size",
               "report this bug");
}

Bytes SealedArea(bool portable, bool has_auth, const Bytes32& policy, ByteView unique) {
  Bytes area;
  AppendU16(area, 0x0008);  // KEYEDHASH
  AppendU16(area, 0x000b);  // SHA-256
  AppendU32(area, (portable ? 0 : kFixedTpmFixedParent) | (has_auth ? 0 : kNoDa));
  AppendTpm2b(area, policy);
  AppendU16(area, 0x0010);  // scheme NULL
  AppendTpm2b(area, unique);
  Bytes tpm2b;
  AppendTpm2b(tpm2b, area);
  return tpm2b;
}

Result<CreatedObject> CreateObject(CommandChannel& channel, const Srk& srk, const SecretBytes* auth,
                                   const SecretBytes* data, ByteView in_public) {
  ASSIGN_OR_RETURN(SecretBytes sensitive, SensitiveCreate(auth, data));
  ASSIGN_OR_RETURN(AuthSession session,
                   channel.StartSession(SessionType::kHmac, &srk.entity, &srk.point));
  Command command{.code = kCcCreate,
                  .name = "TPM2_Create",
                  .context = Context::kSrk,
                  .handles = {srk.entity},
                  .secret_parameter = &sensitive};
  command.parameters = ToBytes(in_public);
  AppendTpm2b(command.parameters, {});  // outsideInfo
  AppendU32(command.parameters, 0);     // no creation PCRs
  // No continueSession: the TPM ends the session with this command.
  auto reply =
      channel.Run(command, {.session = &session, .attributes = kDecryptCommand | kEncryptResponse});
  if (!reply) {
    channel.FlushQuietly(session.handle());
    return std::move(reply).error();
  }
  ByteReader reader(reply->parameters);
  const auto object_private = TakeTpm2b(reader);
  const auto object_public = TakeTpm2b(reader);
  if (!object_private || !object_public) {
    return ResponseError("the TPM's response to TPM2_Create does not parse");
  }
  ASSIGN_OR_RETURN(const SecretBytes clear, session.DecryptFirstParameter(*object_private));
  CreatedObject created;
  AppendTpm2b(created.object_private, clear.Expose());
  AppendTpm2b(created.object_public, *object_public);
  return created;
}

Result<envelope::Tpm2Record> SealObject(Device::Impl& device,
                                        const envelope::SealRequest& request) {
  RETURN_IF_ERROR(CheckSealRequest(request));
  envelope::Tpm2Record record;
  record.host = request.host;
  record.auth = request.auth_value != nullptr;
  record.pcrs = envelope::FormatPcrSelection(request.pcrs);
  if (!request.pcrs.empty()) {
    ASSIGN_OR_RETURN(record.pcr_digest, device.PcrDigest(request.pcrs));
  }
  const Bytes32 policy = envelope::Tpm2AuthPolicy(request.pcrs, record.pcr_digest, {});
  const Bytes in_public = SealedArea(false, record.auth, policy, {});
  ASSIGN_OR_RETURN(
      const CreatedObject created, device.root().With([&](const Srk& srk) -> Result<CreatedObject> {
        record.parent_public = srk.tpm2b_public;
        return CreateObject(device.channel(), srk, request.auth_value, request.secret, in_public);
      }));
  // Whatever stands between us and the TPM, the object must be the one that was asked for.
  const ByteView made = created.object_public;
  const Bytes expected =
      SealedArea(false, record.auth, policy, made.last(std::min(kUniqueBytes, made.size())));
  if (created.object_public != expected) {
    return ResponseError("the TPM made another object than the one asked for");
  }
  record.object_public = created.object_public;
  record.object_private = created.object_private;
  return record;
}

Result<Entity> LoadObject(CommandChannel& channel, const Srk& srk, ByteView tpm2b_public,
                          ByteView tpm2b_private, Context context) {
  Command command{.code = kCcLoad,
                  .name = "TPM2_Load",
                  .context = context,
                  .handles = {srk.entity},
                  .returns_handle = true};
  command.parameters = ToBytes(tpm2b_private);
  AppendBytes(command.parameters, tpm2b_public);
  ASSIGN_OR_RETURN(const Reply reply, channel.Run(command, EmptyPassword()));
  Entity entity{reply.handle, envelope::Tpm2Name(tpm2b_public)};
  ByteReader reader(reply.parameters);
  const auto name = TakeTpm2b(reader);
  if (!name || ToBytes(*name) != entity.name) {
    channel.FlushQuietly(reply.handle);
    return ResponseError("the TPM loaded another object than the one given");
  }
  return entity;
}

}  // namespace keyescrow::tpm
