// Policy: what a security team writes and signs (agent/docs/POLICY.md). Here it is read, strictly:
// an unknown key is an error that names line, column and the nearest known word, and two rules that
// no set of paths can satisfy together are refused. Pure: no file, no clock, no device.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"
#include "envelope/password.h"
#include "envelope/path_expression.h"
#include "envelope/signed_note.h"

namespace keyescrow::agent::policy {

inline constexpr std::string_view kAgentVersion = KEYESCROW_VERSION;
inline constexpr std::size_t kMaxPolicyBytes = 256 * 1024;
inline constexpr std::size_t kMaxRules = 256;
inline constexpr std::size_t kMaxSigners = 16;

// Mode: in kReport a policy finds and refuses nothing.
enum class Mode : std::uint8_t { kReport, kEnforce };
std::string_view ModeName(Mode mode);  // "report", "enforce"

// Simulators: swtpm and SoftHSM. kReported makes them a warning.
enum class Simulators : std::uint8_t { kForbidden, kReported, kAllowed };

// Assurance of a token's key, from the least: its keys are files; the module says that it cannot be
// exported; the maker attests it.
enum class Assurance : std::uint8_t { kSoftware, kAsserted, kAttested };
std::string_view AssuranceName(Assurance assurance);  // "software", "asserted", "attested"

// Signers: `threshold` of `keys` must sign. No key stands in it twice, under whatever name.
struct Signers {
  std::size_t threshold = 0;
  std::vector<envelope::NoteKey> keys;
};

// PasswordRule: a named profile, [passwords.NAME].
struct PasswordRule {
  std::string name;
  envelope::PasswordProfile profile = envelope::PasswordProfile::kNist80063b;
  std::size_t min_length = 0;
  std::string blocklist;  // a file's name, beside the policy; "" for none
  Bytes32 blocklist_sha256{};
};

struct TokenPin {
  std::string name;
  Bytes32 spki_sha256{};
  Assurance assurance = Assurance::kAttested;
};

struct RecoveryKeyPin {
  std::string name;
  std::string public_thumbprint;  // RFC 7638
};

struct KdfMinima {
  std::optional<std::uint32_t> argon2id_memory_kib;
  std::optional<std::uint32_t> argon2id_passes;
  std::optional<std::uint32_t> pbkdf2_iterations;
};

// Rule: what the keys that it matches must be. Durations are seconds.
struct Rule {
  std::string name;
  std::string match;         // NamePatternMatches
  std::uint32_t line = 0;    // in the policy's text
  std::optional<Mode> mode;  // none: the policy's
  std::int64_t grace_s = 0;
  std::vector<envelope::PathExpression> require;
  std::vector<envelope::PathExpression> forbid;
  std::string password_profile;  // of PasswordRule, "nist-800-63b", "ssrs" or ""
  std::size_t survive = 0;
  std::size_t withstand = 0;
  bool portable = false;
  KdfMinima kdf;
  bool fips = false;
  std::optional<std::int64_t> drill_every_s;
  std::vector<std::string> drill_paths;  // path ids; empty: every path
  std::optional<std::int64_t> rotate_every_s;
  std::optional<std::int64_t> rotate_after_restore_s;
  bool reason_required = false;
  std::string ticket;  // a POSIX extended regular expression, or ""
};

struct Exception {
  std::string key;   // pattern
  std::string host;  // "": any
  std::string rule;
  std::int64_t until = 0;
  std::string reason;
};

struct Policy {
  std::string name;
  std::uint64_t serial = 0;  // 0: the built-in one
  Mode mode = Mode::kEnforce;
  std::string min_agent_version;
  std::optional<std::int64_t> expires;
  Simulators simulators = Simulators::kForbidden;
  std::optional<Signers> signers;  // none: those before stay
  std::vector<PasswordRule> passwords;
  std::vector<TokenPin> tokens;
  std::vector<RecoveryKeyPin> recovery_keys;
  std::vector<Rule> rules;
  std::vector<Exception> exceptions;
  Bytes32 sha256{};  // of the text

  // FindRule, FindPassword return null where there is none of that name.
  const Rule* FindRule(std::string_view rule_name) const;
  const PasswordRule* FindPassword(std::string_view password_name) const;
  Mode ModeOf(const Rule& rule) const { return rule.mode.value_or(mode); }
};

// ParsePolicy reads a policy; `file` names it in messages. Errors: kPolicyInvalid;
// kPolicyNewerAgent where min_agent_version is above `agent_version`: it comes before what this
// version does not know.
Result<Policy> ParsePolicy(std::string_view text, const std::string& file,
                           std::string_view agent_version = kAgentVersion);

// ParsePolicyHead reads of a policy that this version cannot read what its signature covers: name,
// serial, min_agent_version and the hash of the text. Errors: kPolicyInvalid.
Result<Policy> ParsePolicyHead(std::string_view text, const std::string& file);

// BuiltinPolicy holds where none was set: `builtin-1`, serial 0.
const Policy& BuiltinPolicy();
// BuiltinPolicyText is its text, as ParsePolicy reads it but for the serial.
std::string_view BuiltinPolicyText();

// CheckContradictions refuses what no key can meet: two rules that no set of paths can satisfy
// together, and costs that no envelope can hold, where their patterns have a name in common. For a
// policy that is to be signed or set; one that was set already holds as it is. Errors:
// kPolicyContradiction, naming the two rules; kPolicyInvalid for one rule's costs, and for a
// `match` of more than kMaxStars stars.
inline constexpr std::size_t kMaxStars = 16;
Status CheckContradictions(const Policy& policy, const std::string& file);

// PatternsMeet: some name matches both patterns.
bool PatternsMeet(std::string_view left, std::string_view right);

// TicketMatches: `ticket` matches the rule's expression. A policy that was parsed has none that
// does not compile.
bool TicketMatches(const std::string& expression, const std::string& ticket);
// CheckTicketExpression says what is wrong with one, or "". Back-references and repeated groups are
// refused: their cost has no bound.
std::string CheckTicketExpression(const std::string& expression);

// ParseDuration reads "90d" and its kin (s, m, h, d, w) as seconds: at least 1, at most 100 years.
std::optional<std::int64_t> ParseDuration(std::string_view text);
// FormatDuration is its inverse, in the largest unit that divides it.
std::string FormatDuration(std::int64_t seconds);

}  // namespace keyescrow::agent::policy
