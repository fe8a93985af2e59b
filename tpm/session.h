// AuthSession: the session maths of TPM 2.0 Part 1 (clauses 11.4.10, 19, 21 and annex C.6): key
// derivation, HMAC over command and response, encryption of the first parameter. No device.
#pragma once

#include <cstdint>
#include <string_view>

#include "envelope/base/bytes.h"
#include "envelope/base/p256.h"
#include "envelope/base/random.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::tpm {

// KdfA with SHA-256 (Part 1, 11.4.10.2): `size_bits` a multiple of 8. The label is hashed with its
// terminating zero.
Result<SecretBytes> KdfA(ByteView key, std::string_view label, ByteView context_u,
                         ByteView context_v, std::uint32_t size_bits);

// KdfE with SHA-256, 256 bits (Part 1, 11.4.10.3): `shared_x` is the x coordinate of the ECDH
// point.
Result<SecretBytes> KdfE(const SecretBytes& shared_x, std::string_view label, ByteView party_u,
                         ByteView party_v);

// EccSecret: a secret shared with the holder of a P-256 key in the TPM (Part 1, C.6.1).
struct EccSecret {
  SecretBytes seed;  // 32 bytes
  Bytes encrypted;   // TPM2B_ENCRYPTED_SECRET with the ephemeral point, 70 bytes
};
// Label "SECRET" for session salts, "DUPLICATE" for the seed of a duplicate.
Result<EccSecret> MakeEccSecret(const P256Point& tpm_key, std::string_view label);

// TrimAuthValue drops trailing zero bytes, as the TPM does (Part 1, 17.6.4.3, "authValue").
Result<SecretBytes> TrimAuthValue(const SecretBytes& auth_value);

// AuthSession: one HMAC or policy session, from StartAuthSession to its end.
class AuthSession {
 public:
  // `salt` is empty for an unsalted session, whose HMAC key is then the auth value alone.
  static Result<AuthSession> Make(std::uint32_t handle, const SecretBytes& salt,
                                  const Bytes32& nonce_caller, Bytes nonce_tpm);
  std::uint32_t handle() const { return handle_; }

  // SetAuthValue sets the auth value of the entity that the session authorises, trimmed.
  Status SetAuthValue(const SecretBytes& auth_value);

  // BeginCommand draws the next nonceCaller.
  Status BeginCommand(RandomSource& random);
  // EncryptFirstParameter transforms the contents of the first TPM2B in place.
  Status EncryptFirstParameter(SecretBytes& contents) const;
  // CommandHmac for cpHash and the session attributes.
  Result<Bytes32> CommandHmac(const Bytes32& cp_hash, std::uint8_t attributes) const;

  // AcceptResponse takes the new nonceTPM and checks the response's HMAC, in constant time.
  // Errors: kTpmResponse.
  Status AcceptResponse(const Bytes32& rp_hash, ByteView nonce_tpm, std::uint8_t attributes,
                        ByteView hmac);
  // DecryptFirstParameter returns the contents in clear.
  Result<SecretBytes> DecryptFirstParameter(ByteView contents) const;

  const Bytes32& nonce_caller() const { return nonce_caller_; }

 private:
  AuthSession() = default;
  Result<SecretBytes> SessionValue() const;  // sessionKey ‖ authValue

  std::uint32_t handle_ = 0;
  SecretBytes session_key_;
  SecretBytes auth_value_;
  Bytes32 nonce_caller_{};
  Bytes nonce_tpm_;
};

}  // namespace keyescrow::tpm
