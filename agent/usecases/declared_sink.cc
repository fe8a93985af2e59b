#include "agent/usecases/declared_sink.h"

#include "agent/key_locations/key_location.h"

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

}  // namespace keyescrow::agent
