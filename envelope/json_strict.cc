#include "envelope/json_strict.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>

#include "envelope/base/base64url.h"

namespace keyescrow::envelope {
namespace {

// Shown quotes a name of somebody else's in a message, without its tail where it is long.
std::string Shown(std::string_view name) {
  constexpr std::size_t kMaxShown = 64;
  const std::string shown = "\"" + std::string(name.substr(0, kMaxShown)) + "\"";
  return name.size() <= kMaxShown ? shown : shown + " and more";
}

constexpr std::size_t kMaxDepth = 8;

// No valid text has this many values: the largest header cannot hold more, and around it there are
// a handful. Beyond it the text is only checked, and refused at its end, so that a file that nobody
// has signed yet does not take a hundred times its size in memory.
constexpr std::size_t kMaxValues = 131072;

// Names are those of one object: a few, which need no tree, or very many.
class Names {
 public:
  bool Insert(std::string_view name) {
    if (num_first_ < first_.size()) {
      const auto end = first_.begin() + static_cast<std::ptrdiff_t>(num_first_);
      if (std::find(first_.begin(), end, name) != end) return false;
      first_[num_first_++] = name;
      return true;
    }
    if (std::find(first_.begin(), first_.end(), name) != first_.end()) return false;
    return more_.insert(name).second;
  }

 private:
  std::array<std::string_view, 16> first_;
  std::size_t num_first_ = 0;
  std::set<std::string_view> more_;
};

// Parser reads the subset by recursive descent, at most kMaxDepth deep. A general JSON library does
// not serve here: nlohmann-json 3.11 stops at an integer of more than 308 digits, which the format
// allows to stand and then judges by its member's range (agent/docs/decisions/0004).
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<JsonValue> Parse() {
    JsonValue root;
    if (!ParseValue(root, 0)) return std::move(*error_);
    SkipSpaces();
    if (position_ != text_.size()) return Malformed();
    if (num_values_ > kMaxValues) return FormatError("more values than any envelope has");
    return root;
  }

 private:
  bool ParseValue(JsonValue& value, std::size_t depth) {
    SkipSpaces();
    if (position_ == text_.size()) return Refuse(Malformed());
    switch (text_[position_]) {
      case '{': return ParseObject(value, depth);
      case '[': return ParseArray(value, depth);
      case '"': value.type = JsonValue::Type::kString; return ParseString(value.text);
      case 't': value.boolean = true; return ParseWord("true", JsonValue::Type::kBoolean, value);
      case 'f': return ParseWord("false", JsonValue::Type::kBoolean, value);
      case 'n': return ParseWord("null", JsonValue::Type::kNull, value);
      default: return ParseNumber(value);
    }
  }

  bool ParseObject(JsonValue& value, std::size_t depth) {
    if (depth == kMaxDepth) return Refuse(LimitError("containers nest more than 8 deep"));
    value.type = JsonValue::Type::kObject;
    ++position_;
    if (SkipTo('}')) return true;
    Names names;
    while (true) {
      SkipSpaces();
      std::string_view name;
      if (!ParseString(name)) return false;
      if (num_values_ < kMaxValues && !names.Insert(name)) {
        return Refuse(FormatError("the member " + Shown(name) + " stands twice"));
      }
      if (!SkipTo(':')) return Refuse(Malformed());
      JsonMember& member = Append(value.members);
      member.name = name;
      if (!ParseValue(member.value, depth + 1)) return false;
      if (SkipTo('}')) return true;
      if (!SkipTo(',')) return Refuse(Malformed());
    }
  }

  bool ParseArray(JsonValue& value, std::size_t depth) {
    if (depth == kMaxDepth) return Refuse(LimitError("containers nest more than 8 deep"));
    value.type = JsonValue::Type::kArray;
    ++position_;
    if (SkipTo(']')) return true;
    while (true) {
      if (!ParseValue(Append(value.items), depth + 1)) return false;
      if (SkipTo(']')) return true;
      if (!SkipTo(',')) return Refuse(Malformed());
    }
  }

  // Append makes room for one more value; beyond kMaxValues in the place of the last.
  template <typename T>
  T& Append(std::vector<T>& list) {
    if (++num_values_ <= kMaxValues || list.empty()) return list.emplace_back();
    list.back() = T();
    return list.back();
  }

  bool ParseString(std::string_view& text) {
    if (position_ == text_.size() || text_[position_] != '"') return Refuse(Malformed());
    const std::size_t end = text_.find('"', position_ + 1);  // there are no escapes
    if (end == std::string_view::npos) return Refuse(Malformed());
    text = text_.substr(position_ + 1, end - position_ - 1);
    position_ = end + 1;
    return true;
  }

  bool ParseWord(std::string_view word, JsonValue::Type type, JsonValue& value) {
    if (text_.substr(position_, word.size()) != word) return Refuse(Malformed());
    position_ += word.size();
    value.type = type;
    return true;
  }

  // -?(0|[1-9][0-9]*), of any length
  bool ParseNumber(JsonValue& value) {
    const std::size_t start = position_;
    if (text_[position_] == '-') ++position_;
    const std::size_t first_digit = position_;
    while (position_ < text_.size() && text_[position_] >= '0' && text_[position_] <= '9') {
      ++position_;
    }
    const std::size_t num_digits = position_ - first_digit;
    if (num_digits == 0 || (num_digits > 1 && text_[first_digit] == '0')) {
      return Refuse(Malformed());
    }
    value.type = JsonValue::Type::kInteger;
    std::int64_t number = 0;
    const char* end = text_.data() + position_;
    const auto converted = std::from_chars(text_.data() + start, end, number);
    if (converted.ec == std::errc() && converted.ptr == end) value.number = number;
    return true;
  }

  void SkipSpaces() {
    while (position_ < text_.size() && text_[position_] == ' ') ++position_;
  }
  // SkipTo takes `expected` after any spaces, or takes nothing.
  bool SkipTo(char expected) {
    SkipSpaces();
    if (position_ == text_.size() || text_[position_] != expected) return false;
    ++position_;
    return true;
  }
  Error Malformed() const {
    return FormatError("not JSON of plain integers at byte " + std::to_string(position_));
  }
  bool Refuse(Error error) {
    error_ = std::move(error);
    return false;
  }

  std::string_view text_;
  std::size_t position_ = 0;
  std::size_t num_values_ = 0;
  std::optional<Error> error_;
};

}  // namespace

Error FormatError(std::string message) {
  return Error(ErrorCode::kEnvelopeFormat, Action::kFixInput, std::move(message),
               "take another copy of the envelope; this one is damaged or is no envelope")
      .WithFailure(Failure::kFormat);
}

Error LimitError(std::string message) {
  return Error(ErrorCode::kEnvelopeLimit, Action::kFixInput, std::move(message),
               "take another copy of the envelope; no keyescrow wrote this one")
      .WithFailure(Failure::kLimit);
}

Result<JsonValue> ParseStrictJson(std::string_view text) {
  unsigned other = 0;  // no jump for each character
  for (const char character : text) {
    const unsigned value = static_cast<unsigned char>(character);
    other |=
        static_cast<unsigned>(value - 0x20U > 0x7EU - 0x20U) | static_cast<unsigned>(value == '\\');
  }
  if (other != 0) return FormatError("a character outside printable ASCII, or a backslash");
  return Parser(text).Parse();
}

ObjectReader::ObjectReader(const JsonValue& value, std::string what)
    : value_(value), what_(std::move(what)), read_(value.members.size(), false) {
  if (value.type != JsonValue::Type::kObject) Require(false, "is not an object");
}

bool ObjectReader::Has(std::string_view name) const {
  for (const auto& member : value_.members) {
    if (member.name == name) return true;
  }
  return false;
}

const JsonValue* ObjectReader::Find(std::string_view name, JsonValue::Type type) {
  if (error_) return nullptr;
  for (std::size_t index = 0; index < value_.members.size(); ++index) {
    if (value_.members[index].name != name) continue;
    read_[index] = true;
    if (value_.members[index].value.type == type) return &value_.members[index].value;
    Require(false, "\"" + std::string(name) + "\" is of a wrong type");
    return nullptr;
  }
  Require(false, "\"" + std::string(name) + "\" is missing");
  return nullptr;
}

std::string_view ObjectReader::String(std::string_view name) {
  const JsonValue* found = Find(name, JsonValue::Type::kString);
  return found != nullptr ? found->text : std::string_view();
}

Bytes ObjectReader::Base64Url(std::string_view name, std::size_t size_bytes) {
  const std::string_view text = String(name);
  if (error_) return {};
  auto bytes = DecodeBase64Url(text);
  if (!bytes) {
    Require(false, "\"" + std::string(name) + "\" is not canonical base64url");
    return {};
  }
  Require(size_bytes == SIZE_MAX || bytes->size() == size_bytes,
          "\"" + std::string(name) + "\" is not of the right size");
  return std::move(*bytes);
}

std::int64_t ObjectReader::Integer(std::string_view name, std::int64_t minimum,
                                   std::int64_t maximum) {
  const JsonValue* found = Find(name, JsonValue::Type::kInteger);
  if (found == nullptr) return minimum;
  if (!found->number || *found->number < minimum || *found->number > maximum) {
    Fail(LimitError(what_ + ": \"" + std::string(name) + "\" is outside " +
                    std::to_string(minimum) + ".." + std::to_string(maximum)));
    return minimum;
  }
  return *found->number;
}

void ObjectReader::RequireInteger(std::string_view name, std::int64_t wanted,
                                  std::string_view fault) {
  const JsonValue* found = Find(name, JsonValue::Type::kInteger);
  if (found != nullptr) Require(found->number == wanted, fault);
}

bool ObjectReader::Boolean(std::string_view name) {
  const JsonValue* found = Find(name, JsonValue::Type::kBoolean);
  return found != nullptr && found->boolean;
}

const JsonValue& ObjectReader::Object(std::string_view name) {
  static const JsonValue kNothing;
  const JsonValue* found = Find(name, JsonValue::Type::kObject);
  return found != nullptr ? *found : kNothing;
}

const std::vector<JsonValue>& ObjectReader::Array(std::string_view name) {
  static const std::vector<JsonValue> kNothing;
  const JsonValue* found = Find(name, JsonValue::Type::kArray);
  return found != nullptr ? found->items : kNothing;
}

void ObjectReader::Require(bool condition, std::string_view fault) {
  if (!condition && !error_) error_ = FormatError(what_ + ": " + std::string(fault));
}

void ObjectReader::Fail(Error error) {
  if (!error_) error_ = std::move(error);
}

Status ObjectReader::Finish() {
  for (std::size_t index = 0; !error_ && index < read_.size(); ++index) {
    if (!read_[index]) Require(false, "unknown member " + Shown(value_.members[index].name));
  }
  if (error_) return *error_;
  return Ok();
}

}  // namespace keyescrow::envelope
