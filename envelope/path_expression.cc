#include "envelope/path_expression.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "envelope/base/hash.h"
#include "envelope/base/nearest_word.h"

namespace keyescrow::envelope {
namespace {

constexpr std::size_t kMaxFactors = 4;
constexpr std::size_t kMaxMembers = 16;
constexpr std::size_t kMaxNameBytes = 64;
constexpr std::size_t kMaxPathIdBytes = 16;
constexpr std::size_t kMaxPaths = 16;
constexpr std::size_t kMaxTextBytes = 4096;

constexpr std::string_view kWords[] = {"password", "tpm", "token", "recovery-key"};
constexpr char kExample[] =
    "write for example 'password & token:NAME', 'password & tpm' or "
    "'password & 2 of (token:a, token:b, token:c)'";

bool IsNameCharacter(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

bool IsName(std::string_view text, std::size_t max_bytes) {
  return !text.empty() && text.size() <= max_bytes &&
         std::all_of(text.begin(), text.end(), IsNameCharacter);
}

bool IsBlank(char c) { return c == ' ' || c == '\t'; }

bool IsNumber(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Error PathError(std::size_t column, std::string_view cause, std::string hint = kExample) {
  return Error(ErrorCode::kInvalidPath, Action::kFixInput,
               fmt::format("column {}: {}", column, cause), std::move(hint));
}

// Parser: one pass over the text, one method a rule of the grammar in the header.
class Parser {
 public:
  Parser(std::string_view text, std::size_t first_column)
      : text_(text), first_column_(first_column) {}

  Result<PathExpression> Expression() {
    PathExpression expression;
    while (true) {
      SkipBlanks();
      const std::size_t column = Column();
      ASSIGN_OR_RETURN(FactorTerm term, Factor());
      RETURN_IF_ERROR(CheckBeside(expression, term, column));
      expression.factors.push_back(std::move(term));
      SkipBlanks();
      if (AtEnd()) break;
      if (!TakeCharacter('&')) {
        return PathError(Column(), fmt::format("expected '&' or the end, found '{}'", Found()));
      }
    }
    Canonicalize(expression);
    return expression;
  }

 private:
  bool AtEnd() const { return position_ == text_.size(); }
  std::size_t Column() const { return first_column_ + position_; }
  void SkipBlanks() {
    while (!AtEnd() && IsBlank(text_[position_])) ++position_;
  }
  bool TakeCharacter(char c) {
    if (AtEnd() || text_[position_] != c) return false;
    ++position_;
    return true;
  }
  std::string_view TakeWord() {
    const std::size_t start = position_;
    while (!AtEnd() && IsNameCharacter(text_[position_])) ++position_;
    return text_.substr(start, position_ - start);
  }
  // Found shows what stands here: a printable character, or a name for one that is not.
  std::string Found() const {
    if (AtEnd()) return "the end";
    const auto c = static_cast<unsigned char>(text_[position_]);
    if (c >= 0x21 && c <= 0x7e) return std::string(1, static_cast<char>(c));
    return fmt::format("byte {:#04x}", c);
  }

  Result<FactorTerm> Factor() {
    const std::size_t column = Column();
    const std::string_view word = TakeWord();
    if (word.empty()) {
      return PathError(column, AtEnd() ? "a factor is missing"
                                       : fmt::format("expected a factor, found '{}'", Found()));
    }
    FactorTerm term;
    if (IsNumber(word)) return Shares(word, column);
    if (word == "password") {
      term.kind = FactorKind::kPassword;
      if (!AtEnd() && text_[position_] == ':') {
        return PathError(Column(), "a password has no name",
                         "write 'password'; it is asked for when it is needed");
      }
      return term;
    }
    if (word == "tpm") {
      term.kind = FactorKind::kTpm;
      if (TakeCharacter(':')) {
        ASSIGN_OR_RETURN(term.name, Name("tpm:HOST"));
      }
      return term;
    }
    if (word == "token" || word == "recovery-key") {
      term.kind = word == "token" ? FactorKind::kToken : FactorKind::kRecoveryKey;
      const std::string form = fmt::format("{}:NAME", word);
      if (!TakeCharacter(':')) {
        return PathError(Column(), fmt::format("'{}' needs a name", word),
                         fmt::format("write '{}', with no blank before the colon", form));
      }
      ASSIGN_OR_RETURN(term.name, Name(form));
      return term;
    }
    return UnknownWord(word, column);
  }

  static Error UnknownWord(std::string_view word, std::size_t column) {
    const std::string_view shown = word.substr(0, kMaxNameBytes);
    const std::string_view nearest = NearestWord(word, kWords);
    if (!nearest.empty()) {
      return PathError(column,
                       fmt::format("unknown factor '{}', did you mean '{}'?", shown, nearest));
    }
    return PathError(
        column, fmt::format("unknown factor '{}'", shown),
        fmt::format("the factors are password, tpm, tpm:HOST, token:NAME, "
                    "K of (token:a, token:b) and recovery-key:NAME; a registered token "
                    "is written 'token:{}'",
                    shown));
  }

  Result<std::string> Name(std::string_view form) {
    const std::size_t column = Column();
    const std::string_view name = TakeWord();
    if (name.empty()) {
      return PathError(column, fmt::format("the name in '{}' is missing", form),
                       "a name has letters, digits, '.', '_' and '-'");
    }
    if (name.size() > kMaxNameBytes) {
      return PathError(column, fmt::format("the name has {} characters", name.size()),
                       "a name has 1 to 64 characters");
    }
    return std::string(name);
  }

  Result<FactorTerm> Shares(std::string_view number, std::size_t column) {
    constexpr char kForm[] = "write for example '2 of (token:alice, token:bob, token:carol)'";
    FactorTerm term;
    term.kind = FactorKind::kShares;
    SkipBlanks();
    const std::size_t of_column = Column();
    if (TakeWord() != "of") {
      return PathError(of_column, fmt::format("expected 'of' after '{}'", number.substr(0, 8)),
                       kForm);
    }
    SkipBlanks();
    if (!TakeCharacter('(')) return PathError(Column(), "expected '(' after 'of'", kForm);
    do {
      SkipBlanks();
      const std::size_t member_column = Column();
      const std::string_view word = TakeWord();
      if (word != "token" || !TakeCharacter(':')) {
        return PathError(member_column, "shares go to tokens alone: expected 'token:NAME'", kForm);
      }
      ASSIGN_OR_RETURN(std::string name, Name("token:NAME"));
      if (std::find(term.members.begin(), term.members.end(), name) != term.members.end()) {
        return PathError(member_column, fmt::format("token '{}' stands twice", name),
                         "give each officer a token of their own");
      }
      if (term.members.size() == kMaxMembers) {
        return PathError(member_column, "more than 16 members", "name 2 to 16 tokens");
      }
      term.members.push_back(std::move(name));
      SkipBlanks();
    } while (TakeCharacter(','));
    if (!TakeCharacter(')')) {
      return PathError(Column(), fmt::format("expected ',' or ')', found '{}'", Found()), kForm);
    }
    if (term.members.size() < 2) return PathError(column, "shares need two members or more", kForm);
    // One way to write a number: whoever compares texts sees one path.
    if (number.front() == '0') {
      return PathError(column, fmt::format("the number {} begins with a zero", number.substr(0, 8)),
                       kForm);
    }
    // The text is bounded, the number's value is not.
    for (char digit : number) {
      term.threshold = std::min(term.threshold * 10 + static_cast<unsigned>(digit - '0'), 1000u);
    }
    if (term.threshold < 2 || term.threshold > term.members.size()) {
      return PathError(
          column,
          fmt::format("{} of {} is not a threshold", number.substr(0, 8), term.members.size()),
          fmt::format("the number before 'of' is 2 to {}", term.members.size()));
    }
    return term;
  }

  // CheckBeside holds `term` against the factors already read (FORMAT.md's rules for one path).
  static Status CheckBeside(const PathExpression& before, const FactorTerm& term,
                            std::size_t column) {
    if (!before.factors.empty() &&
        (term.kind == FactorKind::kRecoveryKey || before.Has(FactorKind::kRecoveryKey))) {
      return PathError(column, "a recovery key stands alone in its path",
                       "its own factors were chosen when it was made; give it a path of its own");
    }
    if (before.factors.size() == kMaxFactors) {
      return PathError(column, "more than 4 factors", "a path has 1 to 4 factors");
    }
    if (term.kind != FactorKind::kToken && before.Has(term.kind)) {
      return PathError(
          column, "this kind of factor stands twice",
          "a path has at most one password, one tpm and one 'K of (...)'; alternatives "
          "are paths of their own");
    }
    std::set<std::string_view> tokens;
    for (const FactorTerm& other : before.factors) {
      if (other.kind == FactorKind::kToken) tokens.insert(other.name);
      tokens.insert(other.members.begin(), other.members.end());
    }
    const auto repeated = [&](const std::string& name) { return tokens.contains(name); };
    if (term.kind == FactorKind::kToken && repeated(term.name)) {
      return PathError(column, fmt::format("token '{}' stands twice", term.name),
                       "a path's tokens are all distinct, members of 'K of (...)' included");
    }
    const auto member = std::find_if(term.members.begin(), term.members.end(), repeated);
    if (member != term.members.end()) {
      return PathError(column, fmt::format("token '{}' stands twice", *member),
                       "a path's tokens are all distinct, members of 'K of (...)' included");
    }
    return Ok();
  }

  static void Canonicalize(PathExpression& expression) {
    for (FactorTerm& term : expression.factors) {
      std::sort(term.members.begin(), term.members.end());
    }
    std::sort(expression.factors.begin(), expression.factors.end(),
              [](const FactorTerm& left, const FactorTerm& right) {
                return std::pair(left.kind, std::string_view(left.name)) <
                       std::pair(right.kind, std::string_view(right.name));
              });
  }

  std::string_view text_;
  std::size_t first_column_;
  std::size_t position_ = 0;
};

Result<PathExpression> ParseFrom(std::string_view text, std::size_t first_column) {
  if (text.size() > kMaxTextBytes) {
    return PathError(kMaxTextBytes, "the expression is longer than 4096 bytes");
  }
  ASSIGN_OR_RETURN(PathExpression expression, Parser(text, first_column).Expression());
  return expression;
}

std::string IdPart(const FactorTerm& term) {
  switch (term.kind) {
    case FactorKind::kToken: return "token-" + term.name;
    case FactorKind::kShares: return fmt::format("{}of{}", term.threshold, term.members.size());
    case FactorKind::kPassword: return "";
    case FactorKind::kTpm: return term.name.empty() ? "tpm" : "tpm-" + term.name;
    case FactorKind::kRecoveryKey: return "recovery-key-" + term.name;
  }
  return "";
}

std::string FormatTerm(const FactorTerm& term) {
  switch (term.kind) {
    case FactorKind::kToken: return "token:" + term.name;
    case FactorKind::kShares:
      return fmt::format("{} of (token:{})", term.threshold, fmt::join(term.members, ", token:"));
    case FactorKind::kPassword: return "password";
    case FactorKind::kTpm: return term.name.empty() ? "tpm" : "tpm:" + term.name;
    case FactorKind::kRecoveryKey: return "recovery-key:" + term.name;
  }
  return "";
}

}  // namespace

bool PathExpression::Has(FactorKind kind) const {
  return std::any_of(factors.begin(), factors.end(),
                     [kind](const FactorTerm& term) { return term.kind == kind; });
}

bool PathExpression::HasHardware() const {
  return Has(FactorKind::kToken) || Has(FactorKind::kShares) || Has(FactorKind::kTpm);
}

Result<PathExpression> ParsePathExpression(std::string_view text) { return ParseFrom(text, 1); }

std::string FormatPathExpression(const PathExpression& expression) {
  std::string text;
  for (const FactorTerm& term : expression.factors) {
    if (!text.empty()) text += " & ";
    text += FormatTerm(term);
  }
  return text;
}

std::string DefaultPathId(const PathExpression& expression) {
  std::string id;
  for (const FactorTerm& term : expression.factors) {
    const std::string part = IdPart(term);
    if (part.empty()) continue;
    if (!id.empty()) id += '-';
    id += part;
  }
  if (id.empty()) return "password";
  if (id.size() <= kMaxPathIdBytes) return id;
  constexpr std::size_t kKept = 11;
  return id.substr(0, kKept) + "-" + ToHex(Sha256(AsBytes(id))).substr(0, 4);
}

bool IsPathId(std::string_view text) { return IsName(text, kMaxPathIdBytes); }

Result<PathOption> ParsePathOption(std::string_view text) {
  PathOption option;
  const std::size_t equals = text.find('=');  // no expression has one
  std::size_t start = 0;
  if (equals != std::string_view::npos) {
    std::string_view id = text.substr(0, equals);
    while (!id.empty() && IsBlank(id.front())) id.remove_prefix(1);
    while (!id.empty() && IsBlank(id.back())) id.remove_suffix(1);
    if (!IsPathId(id)) {
      return PathError(1, "the path's id, before '=', is not an id",
                       "an id has 1 to 16 letters, digits, '.', '_' and '-'");
    }
    option.id = id;
    start = equals + 1;
  }
  ASSIGN_OR_RETURN(option.expression, ParseFrom(text.substr(start), start + 1));
  if (option.id.empty()) option.id = DefaultPathId(option.expression);
  return option;
}

Result<std::vector<PathOption>> ParsePathOptions(std::span<const std::string> texts) {
  if (texts.empty() || texts.size() > kMaxPaths) {
    return Error(ErrorCode::kInvalidPath, Action::kFixInput,
                 fmt::format("a key has 1 to 16 paths, not {}", texts.size()), kExample);
  }
  std::vector<PathOption> options;
  for (const std::string& text : texts) {
    auto option = ParsePathOption(text);
    if (!option) {
      return std::move(option).error().WithContext(fmt::format("path '{}'", text.substr(0, 256)));
    }
    for (const PathOption& other : options) {
      if (other.id != option->id) continue;
      return Error(ErrorCode::kInvalidPath, Action::kFixInput,
                   fmt::format("two paths have the id '{}': '{}' and '{}'", option->id,
                               FormatPathExpression(other.expression),
                               FormatPathExpression(option->expression)),
                   "give one of them another id with 'ID=' before the expression");
    }
    options.push_back(std::move(*option));
  }
  return options;
}

}  // namespace keyescrow::envelope
