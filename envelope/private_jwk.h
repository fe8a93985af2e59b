// The private JWK of a recovery key, written and read in locked memory: JSON of exactly crv, d,
// kty, x and y (RFC 7518, 6.2.2). envelope/FORMAT.md, section 10.
#pragma once

#include <optional>

#include "envelope/base/p256.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::envelope {

// WritePrivateJwk returns {"crv":"P-256","d":…,"kty":"EC","x":…,"y":…}.
Result<SecretBytes> WritePrivateJwk(const P256KeyPair& pair);

// ReadPrivateJwk returns the pair where the text is such a JWK, canonical as section 2 asks, and
// d·G is the point (x, y) that it names; else nothing. Errors: those of SecretBytes alone.
Result<std::optional<P256KeyPair>> ReadPrivateJwk(const SecretBytes& text);

}  // namespace keyescrow::envelope
