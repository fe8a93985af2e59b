// Officers' shares: a factor's secret S, split so that any `threshold` of its officers give it
// back, each by a token, and fewer learn nothing of it.
//
// Shamir's scheme, byte by byte over GF(2^8) with the polynomial 0x11d: S stands at x = 0, the
// share of the officer with index i at x = i. There are no tables, and neither time nor memory
// access depends on a secret. Records and labels: envelope/FORMAT.md, "shares" and section 7.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "envelope/base/random.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/header.h"
#include "envelope/token_wrap.h"

namespace keyescrow::envelope {

struct Share {
  std::uint32_t index = 0;  // x: 1..16
  SecretBytes bytes;        // y: as long as the secret
};

// SplitSecret draws threshold - 1 coefficients from `random`, that of x first, each as long as the
// secret, and returns the shares 1..num_shares. 2 <= threshold <= num_shares <= 16.
// Errors: kEntropyUnavailable.
Result<std::vector<Share>> SplitSecret(const SecretBytes& secret, std::uint32_t threshold,
                                       std::uint32_t num_shares, RandomSource& random);

// CombineShares returns what stands at x = 0 on the curve through all of `shares`: the secret where
// they are `threshold` of its shares. At least one; their indices differ, their sizes do not.
Result<SecretBytes> CombineShares(std::span<const Share> shares);

// ShareCommitment is what a member's `commitment` must be; `binding` is B (PathBinding).
Bytes32 ShareCommitment(std::string_view binding, std::uint32_t index, const SecretBytes& share);

struct EnrolledShares {
  SharesRecord record;
  SecretBytes secret;  // S, 32 bytes
};

// EnrollShares makes a fresh S and wraps its shares to the members' tokens, which need not be at
// hand: member i has index i and its token's name. Everything in it is fresh at each call.
// Errors: kFactorBad where a key is no RSA or P-256 key; kEntropyUnavailable, kCryptoLibrary.
Result<EnrolledShares> EnrollShares(std::string_view binding, std::uint32_t threshold,
                                    std::span<const TokenKey> members, RandomSource& random);

// OpenShare returns a member's share from what its token gave (TokenFactor's secret).
// Errors: kFactorBad (Failure::kFactor) where it is not the share that was committed to: the token
// gave something else, or the envelope's maker dealt a bad share.
Result<Share> OpenShare(const ShareMember& member, std::string_view binding,
                        const SecretBytes& token_secret);

}  // namespace keyescrow::envelope
