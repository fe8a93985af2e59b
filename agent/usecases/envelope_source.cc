#include "agent/usecases/envelope_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "agent/usecases/destroy.h"
#include "envelope/json_strict.h"
#include "envelope/sheet_lines.h"

namespace keyescrow::agent {
namespace {

constexpr char kEnvelope[] = "envelope";

Result<Bytes> ReadFile(const std::string& path, const std::string& what) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) {
    return ErrnoError(ErrorCode::kEnvelopeUnreadable, Action::kFixInput,
                      "cannot read the " + what + " " + path, "check the path and its permissions",
                      errno);
  }
  struct stat status {};
  std::size_t size = 0;
  int error_number = 0;
  if (fstat(fd, &status) == 0 && S_ISDIR(status.st_mode)) error_number = EISDIR;
  const bool sized = S_ISREG(status.st_mode) &&
                     static_cast<std::size_t>(status.st_size) < envelope::kMaxFileSizeBytes;
  Bytes bytes((sized ? static_cast<std::size_t>(status.st_size) : envelope::kMaxFileSizeBytes) + 1);
  while (error_number == 0 && size < bytes.size()) {
    const ssize_t count = read(fd, bytes.data() + size, bytes.size() - size);
    if (count == 0) break;
    if (count < 0 && errno != EINTR) error_number = errno;
    if (count > 0) size += static_cast<std::size_t>(count);
    if (count > 0 && size == bytes.size() && bytes.size() <= envelope::kMaxFileSizeBytes) {
      bytes.resize(envelope::kMaxFileSizeBytes + 1);  // it grew while it was read
    }
  }
  close(fd);
  if (error_number != 0) {
    return ErrnoError(ErrorCode::kEnvelopeUnreadable, Action::kFixInput,
                      "cannot read the " + what + " " + path, "name a regular file", error_number);
  }
  if (size > envelope::kMaxFileSizeBytes && what != kEnvelope) {
    return Error(ErrorCode::kUsage, Action::kFixInput, path + " is over 3 MiB: no " + what,
                 "check that it is the right file");
  }
  if (size > envelope::kMaxFileSizeBytes) {
    return envelope::LimitError("the " + what + " is over 3 MiB").WithContext(path);
  }
  bytes.resize(size);
  return bytes;
}

bool IsExistingFile(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 && !S_ISDIR(status.st_mode);
}

}  // namespace

bool IsKept(Agent* agent, const EnvelopeSource& source, const envelope::SealedEnvelope& sealed) {
  if (agent == nullptr || source.record) return source.record.has_value();
  const auto found =
      agent->store().FindEnvelope(sealed.header().key_name, sealed.header().key_version);
  return found && found->sha256 == sealed.hash();
}

Result<Bytes> ReadDocument(const std::string& path, const std::string& what) {
  return ReadFile(path, what);
}

bool LooksLikeFile(const std::string& text) {
  return text.ends_with(".escrow") || text.starts_with("/") || text.starts_with("./") ||
         text.starts_with("../") || text.starts_with("file:");
}

Result<EnvelopeSource> FindEnvelope(Agent* agent, const std::string& name_or_file,
                                    std::optional<std::uint64_t> version) {
  EnvelopeSource source;
  const std::string path =
      name_or_file.starts_with("file:") ? name_or_file.substr(5) : name_or_file;
  if (!LooksLikeFile(name_or_file)) {
    if (!envelope::IsKeyName(name_or_file) && !IsExistingFile(path)) {
      return Error(ErrorCode::kInvalidName, Action::kFixInput,
                   "\"" + name_or_file + "\" is neither a key name nor a file",
                   "a key name has letters, digits, '.', '_' and '-' in segments of at most 64, "
                   "joined by '/', at most 128 in all");
    }
    if (agent != nullptr && envelope::IsKeyName(name_or_file)) {
      if (version && *version > INT32_MAX) {
        return Error(ErrorCode::kVersionNotFound, Action::kFixInput,
                     name_or_file + " has no version " + std::to_string(*version),
                     "'show " + name_or_file + "' tells the newest version");
      }
      auto record = agent->store().FindEnvelope(
          name_or_file,
          version ? std::optional(static_cast<std::uint32_t>(*version)) : std::nullopt);
      if (record) {
        source.bytes = std::move(record->bytes);
        source.record = std::move(*record);
        return source;
      }
      if (record.error().code() != ErrorCode::kKeyNotFound || !IsExistingFile(path)) {
        return TellDestroyed(*agent, name_or_file, std::move(record).error());
      }
    }
    if (agent == nullptr && !IsExistingFile(path)) {
      return Error(ErrorCode::kNotInitialized, Action::kFixInput,
                   "there is no state here, and no file \"" + name_or_file + "\"",
                   "run 'keyescrow init' first, or name an envelope's file");
    }
  }
  ASSIGN_OR_RETURN(source.bytes, ReadFile(path, kEnvelope));
  // What was scanned from a recovery sheet stands wherever an envelope does.
  if (envelope::LooksLikeSheet(source.bytes)) {
    auto joined = envelope::JoinSheetLines(AsText(source.bytes));
    if (!joined) return std::move(joined).error().WithContext(path);
    source.bytes = std::move(*joined);
  }
  source.file = path;
  return source;
}

Result<envelope::ReadOptions> TrustFor(Agent* agent, const std::string& thumbprint,
                                       bool accept_unknown_agent) {
  envelope::ReadOptions options;
  options.accept_unknown_agent = accept_unknown_agent;
  if (agent != nullptr) {
    ASSIGN_OR_RETURN(options.trusted, agent->TrustedAgents());
  }
  if (!thumbprint.empty()) {
    // A thumbprint that the person compared counts for every host and key, whatever is registered.
    std::erase_if(options.trusted, [&](const envelope::TrustedAgent& trusted) {
      return trusted.thumbprint == thumbprint;
    });
    options.trusted.push_back({thumbprint, {}, {}});
  }
  return options;
}

}  // namespace keyescrow::agent
