// Which path of an envelope to open: the one that was named, or those whose devices can be here.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "agent/usecases/ceremony_desk.h"
#include "agent/usecases/open_path.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {

// MayTryAnotherPath: a device is not here, hangs, is locked or is another one; never a refused
// authorisation.
bool MayTryAnotherPath(const Error& error);

// PathChooser yields the paths to try: the one that --via names, or all in the header's order but
// those that cannot be of this host. A token's module loads while the attempt is logged; that the
// token is missing shows when the path is opened. With a desk, officers who are not here are waited
// for where their path was named, or once no other path is left. `sealed`, `opener` and `desk`
// outlive it; without a person who can be asked `desk` is null.
class PathChooser {
 public:
  PathChooser(const envelope::SealedEnvelope& sealed, PathOpener& opener,
              CeremonyDesk* desk = nullptr)
      : sealed_(sealed), opener_(opener), desk_(desk) {}

  // Named begins the path of that id. Errors: kPathNotFound; PathOpener::Begin's.
  Result<std::size_t> Named(const std::string& id);

  // Next returns the next path to try. Errors: when none is left, why each one failed.
  Result<std::size_t> Next();
  void Refuse(const std::string& id, const Error& error) { refused_.emplace_back(id, error); }

 private:
  Error Nothing() const;

  const envelope::SealedEnvelope& sealed_;
  PathOpener& opener_;
  CeremonyDesk* desk_;
  std::vector<std::size_t> waiting_;  // paths whose officers are not here
  std::size_t next_ = 0;
  std::vector<std::pair<std::string, Error>> refused_;
};

// OpenedBy: an envelope that is open, and the path that opened it.
struct OpenedBy {
  envelope::OpenedEnvelope envelope;
  std::size_t index;
};

// OpenByChoice opens by the path `via`, or, for "", by the first whose devices are here; a path
// whose device fails is told of and the next one tried. `tried` becomes the last path that was
// opened or failed to. Errors: PathOpener::Open's, PathChooser's.
Result<OpenedBy> OpenByChoice(const envelope::SealedEnvelope& sealed, PathOpener& opener,
                              const std::string& via, Secrets& secrets, Progress& progress,
                              const envelope::PathRecord*& tried);

// PathNotFound says which paths the envelope has.
Error PathNotFound(const envelope::Header& header, const std::string& id);

}  // namespace keyescrow::agent
