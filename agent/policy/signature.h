// A policy's signature: `policy.toml.sig`, a C2SP signed note whose text is four lines.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "agent/policy/policy.h"

namespace keyescrow::agent::policy {

// SignedText returns `keyescrow-policy/1`, the name, the serial and the standard base64 of the
// file's SHA-256, a line each.
std::string SignedText(const Policy& policy);

// AddSignature returns `note` with one more line; a line of the same key is replaced. A note over
// another text, or none, is begun anew. `line` is what SignLine… returned for SignedText.
std::string AddSignature(const Policy& policy, std::string_view note, const std::string& line);

// SignerNames lists whose lines the note has over that very text, verified or not, each name once.
std::vector<std::string> SignerNames(const Policy& policy, std::string_view note);

// SignerLines: whose signature of that very text verifies by one of the keys, and the names on the
// lines that none of them verifies: anybody can have written these.
struct SignerLines {
  std::vector<std::string> verified;
  std::vector<std::string> unverified;
};
SignerLines ReadSignerLines(const Policy& policy, std::string_view note,
                            const std::vector<envelope::NoteKey>& keys);

// VerifySignature holds `note` against the policy and the signers that count.
// Errors: kPolicyUnsigned where nobody signed this text; kPolicySignature where the note is over
// another text or a signer's line does not verify; kPolicySigners where too few of the signers
// signed, naming those that did.
Status VerifySignature(const Policy& policy, std::string_view note, const Signers& signers);

// FormatSigners and ParseSigners: the threshold and a verifier key a line.
std::string FormatSigners(const Signers& signers);
std::optional<Signers> ParseSigners(std::string_view text);

}  // namespace keyescrow::agent::policy
