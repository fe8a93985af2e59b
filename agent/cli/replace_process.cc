#include "agent/cli/replace_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <string_view>

namespace keyescrow::agent {
namespace {

constexpr std::string_view kDefaultPath = "/usr/local/bin:/usr/bin:/bin";

Error NotStarted(const std::string& program, int error_number) {
  return ErrnoError(ErrorCode::kUsage, Action::kFixInput,
                    "the command cannot be started: " + program,
                    "check its path, and that it is an executable file", error_number);
}

// ExecutableError returns 0 where the file can be executed, else an errno.
int ExecutableError(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return errno;
  if (!S_ISREG(status.st_mode)) return EACCES;
  return access(path.c_str(), X_OK) == 0 ? 0 : errno;
}

}  // namespace

ProcessBefore::ProcessBefore() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], nullptr, &actions_[i]);
  getrlimit(RLIMIT_CORE, &core_);
  for (int fd = 0; fd <= 2; ++fd) {
    closed_[static_cast<std::size_t>(fd)] = fcntl(fd, F_GETFD) == -1;
  }
}

void ProcessBefore::Harden() const {
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  const rlimit soft{0, core_.rlim_max};
  setrlimit(RLIMIT_CORE, &soft);
}

Error ProcessBefore::Become(const std::string& program,
                            const std::vector<std::string>& arguments) const {
  std::vector<char*> words;
  for (const std::string& argument : arguments)
    words.push_back(const_cast<char*>(argument.c_str()));
  words.push_back(nullptr);
  setrlimit(RLIMIT_CORE, &core_);
  for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &actions_[i], nullptr);
  // They are needed once more where the exec fails: until then close-on-exec is as good.
  for (int fd = 0; fd <= 2; ++fd) {
    if (closed_[static_cast<std::size_t>(fd)]) fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
  execv(program.c_str(), words.data());
  return NotStarted(program, errno);
}

Result<std::string> FindProgram(const std::string& word) {
  if (word.find('/') != std::string::npos) {
    if (const int error = ExecutableError(word); error != 0) return NotStarted(word, error);
    return word;
  }
  const char* variable = std::getenv("PATH");
  std::string_view rest = variable != nullptr ? std::string_view(variable) : kDefaultPath;
  int found_error = ENOENT;
  while (true) {
    const std::size_t end = std::min(rest.find(':'), rest.size());
    const std::string folder(rest.substr(0, end));
    const std::string candidate = (folder.empty() ? "." : folder) + "/" + word;
    const int error = ExecutableError(candidate);
    if (error == 0) return candidate;
    if (error != ENOENT && error != ENOTDIR) found_error = error;
    if (end == rest.size()) break;
    rest.remove_prefix(end + 1);
  }
  return NotStarted(word, found_error);
}

}  // namespace keyescrow::agent
