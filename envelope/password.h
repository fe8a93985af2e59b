// Passwords: normalisation (what the KDF sees) and the rules for new ones. Rules bind only when a
// password is set; opening an envelope asks for nothing but NormalizePassword.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/random.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::envelope {

inline constexpr std::size_t kMaxPasswordBytes = 127;

// NormalizePassword returns UTF-8 of NFC(typed), 1–127 bytes (FORMAT.md, factor `password`).
// Errors: kPasswordInvalid with Failure::kFactor: not UTF-8, empty, or too long.
// Source: Unicode UAX #15, Normalization Form C.
Result<SecretBytes> NormalizePassword(const SecretBytes& typed);

// IsBlankText: `text` has nothing that a reader would see: blanks and separators of any script,
// controls, and what is ignorable by default (U+200B and its kin). Not for secrets: it is not
// constant in time.
bool IsBlankText(std::string_view text);

// PasswordProfile: `nist-800-63b` (SP 800-63B-4, 3.1.1.2) and `ssrs` (SQL Server Reporting
// Services' rule for its key backup).
enum class PasswordProfile : std::uint8_t { kNist80063b, kSsrs };

// ParsePasswordProfile takes "nist-800-63b" or "ssrs".
std::optional<PasswordProfile> ParsePasswordProfile(std::string_view name);
std::string_view PasswordProfileName(PasswordProfile profile);

struct PasswordRules {
  PasswordProfile profile = PasswordProfile::kNist80063b;
  std::size_t min_length = 0;  // in code points; raises the profile's own minimum, never lowers it
  bool hardware_beside = false;  // every path that the password serves also has a token or a TPM
  bool generated = false;  // it came from GeneratePassphrase with 5 words or more, this minute
  std::vector<std::string> context_names = {};    // the policy's, key's, host's and user's names
  std::vector<std::string> extra_blocklist = {};  // the policy's own list, UTF-8
};

// kMinGeneratedWords and kMinGuessesLog2: what a path with no hardware asks for.
inline constexpr unsigned kMinGeneratedWords = 5;
inline constexpr double kMinGuessesLog2 = 50;

// CheckPassword tells whether a new password, normalised, meets the rules:
//   nist-800-63b: 15 code points, or 8 with hardware_beside; no classes
//   ssrs:         8 code points, upper and lower case, a digit, a symbol; hardware_beside
//   both:         no NUL; not on the blocklist and not made of a context name, whatever the case,
//   common
//                 substitutions (@ for a) and digits or symbols around it; without hardware_beside
//                 also 2^50 guesses by zxcvbn's estimate, unless `generated`
// Takes about a millisecond for zxcvbn. Errors: kPasswordWeak, whose message lists all that is
// missing and never shows the password; as EstimateGuessesLog2.
Status CheckPassword(const SecretBytes& nfc_password, const PasswordRules& rules);

// EstimateGuessesLog2 is zxcvbn's estimate in bits; context names count as known words.
// Errors: kUnsupportedHere when libzxcvbn.so.0 is not installed; as SecretBytes::Allocate.
Result<double> EstimateGuessesLog2(const SecretBytes& nfc_password,
                                   const std::vector<std::string>& context_names);

// GeneratePassphrase returns `num_words` (5–12) lower-case words joined by "-", each uniform out
// of 2048 (11 bits a word). Errors: kUsage for another number; as RandomSource::Fill.
Result<SecretBytes> GeneratePassphrase(RandomSource& random, unsigned num_words);

}  // namespace keyescrow::envelope
