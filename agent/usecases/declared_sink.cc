#include "agent/usecases/declared_sink.h"

#include <sys/stat.h>

namespace keyescrow::agent {

bool TakesKeys(const std::string& source) {
  const auto location = ParseLocation(source);
  return location && (!(*location)->FilePath().empty() || !(*location)->VolumePath().empty());
}

Result<std::string> DeclaredSink(const DeclaredKey& declared, const std::string& options) {
  if (TakesKeys(declared.source)) return declared.source;
  const std::string what = declared.source == "-" ? "standard input" : "a command";
  return Error(ErrorCode::kUsage, Action::kFixInput,
               "where should the key go? the declared source of " + declared.name + " is " + what +
                   ", which gives the key and takes none",
               "name the place or the command that takes it: add " + options);
}

Status CheckOutsideState(const KeyLocation& location, const std::string& state_dir) {
  const std::string path = location.FilePath();
  if (path.empty()) return Ok();
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  struct stat its_folder {};
  struct stat state {};
  if (stat(folder.c_str(), &its_folder) != 0 || stat(state_dir.c_str(), &state) != 0 ||
      its_folder.st_dev != state.st_dev || its_folder.st_ino != state.st_ino) {
    return Ok();
  }
  return Error(ErrorCode::kUsage, Action::kFixInput,
               path + " lies in the state folder, among the agent's own files",
               "name a file in another folder");
}

}  // namespace keyescrow::agent
