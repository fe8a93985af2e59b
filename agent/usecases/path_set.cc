#include "agent/usecases/path_set.h"

#include <fmt/format.h>

#include <string>

#include "envelope/base/hash.h"
#include "envelope/recoverability.h"

namespace keyescrow::agent {

std::optional<Bytes32> PathSetDigest(const envelope::Header& header) {
  const auto model = envelope::PathModel::Of(header.paths);
  if (!model) return std::nullopt;
  std::string text = fmt::format("keyescrow path set 1\n{} {}\n", header.host.size(), header.host);
  for (const envelope::PathRecord& path : header.paths) {
    text += fmt::format("{} {}\n", path.id.size(), path.id);
  }
  return Sha256(AsBytes(text + model->CanonicalText()));
}

}  // namespace keyescrow::agent
