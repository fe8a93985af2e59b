#include "agent/policy/policy.h"

#include <fmt/format.h>
#include <regex.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <deque>

#include "agent/policy/version.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent::policy {
namespace {

struct Unit {
  char letter;
  std::int64_t seconds;
};
// From the largest, for FormatDuration.
constexpr Unit kUnits[] = {{'w', 604800}, {'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
constexpr std::int64_t kMaxDuration = std::int64_t{36525} * 86400;

std::optional<std::array<std::uint32_t, 3>> ParseVersion(std::string_view text) {
  std::array<std::uint32_t, 3> numbers{};
  for (std::uint32_t& number : numbers) {
    const char* const end = text.data() + text.size();
    const auto [rest, error] = std::from_chars(text.data(), end, number);
    if (error != std::errc()) return std::nullopt;
    if (rest == end) return numbers;
    if (*rest != '.') return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(rest - text.data()) + 1);
  }
  return std::nullopt;
}

// Glob: one element of a name pattern.
struct Glob {
  char literal = 0;  // 0: a star
  bool across = false;
};

std::vector<Glob> ParseGlobs(std::string_view pattern) {
  std::vector<Glob> globs;
  for (std::size_t at = 0; at < pattern.size(); ++at) {
    if (pattern[at] != '*') {
      globs.push_back({pattern[at], false});
      continue;
    }
    const bool across = pattern.substr(at).starts_with("**");
    if (across) ++at;
    globs.push_back({0, across});
  }
  return globs;
}

// Meets: some character can be consumed by both.
bool Meets(const Glob& left, const Glob& right) {
  if (left.literal != 0 && right.literal != 0) return left.literal == right.literal;
  const Glob& star = left.literal == 0 ? left : right;
  const Glob& other = left.literal == 0 ? right : left;
  return other.literal != '/' || star.across;
}

class CompiledTicket {
 public:
  explicit CompiledTicket(const std::string& expression)
      : error_(regcomp(&compiled_, expression.c_str(), REG_EXTENDED | REG_NOSUB)) {}
  CompiledTicket(const CompiledTicket&) = delete;
  CompiledTicket& operator=(const CompiledTicket&) = delete;
  ~CompiledTicket() {
    if (ok()) regfree(&compiled_);
  }
  bool ok() const { return error_ == 0; }
  bool Matches(const std::string& text) const {
    return regexec(&compiled_, text.c_str(), 0, nullptr, 0) == 0;
  }

 private:
  regex_t compiled_{};
  int error_;
};

}  // namespace

std::string_view ModeName(Mode mode) { return mode == Mode::kEnforce ? "enforce" : "report"; }

std::string_view AssuranceName(Assurance assurance) {
  switch (assurance) {
    case Assurance::kSoftware: return "software";
    case Assurance::kAsserted: return "asserted";
    case Assurance::kAttested: return "attested";
  }
  return "software";
}

const Rule* Policy::FindRule(std::string_view rule_name) const {
  const auto found = std::find_if(rules.begin(), rules.end(),
                                  [&](const Rule& rule) { return rule.name == rule_name; });
  return found == rules.end() ? nullptr : &*found;
}

const PasswordRule* Policy::FindPassword(std::string_view password_name) const {
  const auto found =
      std::find_if(passwords.begin(), passwords.end(),
                   [&](const PasswordRule& rule) { return rule.name == password_name; });
  return found == passwords.end() ? nullptr : &*found;
}

bool IsVersion(std::string_view text) { return ParseVersion(text).has_value(); }

bool IsOlder(std::string_view version, std::string_view than) {
  const auto left = ParseVersion(version);
  const auto right = ParseVersion(than);
  return left && right && *left < *right;
}

std::optional<std::int64_t> ParseDuration(std::string_view text) {
  std::int64_t count = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, count);
  if (error != std::errc() || rest + 1 != end || count < 1 || count > kMaxDuration) {
    return std::nullopt;
  }
  for (const Unit& unit : kUnits) {
    if (unit.letter != *rest) continue;
    if (count > kMaxDuration / unit.seconds) return std::nullopt;
    return count * unit.seconds;
  }
  return std::nullopt;
}

std::string FormatDuration(std::int64_t seconds) {
  for (const Unit& unit : kUnits) {
    if (seconds % unit.seconds == 0)
      return fmt::format("{}{}", seconds / unit.seconds, unit.letter);
  }
  return "";
}

bool PatternsMeet(std::string_view left, std::string_view right) {
  // The states are pairs of places, one in each pattern; a star may be left without a character.
  const std::vector<Glob> one = ParseGlobs(left);
  const std::vector<Glob> two = ParseGlobs(right);
  std::vector<bool> seen((one.size() + 1) * (two.size() + 1), false);
  std::deque<std::pair<std::size_t, std::size_t>> next;
  const auto visit = [&](std::size_t i, std::size_t j) {
    if (seen[i * (two.size() + 1) + j]) return;
    seen[i * (two.size() + 1) + j] = true;
    next.emplace_back(i, j);
  };
  visit(0, 0);
  while (!next.empty()) {
    const auto [i, j] = next.front();
    next.pop_front();
    if (i == one.size() && j == two.size()) return true;
    if (i < one.size() && one[i].literal == 0) visit(i + 1, j);
    if (j < two.size() && two[j].literal == 0) visit(i, j + 1);
    if (i < one.size() && j < two.size() && Meets(one[i], two[j])) {
      visit(one[i].literal == 0 ? i : i + 1, two[j].literal == 0 ? j : j + 1);
    }
  }
  return false;
}

std::string CheckTicketExpression(const std::string& expression) {
  constexpr std::size_t kMaxExpression = 256;
  constexpr int kMaxRepetitions = 64;
  if (expression.size() > kMaxExpression) return "is longer than 256 bytes";
  for (std::size_t at = 0; at < expression.size(); ++at) {
    if (expression[at] == '\\') {
      ++at;
      if (at < expression.size() && expression[at] >= '0' && expression[at] <= '9') {
        return "refers back to a group";
      }
      continue;
    }
    if (expression[at] != '{') continue;
    if (at > 0 && std::string_view(")}*+?").find(expression[at - 1]) != std::string_view::npos) {
      return "repeats a repetition or a group by '{'";
    }
    for (std::size_t digit = at + 1; digit < expression.size(); ++digit) {
      int count = 0;
      const char* const first = expression.data() + digit;
      const char* const end = expression.data() + expression.size();
      const auto [rest, error] = std::from_chars(first, end, count);
      if (error == std::errc::result_out_of_range || count > kMaxRepetitions) {
        return "repeats by '{' more than 64 times";
      }
      if (error == std::errc()) digit += static_cast<std::size_t>(rest - first);
      if (digit >= expression.size() || expression[digit] != ',') break;
    }
  }
  return CompiledTicket(expression).ok() ? "" : "does not compile";
}

bool TicketMatches(const std::string& expression, const std::string& ticket) {
  const CompiledTicket compiled(expression);
  return compiled.ok() && compiled.Matches(ticket);
}

std::string_view BuiltinPolicyText() {
  return R"([policy]
name = "builtin-1"
serial = 1
mode = "enforce"
simulators = "reported"

[[rule]]
name = "every key"
match = "**"
forbid = ["password"]
portable = true
password = "nist-800-63b"
drill_every = "90d"
)";
}

const Policy& BuiltinPolicy() {
  // Not parsed: it costs every command, and a test compares both.
  static const Policy policy = [] {
    Policy builtin;
    builtin.name = "builtin-1";
    builtin.simulators = Simulators::kReported;
    builtin.sha256 = Sha256(AsBytes(BuiltinPolicyText()));
    Rule rule;
    rule.name = "every key";
    rule.match = "**";
    rule.line = 7;
    rule.forbid.push_back({{envelope::FactorTerm{envelope::FactorKind::kPassword, "", 0, {}}}});
    rule.portable = true;
    rule.password_profile = "nist-800-63b";
    rule.drill_every_s = 90 * 86400;
    builtin.rules.push_back(std::move(rule));
    return builtin;
  }();
  return policy;
}

}  // namespace keyescrow::agent::policy
