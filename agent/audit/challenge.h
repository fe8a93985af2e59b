// Challenges: what an auditor asks of a drill, and a token's answer. FORMAT.md, "Challenges", is
// normative. Making one needs public keys alone; the file holds no secret, the answers that belong
// to it stay with the auditor.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/random.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/header.h"
#include "envelope/token_wrap.h"

namespace keyescrow::agent::audit {

inline constexpr std::size_t kMaxChallengeBytes = 3U << 20;
inline constexpr std::size_t kMaxDrawn = 30000;  // as many as strict JSON has values for
inline constexpr std::size_t kMaxTokenNonces = 256;

// DrawnPath: what the auditor drew: a key, or one version of it, or one path.
struct DrawnPath {
  std::string key_name;
  std::uint32_t key_version = 0;  // 0: the newest
  std::string path_id;            // "": each
  bool operator==(const DrawnPath&) const = default;
};

struct Challenge {
  Bytes32 nonce{};                            // what the drills' statements carry
  std::int64_t created = 0;                   // Unix seconds
  std::string origin;                         // of the log that it was drawn from; "": any
  std::vector<DrawnPath> drawn;               // empty: whatever is drilled
  std::vector<envelope::TokenRecord> tokens;  // a nonce each, wrapped to the token's public key
};

// FormatChallenge returns the file, with its LF. Errors: kUsage where a member is not of
// the format.
Result<std::string> FormatChallenge(const Challenge& challenge);

// ParseChallenge reads a file strictly. Errors: kUsage.
Result<Challenge> ParseChallenge(std::string_view file);

// TokenAnswer: SHA-256("keyescrow1|challenge|" ‖ nonce), of the token with this public key.
struct TokenAnswer {
  Bytes32 key_sha256{};  // of the SubjectPublicKeyInfo
  Bytes32 answer{};
  bool operator==(const TokenAnswer&) const = default;
};

// AnswerNonce answers with the nonce that the token unwrapped: 32 bytes.
Result<Bytes32> AnswerNonce(const SecretBytes& nonce);

// WrappedNonce: a fresh nonce for a token, and the answer that only the token can give.
struct WrappedNonce {
  envelope::TokenRecord record;
  TokenAnswer expected;
};

// WrapNonce wraps 32 fresh bytes to the public key: RSA-OAEP-256, or by ECDH with a fresh epk the
// bytes that come out of it. `name` and `uri` say which token is meant.
// Errors: kUsage where `spki` is no such key; kEntropyUnavailable.
Result<WrappedNonce> WrapNonce(const envelope::TokenKey& target, RandomSource& random);

// TokenAnswers: the file of answers, as the auditor keeps those that are expected, and as a drill
// writes those that the tokens gave.
struct TokenAnswers {
  Bytes32 nonce{};  // of the challenge
  std::vector<TokenAnswer> answers;
};
std::string FormatTokenAnswers(const TokenAnswers& answers);
Result<TokenAnswers> ParseTokenAnswers(std::string_view file);  // Errors: kUsage

// AnswerFaults: a sentence for each token key that gave no answer or a wrong one; one alone where
// the answers were given to another challenge. None: every expected answer was given.
std::vector<std::string> AnswerFaults(const TokenAnswers& expected, const TokenAnswers& given);

}  // namespace keyescrow::agent::audit
