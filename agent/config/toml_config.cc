#include "agent/config/toml_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <new>
#include <utility>

#include "agent/config/strict_toml.h"
#include "envelope/base/nearest_word.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMaxPaths = 16;
constexpr std::int64_t kMaxNumber = 33554432;
constexpr char kManual[] = "CONFIGURATION in keyescrow(1) lists what agent.toml may hold";

constexpr std::string_view kRootKeys[] = {"agent", "defaults", "key"};
constexpr std::string_view kAgentKeys[] = {"host", "tpm", "state"};
constexpr std::string_view kDefaultsKeys[] = {
    "kdf",   "argon2id_memory_kib", "argon2id_passes", "argon2id_lanes", "pbkdf2_iterations",
    "paths", "password_profile"};
constexpr std::string_view kKeyKeys[] = {"name", "source", "paths", "kdf"};
constexpr std::string_view kKdfs[] = {"argon2id", "pbkdf2-sha512"};
constexpr std::string_view kProfiles[] = {"nist-800-63b", "ssrs"};

using Words = std::span<const std::string_view>;

// Reader turns tables into AgentConfig; its methods name the place of what is wrong.
class Reader {
 public:
  explicit Reader(const std::string& file) : file_(file) {}

  Error Wrong(const toml::source_position& at, std::string_view cause,
              std::string hint = kManual) const {
    return Error(ErrorCode::kConfiguration, Action::kFixInput,
                 fmt::format("{} line {} column {}: {}", file_, at.line, at.column, cause),
                 std::move(hint));
  }

  Result<ParsedConfig> Root(const toml::table& root) const {
    ParsedConfig parsed;
    AgentConfig& config = parsed.config;
    config.present = true;
    config.file = file_;
    RETURN_IF_ERROR(CheckKeys(root, kRootKeys, "the file"));
    if (const toml::node* node = root.get("agent")) {
      ASSIGN_OR_RETURN(const toml::table* table, Table(*node, "agent"));
      RETURN_IF_ERROR(CheckKeys(*table, kAgentKeys, "[agent]"));
      RETURN_IF_ERROR(Text(*table, "host", &config.host));
      RETURN_IF_ERROR(Text(*table, "tpm", &config.tpm));
      RETURN_IF_ERROR(Text(*table, "state", &config.state));
    }
    if (const toml::node* node = root.get("defaults")) {
      ASSIGN_OR_RETURN(const toml::table* table, Table(*node, "defaults"));
      RETURN_IF_ERROR(CheckKeys(*table, kDefaultsKeys, "[defaults]"));
      RETURN_IF_ERROR(Choice(*table, "kdf", kKdfs, &config.default_kdf));
      RETURN_IF_ERROR(Choice(*table, "password_profile", kProfiles, &config.password_profile));
      RETURN_IF_ERROR(Paths(*table, &config.default_paths));
      KdfCosts& costs = config.kdf_costs;
      RETURN_IF_ERROR(Number(*table, "argon2id_memory_kib", &costs.argon2id_memory_kib));
      RETURN_IF_ERROR(Number(*table, "argon2id_passes", &costs.argon2id_passes));
      RETURN_IF_ERROR(Number(*table, "argon2id_lanes", &costs.argon2id_lanes));
      RETURN_IF_ERROR(Number(*table, "pbkdf2_iterations", &costs.pbkdf2_iterations));
    }
    if (const toml::node* node = root.get("key")) RETURN_IF_ERROR(Keys(*node, &parsed));
    return parsed;
  }

 private:
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

  Result<const toml::table*> Table(const toml::node& node, std::string_view name) const {
    if (node.is_table()) return node.as_table();
    return Wrong(node.source().begin, fmt::format("'{}' is not a table", name),
                 fmt::format("write [{}] on a line of its own", name));
  }

  // Text leaves `out` alone where the key is absent.
  Status Text(const toml::table& table, std::string_view key, std::string* out) const {
    const toml::node* node = table.get(key);
    if (node == nullptr) return Ok();
    const toml::value<std::string>* text = node->as_string();
    if (text == nullptr || text->get().empty()) {
      return Wrong(node->source().begin,
                   fmt::format("'{}' is not a text of one character or more", key),
                   fmt::format("write {} = \"…\", or leave the line out", key));
    }
    if (text->get().find('\0') != std::string::npos) {
      return Wrong(node->source().begin, fmt::format("'{}' has a NUL character", key));
    }
    *out = text->get();
    return Ok();
  }

  // Number leaves `out` alone where the key is absent.
  Status Number(const toml::table& table, std::string_view key,
                std::optional<std::uint32_t>* out) const {
    const toml::node* node = table.get(key);
    if (node == nullptr) return Ok();
    const toml::value<std::int64_t>* number = node->as_integer();
    if (number == nullptr || number->get() < 1 || number->get() > kMaxNumber) {
      return Wrong(node->source().begin,
                   fmt::format("'{}' is not a whole number from 1 to {}", key, kMaxNumber),
                   fmt::format("write {} = 4, or leave the line out", key));
    }
    *out = static_cast<std::uint32_t>(number->get());
    return Ok();
  }

  Status Choice(const toml::table& table, std::string_view key, Words known,
                std::string* out) const {
    RETURN_IF_ERROR(Text(table, key, out));
    const toml::node* node = table.get(key);
    if (node == nullptr || std::find(known.begin(), known.end(), *out) != known.end()) return Ok();
    return Wrong(node->source().begin,
                 fmt::format("unknown {} '{}'{}", key, *out, DidYouMean(*out, known)),
                 fmt::format("{} is one of: {}", key, fmt::join(known, ", ")));
  }

  Status Paths(const toml::table& table, std::vector<std::string>* out) const {
    const toml::node* node = table.get("paths");
    if (node == nullptr) return Ok();
    const toml::array* array = node->as_array();
    constexpr char kHint[] = "write for example paths = [\"password & token:ops\"]";
    if (array == nullptr || array->empty() || array->size() > kMaxPaths) {
      return Wrong(node->source().begin, "'paths' is not a list of 1 to 16 path expressions",
                   kHint);
    }
    for (const toml::node& element : *array) {
      const toml::value<std::string>* text = element.as_string();
      if (text == nullptr || text->get().empty()) {
        return Wrong(element.source().begin, "a path is not a text", kHint);
      }
      out->push_back(text->get());
    }
    return Ok();
  }

  Status Keys(const toml::node& node, ParsedConfig* parsed) const {
    const toml::array* array = node.as_array();
    if (array == nullptr || !array->is_homogeneous(toml::node_type::table)) {
      return Wrong(node.source().begin, "'key' is not a list of tables",
                   "write [[key]], with two brackets, above each key's name and source");
    }
    for (const toml::node& element : *array) {
      const toml::table& table = *element.as_table();
      const toml::source_position at = table.source().begin;
      RETURN_IF_ERROR(CheckKeys(table, kKeyKeys, "[[key]]"));
      DeclaredKey key;
      key.line = at.line;
      RETURN_IF_ERROR(Text(table, "name", &key.name));
      RETURN_IF_ERROR(Text(table, "source", &key.source));
      RETURN_IF_ERROR(Choice(table, "kdf", kKdfs, &key.kdf));
      RETURN_IF_ERROR(Paths(table, &key.paths));
      if (key.name.empty() || key.source.empty()) {
        return Wrong(at, fmt::format("a [[key]] without {}", key.name.empty() ? "name" : "source"),
                     "each [[key]] has name = \"…\" and source = \"…\"");
      }
      if (const DeclaredKey* other = parsed->config.FindKey(key.name)) {
        return Wrong(
            at, fmt::format("key '{}' is declared twice, first on line {}", key.name, other->line),
            "remove one of them");
      }
      BlockLines lines{.first = at.line, .last = at.line, .is_inline = table.is_inline()};
      for (const auto& [unused, value] : table) {
        lines.last = std::max(lines.last, value.source().end.line);
      }
      parsed->blocks.push_back(lines);
      parsed->config.keys.push_back(std::move(key));
    }
    return Ok();
  }

  const std::string& file_;
};

}  // namespace

Result<ParsedConfig> ParseToml(std::string_view text, const std::string& file) {
  const Reader reader(file);
  if (const std::uint32_t line = LineOfLongKey(text); line != 0) {
    return reader.Wrong({line, 1}, "a key has more than 64 parts");
  }
  try {
    return reader.Root(toml::parse(text));
  } catch (const toml::parse_error& error) {
    return reader.Wrong(error.source().begin, error.description(), "correct the TOML on that line");
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::kOutOfMemory, Action::kCheckSystemState,
                 "not enough memory to read " + file, "free some memory and try again");
  }
}

}  // namespace keyescrow::agent
