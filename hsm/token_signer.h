// TokenSigner: signs with a P-256 key that stays inside a PKCS#11 token (CKM_ECDSA).
#pragma once

#include <memory>
#include <optional>

#include "envelope/base/result.h"
#include "envelope/factor.h"
#include "envelope/signer.h"
#include "hsm/token_factor.h"
#include "hsm/token_info.h"
#include "hsm/worker_options.h"

namespace keyescrow::hsm {

// One worker process, one login, at the first signature. Blocking up to the options' deadlines;
// used from the thread that called Open (the worker ends when that thread does).
class TokenSigner final : public envelope::Signer {
 public:
  // Open finds the P-256 key of `spec.spki`, or, where that is empty, the only one that `spec.uri`
  // matches on the only token that it matches. It logs in where the token hides its public keys
  // alone. `pins` outlives the signer. Errors: kInvalidUri, kTokenNotFound, kTokenAmbiguous,
  // kTokenKeyNotFound, kTokenKeyAmbiguous, kTokenKeyUsage (`spki` is no P-256 key), as LogIn.
  static Result<std::unique_ptr<TokenSigner>> Open(TokenSpec spec, envelope::PinProvider& pins,
                                                   const TokenWorkerOptions& options = {});
  ~TokenSigner() override;  // logs out, ends and reaps the worker; blocks for at most a second

  const P256Point& PublicKey() const override;

  // SignDigest logs in, once, and lets the token sign; what it returns verifies by PublicKey.
  // After a failure the session is not used again: the first error is repeated, no PIN is.
  // Errors: as LogIn, kTokenKeyNotFound, kTokenKeyUsage, kTokenMechanism, by CKR; kTokenVendor
  // where the signature does not verify.
  Result<Bytes64> SignDigest(const Bytes32& digest) override;

  const TokenInfo& token() const;

 private:
  class Impl;
  explicit TokenSigner(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace keyescrow::hsm
