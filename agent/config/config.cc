#include "agent/config/config.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "agent/config/toml_config.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMaxFileBytes = 1u << 20;

Error Unreadable(const std::string& path, int error_number) {
  return ErrnoError(ErrorCode::kConfiguration, Action::kCheckSystemState, "cannot read " + path,
                    "check its permissions, or name another file with --config", error_number);
}

// CheckOwner refuses a file that somebody else can write: its exec: sources run as this user.
Status CheckOwner(int fd, const std::string& path) {
  struct stat found {};
  if (fstat(fd, &found) != 0) return Unreadable(path, errno);
  if (S_ISDIR(found.st_mode)) return Unreadable(path, EISDIR);
  if (!S_ISREG(found.st_mode)) return Ok();
  const bool foreign = found.st_uid != geteuid() && found.st_uid != 0;
  const bool group =
      (found.st_mode & S_IWGRP) != 0 && (geteuid() == 0 || found.st_gid != getegid());
  if (!foreign && !group && (found.st_mode & S_IWOTH) == 0) return Ok();
  return Error(ErrorCode::kConfiguration, Action::kFixInput,
               path + " can be written by others, and it names commands that run as this user",
               foreign ? "make it a file of your own with 'chown'"
                       : "run 'chmod go-w " + path + "' and look through it");
}

Result<std::string> ReadText(int fd, const std::string& path) {
  std::string text;
  char buffer[4096];
  while (true) {
    const ssize_t count = read(fd, buffer, sizeof buffer);
    if (count < 0) {
      if (errno == EINTR) continue;
      return Unreadable(path, errno);
    }
    if (count == 0) return text;
    text.append(buffer, static_cast<std::size_t>(count));
    if (text.size() > kMaxFileBytes) {
      return Error(ErrorCode::kConfiguration, Action::kFixInput, path + " is larger than 1 MiB",
                   "check that it is an agent.toml");
    }
  }
}

}  // namespace

const DeclaredKey* AgentConfig::FindKey(std::string_view name) const {
  const auto found = std::find_if(keys.begin(), keys.end(),
                                  [&](const DeclaredKey& key) { return key.name == name; });
  return found == keys.end() ? nullptr : &*found;
}

Result<AgentConfig> ParseConfig(std::string_view text, const std::string& file) {
  ASSIGN_OR_RETURN(ParsedConfig parsed, ParseToml(text, file));
  return std::move(parsed.config);
}

Result<AgentConfig> LoadConfig(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) {
    if (errno != ENOENT) return Unreadable(path, errno);
    AgentConfig absent;
    absent.file = path;
    return absent;
  }
  auto safe = CheckOwner(fd, path);
  auto text = safe ? ReadText(fd, path) : Result<std::string>(std::move(safe).error());
  close(fd);
  if (!text) return std::move(text).error();
  return ParseConfig(*text, path);
}

}  // namespace keyescrow::agent
