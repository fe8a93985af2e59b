// Strict JSON: what parses has no more than the format allows, and written again parses the same.
#include <set>

#include "envelope/json_strict.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 8192, .memory_mib = 64, .cpu_s = 2};
void Prepare() {}

// 3 MiB, the size of the largest file, of what costs a parser most for a byte.
void VisitLargest(Feed feed) {
  constexpr std::size_t kSize = 3 << 20;
  const auto feed_text = [feed](const std::string& text) { feed(AsBytes(text)); };
  std::string values = "[";
  while (values.size() < kSize - 3) values += "0,";
  feed_text(values + "0]");
  std::string members = "{";
  for (int number = 0; members.size() < kSize - 12; ++number) {
    members += "\"" + std::to_string(number) + "\":0,";
  }
  feed_text(members + "\"\":0}");
  std::string arrays = "[";
  while (arrays.size() < kSize - 4) arrays += "[],";
  feed_text(arrays + "0]");
  feed_text(std::string(kSize, '['));
  feed_text("[" + std::string(kSize - 2, '9') + "]");
  feed_text("\"" + std::string(kSize - 2, 'a') + "\"");
  feed_text(std::string(kSize, ' '));
}

namespace {

using envelope::JsonValue;

// Write gives the text without blanks; a number that did not fit is left to the caller's luck.
bool Write(const JsonValue& value, int depth, std::string& text) {
  FUZZ_CHECK(depth <= 8);
  switch (value.type) {
    case JsonValue::Type::kNull: text += "null"; return true;
    case JsonValue::Type::kBoolean: text += value.boolean ? "true" : "false"; return true;
    case JsonValue::Type::kString: text += "\"" + std::string(value.text) + "\""; return true;
    case JsonValue::Type::kInteger:
      if (!value.number) return false;
      text += std::to_string(*value.number);
      return true;
    case JsonValue::Type::kArray:
      text += "[";
      for (const JsonValue& item : value.items) {
        if (text.back() != '[') text += ",";
        if (!Write(item, depth + 1, text)) return false;
      }
      text += "]";
      return true;
    case JsonValue::Type::kObject: break;
  }
  text += "{";
  std::set<std::string> names;
  for (const auto& [name, member] : value.members) {
    FUZZ_CHECK(names.emplace(name).second);
    if (names.size() > 1) text += ",";
    text += "\"" + std::string(name) + "\":";
    if (!Write(member, depth + 1, text)) return false;
  }
  text += "}";
  return true;
}

void ReadAsObject(const JsonValue& value) {
  envelope::ObjectReader reader(value, "input");
  reader.String("payload");
  reader.Base64Url("signature", 64);
  reader.Integer("key_version", 1, 10);
  reader.Boolean("auth");
  reader.Array("paths");
  reader.Object("jwk");
  if (auto status = reader.Finish(); !status) CheckError(status.error());
}

}  // namespace
}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  const auto value = envelope::ParseStrictJson(AsText({data, size}));
  if (!value) {
    fuzz::CheckError(value.error());
    FUZZ_CHECK(value.error().failure() == Failure::kFormat ||
               value.error().failure() == Failure::kLimit);
    return 0;
  }
  fuzz::ReadAsObject(*value);
  std::string text;
  if (size > 65536 || !fuzz::Write(*value, 0, text)) return 0;
  const auto again = envelope::ParseStrictJson(text);
  FUZZ_CHECK(again.has_value());
  std::string text_again;
  FUZZ_CHECK(fuzz::Write(*again, 0, text_again) && text_again == text);
  return 0;
}
