// TokenSigning: what Devices also are where a host can sign notes with keys on PKCS#11 tokens.
#pragma once

#include <memory>

#include "agent/usecases/devices.h"
#include "envelope/base/result.h"
#include "envelope/factor.h"
#include "envelope/signer.h"

namespace keyescrow::agent {

// TokenSigner: a P-256 key on a token that signs notes.
struct TokenSigner {
  std::unique_ptr<envelope::Signer> signer;
  TokenFacts token;
};

class TokenSigning {
 public:
  virtual ~TokenSigning() = default;
  // OpenTokenSigner finds the P-256 key of spec.spki, or where that is empty the only one that
  // spec.uri matches. It logs in at the first signature, or where the token hides its public keys.
  // `pins` outlives the signer. Errors: kToken*, kModule*, kInvalidUri, the login's.
  virtual Result<TokenSigner> OpenTokenSigner(const TokenSpec& spec,
                                              envelope::PinProvider& pins) = 0;
};

}  // namespace keyescrow::agent
