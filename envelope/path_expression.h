// Path expressions: how people write a recovery path, e.g. `password & token:ops`.
//
//   option     = [ID "="] expression
//   expression = "recovery-key:" NAME | factor {"&" factor}          1–4 factors
//   factor     = "password" | "tpm" [":" HOST] | "token:" NAME | shares
//   shares     = K "of" "(" "token:" NAME {"," "token:" NAME} ")"    2 ≤ K ≤ members ≤ 16
//   NAME, HOST = [A-Za-z0-9._-]{1,64}      ID = [A-Za-z0-9._-]{1,16}
//
// Blanks may stand between words; K has no leading zero. At most one of password, tpm and shares;
// no token twice in one expression, members included. Words are lower case, names as they stand.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/result.h"

namespace keyescrow::envelope {

// FactorKind, in the order in which FORMAT.md has the factors of a path.
enum class FactorKind : std::uint8_t { kToken, kShares, kPassword, kTpm, kRecoveryKey };

struct FactorTerm {
  FactorKind kind = FactorKind::kPassword;
  std::string name;                  // token's, TPM's host ("": this host's) or recovery key's name
  unsigned threshold = 0;            // kShares: 2..members.size()
  std::vector<std::string> members;  // kShares: token names, 2–16, sorted

  bool operator==(const FactorTerm&) const = default;
};

// PathExpression is canonical: factors in FORMAT.md's order, tokens and members sorted by name, so
// that two expressions with one meaning are equal.
struct PathExpression {
  std::vector<FactorTerm> factors;  // 1–4; a recovery key stands alone

  bool Has(FactorKind kind) const;
  // NeedsTpm is true for a path that is not portable.
  bool NeedsTpm() const { return Has(FactorKind::kTpm); }
  // HasHardware: a token, shares of tokens or a TPM stands beside the password. A recovery key
  // counts as neither: its own path decides.
  bool HasHardware() const;
  bool operator==(const PathExpression&) const = default;
};

// ParsePathExpression reads one expression. Errors: kInvalidPath with the column (from 1) and the
// nearest word that is known.
Result<PathExpression> ParsePathExpression(std::string_view text);

// FormatPathExpression returns the canonical text, e.g. "token:ops & password",
// "2 of (token:alice, token:bob) & password". Parsing it gives an equal expression.
std::string FormatPathExpression(const PathExpression& expression);

// DefaultPathId joins the factors but the password with "-": token:ops gives "token-ops", tpm:db1
// "tpm-db1", 2 of 3 tokens "2of3", recovery-key:x "recovery-key-x"; "password" when alone.
// An id over 16 characters becomes its first 11, "-" and the first 4 hex digits of the SHA-256 of
// the whole id: stable for ever, and distinct where the cut names are.
std::string DefaultPathId(const PathExpression& expression);

struct PathOption {
  std::string id;  // given, or DefaultPathId
  PathExpression expression;
};

// ParsePathOption reads "[ID=]EXPR". Errors: kInvalidPath; columns count from the option's start.
Result<PathOption> ParsePathOption(std::string_view text);

// ParsePathOptions reads all of a key's paths: 1–16, and their ids must differ.
// Errors: kInvalidPath.
Result<std::vector<PathOption>> ParsePathOptions(std::span<const std::string> texts);

// IsPathId: [A-Za-z0-9._-]{1,16}.
bool IsPathId(std::string_view text);

}  // namespace keyescrow::envelope
