// Textual edits of agent.toml: every byte that is not the key's own stays as the admin wrote it.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "agent/config/config.h"
#include "agent/config/toml_config.h"
#include "agent/key_locations/crash_safe_file.h"

namespace keyescrow::agent {
namespace {

// Quoted returns a TOML basic string (TOML 1.0, String).
std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      quoted += fmt::format("\\u{:04x}", byte);
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

std::string Block(const DeclaredKey& key) {
  std::string block =
      "[[key]]\nname = " + Quoted(key.name) + "\nsource = " + Quoted(key.source) + '\n';
  if (!key.paths.empty()) {
    std::vector<std::string> paths;
    for (const std::string& path : key.paths) paths.push_back(Quoted(path));
    block += fmt::format("paths = [{}]\n", fmt::join(paths, ", "));
  }
  if (!key.kdf.empty()) block += "kdf = " + Quoted(key.kdf) + '\n';
  return block;
}

bool SameKeys(const std::vector<DeclaredKey>& left, const std::vector<DeclaredKey>& right) {
  return std::equal(left.begin(), left.end(), right.begin(), right.end(),
                    [](const DeclaredKey& a, const DeclaredKey& b) {
                      return a.name == b.name && a.source == b.source && a.paths == b.paths &&
                             a.kdf == b.kdf;
                    });
}

bool SameSettings(const AgentConfig& left, const AgentConfig& right) {
  return left.host == right.host && left.tpm == right.tpm && left.state == right.state &&
         left.default_kdf == right.default_kdf && left.kdf_costs == right.kdf_costs &&
         left.default_paths == right.default_paths &&
         left.password_profile == right.password_profile;
}

// Lines splits the text; each line keeps its end.
std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1) + 1;
    lines.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return lines;
}

std::string_view Trimmed(std::string_view line) {
  const std::size_t first = line.find_first_not_of(" \t\r\n");
  return first == std::string_view::npos ? std::string_view() : line.substr(first);
}

// WithoutBlock takes the block's lines out, the comment directly above it and one blank line
// after it. A comment that begins the file belongs to the file.
std::string WithoutBlock(std::string_view text, const BlockLines& block) {
  const std::vector<std::string_view> lines = Lines(text);
  std::size_t first = block.first - 1;
  std::size_t end = std::min<std::size_t>(block.last, lines.size());
  std::size_t comment = first;
  while (comment > 0 && Trimmed(lines[comment - 1]).starts_with('#')) --comment;
  if (comment > 0) first = comment;
  if (end < lines.size() && Trimmed(lines[end]).empty()) ++end;
  std::string rest;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    if (i < first || i >= end) rest += lines[i];
  }
  return rest;
}

// Edit is one locked reading and replacing of the file.
class Edit {
 public:
  static Result<Edit> Begin(const std::string& path) {
    ASSIGN_OR_RETURN(FileReplacement replacement, FileReplacement::Open(path));
    Edit edit(std::move(replacement));
    struct stat found {};
    ASSIGN_OR_RETURN(edit.exists_, edit.replacement_.Inspect(&found));
    if (!edit.exists_) return edit;
    // LoadConfig's checks first, then the text itself; the lock keeps our own writers apart.
    ASSIGN_OR_RETURN(const AgentConfig unused, LoadConfig(path));
    ASSIGN_OR_RETURN(const int fd, edit.replacement_.OpenExisting());
    edit.text_.resize(static_cast<std::size_t>(found.st_size));
    const ssize_t count = pread(fd, edit.text_.data(), edit.text_.size(), 0);
    close(fd);
    if (count != found.st_size) {
      return Error(ErrorCode::kConfiguration, Action::kRetry, path + " changed while it was read",
                   "run the command again");
    }
    ASSIGN_OR_RETURN(edit.parsed_, ParseToml(edit.text_, path));
    return edit;
  }

  const std::string& text() const { return text_; }
  const ParsedConfig& parsed() const { return parsed_; }

  // Finish parses `text` and replaces the file only if it declares exactly `keys` and leaves all
  // other settings as they were.
  Status Finish(const std::string& text, const std::vector<DeclaredKey>& keys) {
    const std::string& path = replacement_.path();
    auto after = ParseToml(text, path);
    if (!after) return std::move(after).error().WithContext("the file would not be valid");
    if (!SameKeys(after->config.keys, keys) || !SameSettings(after->config, parsed_.config)) {
      return Error(ErrorCode::kConfiguration, Action::kFixInput,
                   path + " is written in a way that cannot be edited without changing other parts",
                   "edit it by hand");
    }
    RETURN_IF_ERROR(replacement_.Stage(AsBytes(text)));
    if (!exists_) {
      RETURN_IF_ERROR(replacement_.SetMode(0644));
      return replacement_.Publish(FileReplacement::Existing::kKeep);
    }
    ASSIGN_OR_RETURN(const int fd, replacement_.OpenExisting());
    const Status copied = replacement_.CopyAccess(fd);
    close(fd);
    RETURN_IF_ERROR(copied);
    return replacement_.Publish(FileReplacement::Existing::kReplace);
  }

 private:
  explicit Edit(FileReplacement replacement) : replacement_(std::move(replacement)) {}

  FileReplacement replacement_;
  bool exists_ = false;
  std::string text_;
  ParsedConfig parsed_;
};

}  // namespace

Status AddDeclaredKey(const std::string& path, const DeclaredKey& key) {
  std::error_code ignored;  // Open tells what is wrong with the folder
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), ignored);
  ASSIGN_OR_RETURN(Edit edit, Edit::Begin(path));
  if (const DeclaredKey* other = edit.parsed().config.FindKey(key.name)) {
    return Error(
        ErrorCode::kAlreadyExists, Action::kFixInput,
        fmt::format("key '{}' is declared already, on line {} of {}", key.name, other->line, path),
        "remove it first with 'key remove', or edit the file");
  }
  std::string text = edit.text();
  if (!text.empty() && !text.ends_with('\n')) text += '\n';
  if (!text.empty()) text += '\n';
  text += Block(key);
  std::vector<DeclaredKey> keys = edit.parsed().config.keys;
  keys.push_back(key);
  return edit.Finish(text, keys);
}

Status RemoveDeclaredKey(const std::string& path, std::string_view name) {
  ASSIGN_OR_RETURN(Edit edit, Edit::Begin(path));
  std::vector<DeclaredKey> keys = edit.parsed().config.keys;
  const auto found = std::find_if(keys.begin(), keys.end(),
                                  [&](const DeclaredKey& key) { return key.name == name; });
  if (found == keys.end()) {
    return Error(ErrorCode::kNotFound, Action::kFixInput,
                 fmt::format("key '{}' is not declared in {}", name, path),
                 "'key list' shows the declared keys");
  }
  const BlockLines& block = edit.parsed().blocks[static_cast<std::size_t>(found - keys.begin())];
  if (block.is_inline) {
    return Error(
        ErrorCode::kConfiguration, Action::kFixInput,
        fmt::format("key '{}' is written inline on line {} of {}", name, block.first, path),
        "remove it by hand, or write it as a [[key]] block");
  }
  keys.erase(found);
  return edit.Finish(WithoutBlock(edit.text(), block), keys);
}

}  // namespace keyescrow::agent
