#include "agent/usecases/written_key.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <utility>

#include "agent/key_locations/file_location.h"
#include "agent/usecases/shell_word.h"

namespace keyescrow::agent {

std::string OpenToOthers(const std::string& path) {
  const auto access = StatKeyFile(path);
  if (!access || (access->permissions & 0066) == 0) return "";
  return fmt::format(
      "others on this host may read {} (mode {:04o}): 'chmod 600' it, or where its file system "
      "keeps no modes, mount that with umask=077",
      path, access->permissions);
}

bool OnOneFileSystem(const std::string& left, const std::string& right) {
  struct stat left_status {};
  struct stat right_status {};
  return !left.empty() && !right.empty() && stat(left.c_str(), &left_status) == 0 &&
         stat(right.c_str(), &right_status) == 0 && left_status.st_dev == right_status.st_dev;
}

Error CopyFailed(Error error, const BackupRequest& request, const BackupResult& result) {
  std::string hint = fmt::format(
      "the key is escrowed as version {} all the same: when the cause is gone, 'keyescrow export "
      "{} -o {}' writes the copy",
      result.key_version, result.key_name, ShellWord(request.output));
  if (!request.sink.empty()) {
    hint += fmt::format(", and 'keyescrow restore {} --to {}' hands the new key over",
                        result.key_name, ShellWord(request.sink));
  }
  return std::move(error).WithHint(std::move(hint));
}

}  // namespace keyescrow::agent
