#include "envelope/edit.h"

#include "envelope/base/base64url.h"
#include "envelope/base/pause_point.h"
#include "envelope/sealing.h"

namespace keyescrow::envelope {

Result<SealedBytes> Reseal(const SealedEnvelope& sealed, const OpenedEnvelope& opened,
                           const EditDraft& draft, const std::vector<NextPath>& paths,
                           Signer& signer, RandomSource& random) {
  Header header = sealed.header();
  ++header.revision;
  header.previous = EncodeBase64Url(sealed.hash());
  header.policy = draft.policy;
  header.updated = draft.updated;
  header.agent = JwkThumbprint(signer.PublicKey());
  header.paths.clear();
  for (const NextPath& next : paths) {
    if (const auto* kept = std::get_if<KeptPath>(&next)) {
      header.paths.push_back(sealed.header().paths.at(kept->index));
      continue;
    }
    ASSIGN_OR_RETURN(PathRecord path,
                     WrapPath(header, std::get<EnrolledPath>(next), opened.file_key(), random));
    header.paths.push_back(std::move(path));
  }
  PausePoint("paths-wrapped");
  return SealHeader(header, opened.file_key(), opened.content(), signer, random);
}

bool SamePath(const PathRecord& left, const PathRecord& right) {
  // A header writes a path alike wherever it stands.
  Header left_header;
  Header right_header;
  left_header.paths.push_back(left);
  right_header.paths.push_back(right);
  return WriteHeader(left_header) == WriteHeader(right_header);
}

}  // namespace keyescrow::envelope
