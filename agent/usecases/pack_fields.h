// PackFields reads the members of a JSON object of a pack, whoever wrote it.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/report/ustar.h"
#include "envelope/base/base64url.h"
#include "envelope/base/bytes.h"
#include "envelope/base/clock.h"

namespace keyescrow::agent {

inline Error MisshapenPart(std::string_view what) {
  return report::PackDamaged(fmt::format("{} is not of the form that a pack has", what));
}

// OnePerName refuses a second row of one name in a list of `what`: one reader would take the first,
// and the next the last.
class OnePerName {
 public:
  explicit OnePerName(std::string_view what) : what_(what) {}
  Status Add(const std::string& name) {
    if (names_.insert(name).second) return Ok();
    return report::PackDamaged(fmt::format("{} has two rows of {}", what_, name));
  }

 private:
  std::string what_;
  std::set<std::string> names_;
};

// JsonLine: a line of a `.jsonl` member; JsonText: a document, indented by two.
inline std::string JsonLine(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}
inline std::string JsonText(const nlohmann::ordered_json& json) {
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

// ParsePackJson parses what a pack says; discarded, and so without any member, where it is no JSON,
// an object has two members of one name, or a number is not whole, is -0 or has more than 64 bits.
inline nlohmann::ordered_json ParsePackJson(std::string_view text) {
  using Json = nlohmann::ordered_json;
  std::vector<std::set<std::string>> names;
  bool good = true;
  const auto look = [&](int depth, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) names.emplace_back();
    if (event == Json::parse_event_t::object_end) names.pop_back();
    if (event == Json::parse_event_t::key) {
      good = good && names.back().insert(value.get<std::string>()).second;
    }
    if (event == Json::parse_event_t::value) {
      const bool minus_zero =
          value.is_number_integer() && !value.is_number_unsigned() && value == 0;
      good = good && !value.is_number_float() && !minus_zero;
    }
    good = good && depth < 64;
    return good;
  };
  if (text.starts_with("\xEF\xBB\xBF")) return Json(Json::value_t::discarded);
  Json json = Json::parse(text, look, false);
  return good ? json : Json(Json::value_t::discarded);
}

// PackFields: `good` tells at the end whether each member was there and of its type.
class PackFields {
 public:
  explicit PackFields(const nlohmann::ordered_json& object) : object_(object) {}

  const nlohmann::ordered_json& Of(const char* name) {
    static const nlohmann::ordered_json kNothing;
    const auto found = object_.find(name);
    if (found == object_.end()) good_ = false;
    return found == object_.end() ? kNothing : *found;
  }
  const nlohmann::ordered_json& List(const char* name) {
    const nlohmann::ordered_json& value = Of(name);
    good_ = good_ && value.is_array();
    return value;
  }
  std::string Text(const char* name) {
    const nlohmann::ordered_json& value = Of(name);
    good_ = good_ && value.is_string();
    return value.is_string() ? value.get<std::string>() : std::string();
  }
  template <typename Number>
  Number NumberOf(const char* name) {
    const nlohmann::ordered_json& value = Of(name);
    const std::uint64_t number = value.is_number_unsigned() ? value.get<std::uint64_t>() : 0;
    good_ = good_ && value.is_number_unsigned() && number <= std::numeric_limits<Number>::max();
    return static_cast<Number>(number);
  }
  Bytes32 Hash(const char* name) {
    const auto bytes = DecodeBase64Url(Text(name));
    Bytes32 hash{};
    good_ = good_ && bytes && bytes->size() == hash.size();
    if (good_) std::copy(bytes->begin(), bytes->end(), hash.begin());
    return hash;
  }
  std::int64_t Time(const char* name) {
    const auto time = ParseUtc(Text(name));
    good_ = good_ && time.has_value();
    return time.value_or(0);
  }
  void Need(bool condition) { good_ = good_ && condition; }
  bool good() const { return good_ && object_.is_object(); }

 private:
  const nlohmann::ordered_json& object_;
  bool good_ = true;
};

}  // namespace keyescrow::agent
