#include "agent/key_locations/key_location.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "agent/key_locations/command_location.h"
#include "agent/key_locations/file_location.h"
#include "agent/key_locations/luks_location.h"
#include "agent/key_locations/stream.h"
#include "envelope/base/nearest_word.h"

namespace keyescrow::agent {
namespace {

constexpr char kForms[] = "write file:PATH, a path, '-', exec:CMD or luks:DEVICE-OR-IMAGE";
constexpr std::string_view kSchemes[] = {"file", "exec", "luks"};

// StandardStreams: `-`.
class StandardStreams final : public KeyLocation {
 public:
  Result<SecretBytes> Read() override {
    ASSIGN_OR_RETURN(SecretBytes key, ReadKey(STDIN_FILENO, "standard input"));
    if (key.empty()) return KeySizeError("standard input", true);
    return key;
  }

  Status CheckWritable() override {
    if (isatty(STDOUT_FILENO) == 0) return Ok();
    return Error(ErrorCode::kBinaryToTerminal, Action::kFixInput,
                 "neither a key nor an envelope is written to a terminal",
                 "redirect standard output, or name a file");
  }

  Result<WriteOutcome> Write(const SecretBytes& key, const WriteOptions&) override {
    RETURN_IF_ERROR(CheckWritable());
    const int result = WritePipe(STDOUT_FILENO, key.Expose());
    if (result == 0) return WriteOutcome{.written = true};
    const bool full = result == ENOSPC || result == EDQUOT;
    return ErrnoError(full ? ErrorCode::kDestinationFull : ErrorCode::kDestinationUnwritable,
                      Action::kCheckSystemState, "cannot write to standard output",
                      "check what reads it; it may hold a part of the key", result);
  }

  std::string Describe() const override { return "-"; }
};

Error Invalid(std::string message, std::string hint) {
  return Error(ErrorCode::kInvalidLocation, Action::kFixInput, std::move(message), std::move(hint));
}

// SchemeOf returns the word before a colon, or "" where the text is a bare path.
std::string_view SchemeOf(std::string_view text) {
  const std::size_t colon = text.find(':');
  if (colon == std::string_view::npos || colon == 0) return {};
  const std::string_view scheme = text.substr(0, colon);
  const bool word = std::all_of(scheme.begin(), scheme.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
  });
  return word ? scheme : std::string_view();
}

}  // namespace

Result<std::unique_ptr<KeyLocation>> ParseLocation(std::string_view text,
                                                   const LocationOptions& options) {
  if (text.find('\0') != std::string_view::npos) {
    return Invalid("a source or sink has a NUL character", kForms);
  }
  if (text == "-") return std::unique_ptr<KeyLocation>(std::make_unique<StandardStreams>());
  const std::string_view scheme = SchemeOf(text);
  const std::string rest(scheme.empty() ? text : text.substr(scheme.size() + 1));
  if (!scheme.empty() && scheme != "file" && scheme != "exec" && scheme != "luks") {
    return Invalid(
        "unknown kind of source or sink '" + std::string(scheme) + ":'" +
            DidYouMean(scheme, kSchemes),
        "write file:PATH, exec:CMD or luks:DEVICE-OR-IMAGE; a file of this name is 'file:" +
            std::string(text) + "'");
  }
  if (rest.empty()) return Invalid("a source or sink is empty", kForms);
  if (scheme == "luks") return MakeLuksLocation(rest, options.luks_unlock_file);
  return scheme == "exec" ? MakeCommandLocation(rest) : MakeFileLocation(rest);
}

std::string AbsoluteLocation(std::string_view text) {
  const auto location = ParseLocation(text);
  if (!location) return std::string(text);
  const bool is_volume = !(*location)->VolumePath().empty();
  const std::string path = is_volume ? (*location)->VolumePath() : (*location)->FilePath();
  if (path.empty() || path.starts_with('/')) return std::string(text);
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (error) return std::string(text);
  return (is_volume ? "luks:" : "file:") + absolute.lexically_normal().string();
}

Status CheckTakesFiles(const KeyLocation& location) {
  if (location.VolumePath().empty()) return Ok();
  return Invalid("a LUKS volume takes keys and no files: " + location.Describe(),
                 "name a file, '-' or exec:CMD");
}

}  // namespace keyescrow::agent
