#include "tpm/session.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "envelope/base/aes.h"
#include "envelope/base/hash.h"
#include "tpm/errors.h"
#include "tpm/marshal.h"

namespace keyescrow::tpm {
namespace {

constexpr std::size_t kDigestBytes = 32;
constexpr std::size_t kAesKeyBytes = 16;

std::array<std::uint8_t, 4> BigEndian(std::uint32_t value) {
  return {static_cast<std::uint8_t>(value >> 24), static_cast<std::uint8_t>(value >> 16),
          static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value)};
}

constexpr std::uint8_t kZero[1] = {0};

// ParameterCfb runs CFB under KDFa("CFB"): key ‖ IV (Part 1, 21.3).
Status ParameterCfb(CipherDirection direction, const SecretBytes& session_value,
                    ByteView nonce_newer, ByteView nonce_older, SecretBytes& data) {
  ASSIGN_OR_RETURN(SecretBytes key_iv,
                   KdfA(session_value.Expose(), "CFB", nonce_newer, nonce_older, 256));
  const ByteView material = key_iv.Expose();
  return Aes128CfbInPlace(direction, material.first(kAesKeyBytes), material.subspan(kAesKeyBytes),
                          data.ExposeMutable());
}

}  // namespace

Result<SecretBytes> KdfA(ByteView key, std::string_view label, ByteView context_u,
                         ByteView context_v, std::uint32_t size_bits) {
  ASSIGN_OR_RETURN(SecretBytes output, SecretBytes::Allocate(size_bits / 8));
  std::size_t offset = 0;
  for (std::uint32_t counter = 1; offset < output.size(); ++counter) {
    Bytes32 block = HmacSha256(key, {BigEndian(counter), AsBytes(label), kZero, context_u,
                                     context_v, BigEndian(size_bits)});
    const std::size_t size = std::min(kDigestBytes, output.size() - offset);
    std::memcpy(output.ExposeMutable().data() + offset, block.data(), size);
    Cleanse(block.data(), block.size());
    offset += size;
  }
  return output;
}

Result<SecretBytes> KdfE(const SecretBytes& shared_x, std::string_view label, ByteView party_u,
                         ByteView party_v) {
  return Sha256Secret({BigEndian(1), shared_x.Expose(), AsBytes(label), kZero, party_u, party_v});
}

Result<EccSecret> MakeEccSecret(const P256Point& tpm_key, std::string_view label) {
  ASSIGN_OR_RETURN(const P256KeyPair ephemeral, P256KeyPair::Generate());
  ASSIGN_OR_RETURN(const SecretBytes shared_x, ephemeral.SharedX(tpm_key));
  EccSecret secret;
  ASSIGN_OR_RETURN(secret.seed, KdfE(shared_x, label, ephemeral.Public().x(), tpm_key.x()));
  Bytes point;
  AppendTpm2b(point, ephemeral.Public().x());
  AppendTpm2b(point, ephemeral.Public().y());
  AppendTpm2b(secret.encrypted, point);
  return secret;
}

Result<SecretBytes> TrimAuthValue(const SecretBytes& auth_value) {
  const ByteView bytes = auth_value.Expose();
  std::size_t size = bytes.size();
  while (size > 0 && bytes[size - 1] == 0) --size;
  return SecretBytes::CopyOf(bytes.first(size));
}

Result<AuthSession> AuthSession::Make(std::uint32_t handle, const SecretBytes& salt,
                                      const Bytes32& nonce_caller, Bytes nonce_tpm) {
  AuthSession session;
  session.handle_ = handle;
  session.nonce_caller_ = nonce_caller;
  session.nonce_tpm_ = std::move(nonce_tpm);
  if (!salt.empty()) {
    ASSIGN_OR_RETURN(session.session_key_,
                     KdfA(salt.Expose(), "ATH", session.nonce_tpm_, session.nonce_caller_, 256));
  }
  return session;
}

Status AuthSession::SetAuthValue(const SecretBytes& auth_value) {
  ASSIGN_OR_RETURN(auth_value_, TrimAuthValue(auth_value));
  return Ok();
}

Status AuthSession::BeginCommand(RandomSource& random) { return random.Fill(nonce_caller_); }

Result<SecretBytes> AuthSession::SessionValue() const {
  const SecretBytes* const parts[] = {&session_key_, &auth_value_};
  return Concatenate(parts);
}

Status AuthSession::EncryptFirstParameter(SecretBytes& contents) const {
  ASSIGN_OR_RETURN(const SecretBytes value, SessionValue());
  return ParameterCfb(CipherDirection::kEncrypt, value, nonce_caller_, nonce_tpm_, contents);
}

Result<SecretBytes> AuthSession::DecryptFirstParameter(ByteView contents) const {
  ASSIGN_OR_RETURN(const SecretBytes value, SessionValue());
  ASSIGN_OR_RETURN(SecretBytes clear, SecretBytes::CopyOf(contents));
  RETURN_IF_ERROR(ParameterCfb(CipherDirection::kDecrypt, value, nonce_tpm_, nonce_caller_, clear));
  return clear;
}

Result<Bytes32> AuthSession::CommandHmac(const Bytes32& cp_hash, std::uint8_t attributes) const {
  ASSIGN_OR_RETURN(const SecretBytes value, SessionValue());
  const std::uint8_t attribute_byte[1] = {attributes};
  return HmacSha256(value.Expose(), {cp_hash, nonce_caller_, nonce_tpm_, attribute_byte});
}

Status AuthSession::AcceptResponse(const Bytes32& rp_hash, ByteView nonce_tpm,
                                   std::uint8_t attributes, ByteView hmac) {
  ASSIGN_OR_RETURN(const SecretBytes value, SessionValue());
  const std::uint8_t attribute_byte[1] = {attributes};
  const Bytes32 expected =
      HmacSha256(value.Expose(), {rp_hash, nonce_tpm, nonce_caller_, attribute_byte});
  if (!EqualConstantTime(expected, hmac)) {
    return ResponseError("the TPM's response fails its integrity check");
  }
  nonce_tpm_ = ToBytes(nonce_tpm);
  return Ok();
}

}  // namespace keyescrow::tpm
