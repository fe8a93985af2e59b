// TomlReader: what reading a policy's tables has in common. Every error names the place.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/config/strict_toml.h"
#include "agent/policy/policy.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/base/nearest_word.h"
#include "envelope/base/result.h"
#include "envelope/header.h"

namespace keyescrow::agent::policy {

using Words = std::span<const std::string_view>;

// Hash reads a SHA-256 as sha256sum prints it, or in base64url.
inline std::optional<Bytes32> Hash(std::string_view text) {
  Bytes32 hash{};
  if (text.size() == 64) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      const std::size_t digit = std::string_view("0123456789abcdef").find(text[i]);
      if (digit == std::string_view::npos) return std::nullopt;
      hash[i / 2] = static_cast<std::uint8_t>(std::size_t{hash[i / 2]} << 4 | digit);
    }
    return hash;
  }
  const auto bytes = DecodeBase64Url(text);
  if (!bytes || bytes->size() != hash.size()) return std::nullopt;
  std::copy(bytes->begin(), bytes->end(), hash.begin());
  return hash;
}

inline bool IsPattern(std::string_view text) {
  constexpr std::size_t kMaxPattern = 128;
  if (text.empty() || text.size() > kMaxPattern || text.front() == '/' || text.back() == '/') {
    return false;
  }
  if (text.find("//") != std::string_view::npos || text.find("***") != std::string_view::npos) {
    return false;
  }
  const bool all_known = std::all_of(text.begin(), text.end(), [](char c) {
    return c == '*' || c == '/' || envelope::IsName(std::string_view(&c, 1));
  });
  // No key name has such a part, so that the rule would hold for none.
  const std::string parts = fmt::format("/{}/", text);
  return all_known && parts.find("/./") == std::string::npos &&
         parts.find("/../") == std::string::npos;
}

// Members leave `out` alone where the key is absent, and tell by their `bool` whether it is there.
class TomlReader {
 public:
  explicit TomlReader(std::string file) : file_(std::move(file)) {}

  Error Wrong(const toml::source_position& at, std::string_view cause,
              std::string hint = "agent/docs/POLICY.md lists what a policy may hold") const {
    return Error(ErrorCode::kPolicyInvalid, Action::kFixInput,
                 fmt::format("{} line {} column {}: {}", file_, at.line, at.column, cause),
                 std::move(hint));
  }
  static const toml::source_position& At(const toml::node& node) { return node.source().begin; }

  Status CheckKeys(const toml::table& table, Words known, std::string_view where) const {
    for (const auto& [key, value] : table) {
      if (std::find(known.begin(), known.end(), key.str()) != known.end()) continue;
      return Wrong(
          key.source().begin,
          fmt::format("unknown key '{}' in {}{}", key.str(), where, DidYouMean(key.str(), known)),
          fmt::format("{} may hold: {}", where, fmt::join(known, ", ")));
    }
    return Ok();
  }

  Status Missing(const toml::table& table, std::string_view key, std::string_view where) const {
    if (table.contains(key)) return Ok();
    return Wrong(At(table), fmt::format("{} has no '{}'", where, key),
                 fmt::format("add a line {} = …", key));
  }

  Result<const toml::table*> Table(const toml::node& node, std::string_view name) const {
    if (node.is_table()) return node.as_table();
    return Wrong(At(node), fmt::format("'{}' is not a table", name),
                 fmt::format("write [{}] on a line of its own", name));
  }

  // Tables reads a list of tables, [[name]].
  Result<std::vector<const toml::table*>> Tables(const toml::table& root, std::string_view name,
                                                 std::size_t max_tables) const {
    std::vector<const toml::table*> tables;
    const toml::node* node = root.get(name);
    if (node == nullptr) return tables;
    const toml::array* array = node->as_array();
    if (array == nullptr || !array->is_homogeneous(toml::node_type::table)) {
      return Wrong(At(*node), fmt::format("'{}' is not a list of tables", name),
                   fmt::format("write [[{}]], with two brackets", name));
    }
    if (array->size() > max_tables) {
      return Wrong(At(*node), fmt::format("more than {} [[{}]]", max_tables, name));
    }
    for (const toml::node& element : *array) tables.push_back(element.as_table());
    return tables;
  }

  Result<bool> Text(const toml::table& table, std::string_view key, std::string* out) const {
    const toml::node* node = table.get(key);
    if (node == nullptr) return false;
    const toml::value<std::string>* text = node->as_string();
    constexpr std::size_t kMaxText = 512;
    if (text == nullptr || text->get().empty() || text->get().size() > kMaxText) {
      return Wrong(At(*node), fmt::format("'{}' is not a text of 1 to {} bytes", key, kMaxText),
                   fmt::format("write {} = \"…\", or leave the line out", key));
    }
    const bool control = std::any_of(text->get().begin(), text->get().end(), [](char c) {
      return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
    });
    if (control) return Wrong(At(*node), fmt::format("'{}' has a control character", key));
    *out = text->get();
    return true;
  }

  template <typename Enum>
  Result<bool> Choice(const toml::table& table, std::string_view key, Words known,
                      Enum* out) const {
    std::string word;
    ASSIGN_OR_RETURN(const bool found, Text(table, key, &word));
    if (!found) return false;
    const auto at = std::find(known.begin(), known.end(), word);
    if (at == known.end()) {
      return Wrong(At(*table.get(key)),
                   fmt::format("unknown {} '{}'{}", key, word, DidYouMean(word, known)),
                   fmt::format("{} is one of: {}", key, fmt::join(known, ", ")));
    }
    *out = static_cast<Enum>(at - known.begin());
    return true;
  }

  Result<bool> Boolean(const toml::table& table, std::string_view key, bool* out) const {
    const toml::node* node = table.get(key);
    if (node == nullptr) return false;
    const toml::value<bool>* value = node->as_boolean();
    if (value == nullptr) {
      return Wrong(At(*node), fmt::format("'{}' is neither true nor false", key),
                   fmt::format("write {} = true, without quotes", key));
    }
    *out = value->get();
    return true;
  }

  template <typename Number>
  Result<bool> Integer(const toml::table& table, std::string_view key, std::int64_t low,
                       std::int64_t high, Number* out) const {
    const toml::node* node = table.get(key);
    if (node == nullptr) return false;
    const toml::value<std::int64_t>* value = node->as_integer();
    if (value == nullptr || value->get() < low || value->get() > high) {
      return Wrong(At(*node),
                   fmt::format("'{}' is not a whole number from {} to {}", key, low, high),
                   fmt::format("write {} = {}, without quotes", key, low));
    }
    *out = static_cast<Number>(value->get());
    return true;
  }

  Result<bool> Texts(const toml::table& table, std::string_view key, std::size_t max_texts,
                     std::vector<std::pair<std::string, toml::source_position>>* out) const {
    const toml::node* node = table.get(key);
    if (node == nullptr) return false;
    const toml::array* array = node->as_array();
    if (array == nullptr || array->empty() || array->size() > max_texts) {
      return Wrong(At(*node), fmt::format("'{}' is not a list of 1 to {} texts", key, max_texts),
                   fmt::format("write {} = [\"…\", \"…\"]", key));
    }
    for (const toml::node& element : *array) {
      const toml::value<std::string>* text = element.as_string();
      if (text == nullptr || text->get().empty()) {
        return Wrong(At(element), fmt::format("'{}' has an element that is not a text", key),
                     fmt::format("write {} = [\"…\", \"…\"]", key));
      }
      out->emplace_back(text->get(), At(element));
    }
    return true;
  }

  // ---- values of policies

  static Status Drop(const Result<bool>& found) {
    if (!found) return found.error();
    return Ok();
  }

  Status Name(const toml::table& table, std::string_view key, std::string* out) const {
    ASSIGN_OR_RETURN(const bool found, Text(table, key, out));
    if (!found || envelope::IsName(*out)) return Ok();
    return Wrong(At(*table.get(key)), fmt::format("'{}' is not a name", key),
                 "a name has 1 to 64 letters, digits, '.', '_' and '-'");
  }

  Status Pattern(const toml::table& table, std::string_view key, std::string* out) const {
    RETURN_IF_ERROR(Text(table, key, out));
    if (IsPattern(*out)) return Ok();
    return Wrong(At(*table.get(key)), fmt::format("'{}' is not a pattern of key names", key),
                 "write for example \"prod/db/**\": '*' within a segment, '**' across");
  }

  Result<bool> ReadHash(const toml::table& table, std::string_view key, Bytes32* out) const {
    std::string text;
    ASSIGN_OR_RETURN(const bool found, Text(table, key, &text));
    if (!found) return false;
    const auto hash = Hash(text);
    if (!hash) {
      return Wrong(At(*table.get(key)), fmt::format("'{}' is not a SHA-256", key),
                   "write the 64 lower-case hexadecimal digits that sha256sum prints");
    }
    *out = *hash;
    return true;
  }

  Result<bool> Duration(const toml::table& table, std::string_view key, std::int64_t* out) const {
    std::string text;
    ASSIGN_OR_RETURN(const bool found, Text(table, key, &text));
    if (!found) return false;
    const auto seconds = ParseDuration(text);
    if (!seconds) {
      return Wrong(At(*table.get(key)), fmt::format("'{}' is not a duration", key),
                   "write a number and one of s, m, h, d, w, as in \"90d\"");
    }
    *out = *seconds;
    return true;
  }

  Status OptionalDuration(const toml::table& table, std::string_view key,
                          std::optional<std::int64_t>* out) const {
    std::int64_t seconds = 0;
    ASSIGN_OR_RETURN(const bool found, Duration(table, key, &seconds));
    if (found) *out = seconds;
    return Ok();
  }

  Result<bool> Time(const toml::table& table, std::string_view key, std::int64_t* out) const {
    const toml::node* node = table.get(key);
    if (node == nullptr) return false;
    const toml::value<toml::date_time>* value = node->as_date_time();
    if (value == nullptr || !value->get().offset) {
      return Wrong(At(*node), fmt::format("'{}' is not a time with its zone", key),
                   fmt::format("write {} = 2027-12-31T00:00:00Z, without quotes", key));
    }
    const toml::date_time& time = value->get();
    const auto utc = ParseUtc(fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", time.date.year,
                                          time.date.month, time.date.day, time.time.hour,
                                          time.time.minute, time.time.second));
    if (!utc) return Wrong(At(*node), fmt::format("'{}' is no day of a calendar", key));
    const std::int64_t seconds = *utc - std::int64_t{time.offset->minutes} * 60;
    if (seconds < 0) {  // not every reader of a policy has such a time
      return Wrong(At(*node), fmt::format("'{}' is before 1970", key),
                   fmt::format("write {} = 2027-12-31T00:00:00Z, without quotes", key));
    }
    *out = seconds;
    return true;
  }

 private:
  std::string file_;
};

}  // namespace keyescrow::agent::policy
