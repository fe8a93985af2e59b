// Strict JSON as keyescrow/1 defines it (envelope/FORMAT.md, Bytes): printable ASCII without
// backslash, integers only, no duplicate member, containers nested at most 8 deep.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::envelope {

// FormatError and LimitError are the errors of an envelope that is not keyescrow/1.
Error FormatError(std::string message);
Error LimitError(std::string message);

struct JsonMember;

class JsonValue {
 public:
  enum class Type : std::uint8_t { kObject, kArray, kString, kInteger, kBoolean, kNull };

  Type type = Type::kNull;
  std::string_view text;               // kString; of the text that was parsed, as names are
  std::optional<std::int64_t> number;  // kInteger; empty where it does not fit
  bool boolean = false;                // kBoolean
  std::vector<JsonValue> items;        // kArray
  std::vector<JsonMember> members;     // kObject, in the order of the text
};

// No std::pair: clang wants its parts complete where JsonValue is not yet.
struct JsonMember {
  std::string_view name;
  JsonValue value;
};

// ParseStrictJson reads one JSON text, which outlives what it returns.
// Errors: Failure::kFormat on anything that is not strict JSON; Failure::kLimit on depth.
Result<JsonValue> ParseStrictJson(std::string_view text);

// ObjectReader takes an object's members by name. Each getter's error is sticky: the first fault
// is kept, later reads return empty values, and Finish returns it. A member that was never read is
// a fault, so unknown members are refused.
class ObjectReader {
 public:
  // `what` names the object in errors, e.g. "header" or "path 2".
  ObjectReader(const JsonValue& value, std::string what);

  bool Has(std::string_view name) const;
  std::string_view String(std::string_view name);
  // Base64Url decodes a member; a `size_bytes` other than SIZE_MAX must match exactly.
  Bytes Base64Url(std::string_view name, std::size_t size_bytes = SIZE_MAX);
  // Integer refuses other types (format) and values outside [minimum, maximum] (limit).
  std::int64_t Integer(std::string_view name, std::int64_t minimum, std::int64_t maximum);
  bool Boolean(std::string_view name);
  const JsonValue& Object(std::string_view name);
  const std::vector<JsonValue>& Array(std::string_view name);
  // RequireInteger notes a fault of format unless the number is `wanted`; others of any length are
  // that fault too.
  void RequireInteger(std::string_view name, std::int64_t wanted, std::string_view fault);
  // Require notes a fault of format unless `condition` holds.
  void Require(bool condition, std::string_view fault);
  void Fail(Error error);

  bool failed() const { return error_.has_value(); }
  // Finish returns the first fault, or refuses a member that was not read.
  Status Finish();

 private:
  const JsonValue* Find(std::string_view name, JsonValue::Type type);

  const JsonValue& value_;
  std::string what_;
  std::vector<bool> read_;
  std::optional<Error> error_;
};

}  // namespace keyescrow::envelope
