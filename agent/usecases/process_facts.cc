#include "agent/usecases/process_facts.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/timex.h>
#include <unistd.h>

#include <charconv>
#include <climits>
#include <string_view>

#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

std::string ReadSmallFile(const char* path, std::size_t max_bytes) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return "";
  std::string text(max_bytes, '\0');
  std::size_t size = 0;
  while (size < max_bytes) {
    const ssize_t count = read(file, text.data() + size, max_bytes - size);
    if (count <= 0) break;
    size += static_cast<std::size_t>(count);
  }
  close(file);
  text.resize(size);
  return text;
}

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  return text;
}

std::string UserName(uid_t uid) {
  const std::string passwd = ReadSmallFile("/etc/passwd", 256 * 1024);
  const std::string uid_field = fmt::format("{}", uid);
  for (std::string_view rest = passwd; !rest.empty();) {
    const std::size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const std::size_t name_end = line.find(':');
    if (name_end == std::string_view::npos) continue;
    const std::size_t uid_start = line.find(':', name_end + 1);
    if (uid_start == std::string_view::npos) continue;
    const std::string_view field = line.substr(uid_start + 1);
    if (field.substr(0, field.find(':')) == uid_field) return std::string(line.substr(0, name_end));
  }
  return "";
}

}  // namespace

audit::Actor CurrentActor() {
  audit::Actor actor;
  actor.uid = getuid();
  const std::string login = ReadSmallFile("/proc/self/loginuid", 16);
  const std::string_view digits = Trimmed(login);
  std::uint32_t login_uid = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), login_uid);
  // 2^32 - 1 is the kernel's "not set".
  if (!digits.empty() && error == std::errc() && end == digits.data() + digits.size() &&
      login_uid != UINT_MAX) {
    actor.login_uid = login_uid;
  }
  actor.name = UserName(getuid());
  actor.pid = getpid();
  char exe[PATH_MAX];
  const ssize_t size = readlink("/proc/self/exe", exe, sizeof exe);
  if (size > 0) actor.exe.assign(exe, static_cast<std::size_t>(size));
  return actor;
}

std::string BootId() {
  return std::string(Trimmed(ReadSmallFile("/proc/sys/kernel/random/boot_id", 64)));
}

std::string MachineId() {
  // One process is of one machine.
  static const std::string id = []() -> std::string {
    const std::string text = ReadSmallFile("/etc/machine-id", 64);
    if (Trimmed(text).empty()) return "";
    return EncodeBase64Url(Sha256(AsBytes("keyescrow machine " + std::string(Trimmed(text)))));
  }();
  return id;
}

bool ClockSynchronized() {
  timex state{};
  const int result = adjtimex(&state);
  return result >= 0 && result != TIME_ERROR && (state.status & STA_UNSYNC) == 0;
}

}  // namespace keyescrow::agent
