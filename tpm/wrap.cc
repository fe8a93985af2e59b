// WrapForParent: a duplicate made in software (TPM 2.0 Part 1, 22.4 and 23.3), 0 TPM commands.
#include <cstring>

#include "envelope/base/aes.h"
#include "envelope/base/hash.h"
#include "tpm/marshal.h"
#include "tpm/seal.h"
#include "tpm/tpm_factor.h"

namespace keyescrow::tpm {
namespace {

constexpr std::size_t kSeedValueBytes = 32;

// Sensitive returns TPM2B_SENSITIVE: size ‖ KEYEDHASH ‖ authValue ‖ seedValue ‖ data.
Result<SecretBytes> Sensitive(const SecretBytes& auth, const SecretBytes& seed_value,
                              const SecretBytes& data) {
  const ByteView fields[] = {auth.Expose(), seed_value.Expose(), data.Expose()};
  std::size_t size = 2 + 2;
  for (const ByteView field : fields) size += 2 + field.size();
  ASSIGN_OR_RETURN(SecretBytes sensitive, SecretBytes::Allocate(size));
  std::uint8_t* out = sensitive.ExposeMutable().data();
  const auto put = [&out](std::size_t value) {
    *out++ = static_cast<std::uint8_t>(value >> 8);
    *out++ = static_cast<std::uint8_t>(value);
  };
  put(size - 2);
  put(0x0008);
  for (const ByteView field : fields) {
    put(field.size());
    if (!field.empty()) std::memcpy(out, field.data(), field.size());
    out += field.size();
  }
  return sensitive;
}

}  // namespace

Result<envelope::Tpm2Record> WrapForParent(ByteView parent_public,
                                           const envelope::SealRequest& request,
                                           RandomSource& random) {
  RETURN_IF_ERROR(CheckSealRequest(request));
  const auto parent = ParseSrkPublic(parent_public);
  if (!parent) {
    return Error(ErrorCode::kTpmSrkUntrusted, Action::kFixInput,
                 "the other host's storage key is not of the expected kind",
                 "export it on that host anew");
  }
  if (!request.pcrs.empty()) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "an object wrapped for another host cannot be bound to PCRs: their values are not "
                 "known here",
                 "leave the PCRs out");
  }
  envelope::Tpm2Record record;
  record.host = request.host;
  record.auth = request.auth_value != nullptr;
  record.parent_public = ToBytes(parent_public);

  SecretBytes auth;
  if (record.auth) {
    ASSIGN_OR_RETURN(auth, TrimAuthValue(*request.auth_value));
  }
  ASSIGN_OR_RETURN(const SecretBytes seed_value, RandomSecret(random, kSeedValueBytes));
  // `unique` of a sealed object is H(seedValue ‖ data) (Part 1, 27.5.3.3).
  ASSIGN_OR_RETURN(const SecretBytes unique,
                   Sha256Secret({seed_value.Expose(), request.secret->Expose()}));
  record.object_public =
      SealedArea(true, record.auth, envelope::Tpm2AuthPolicy({}, {}, {}), unique.Expose());
  const Bytes name = envelope::Tpm2Name(record.object_public);

  ASSIGN_OR_RETURN(const EccSecret seed, MakeEccSecret(*parent, "DUPLICATE"));
  ASSIGN_OR_RETURN(const SecretBytes storage_key,
                   KdfA(seed.seed.Expose(), "STORAGE", name, {}, 128));
  ASSIGN_OR_RETURN(const SecretBytes integrity_key,
                   KdfA(seed.seed.Expose(), "INTEGRITY", {}, {}, 256));
  ASSIGN_OR_RETURN(SecretBytes sensitive, Sensitive(auth, seed_value, *request.secret));
  RETURN_IF_ERROR(Aes128CfbInPlace(CipherDirection::kEncrypt, storage_key.Expose(), Bytes16{},
                                   sensitive.ExposeMutable()));
  const Bytes32 integrity = HmacSha256(integrity_key.Expose(), {sensitive.Expose(), name});
  Bytes duplicate;
  AppendTpm2b(duplicate, integrity);
  AppendBytes(duplicate, sensitive.Expose());  // ciphertext by now
  AppendTpm2b(record.object_private, duplicate);
  record.seed = seed.encrypted;
  return record;
}

}  // namespace keyescrow::tpm
