#include "agent/usecases/path_choice.h"

#include <algorithm>

namespace keyescrow::agent {
namespace {

bool HasShares(const envelope::PathRecord& path) {
  return std::ranges::any_of(path.factors, [](const envelope::FactorRecord& factor) {
    return std::holds_alternative<envelope::SharesRecord>(factor);
  });
}

}  // namespace

bool MayTryAnotherPath(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kTpmUnavailable:
    case ErrorCode::kTpmTimeout:
    case ErrorCode::kTpmWrongDevice:
    case ErrorCode::kTpmSrkUntrusted:
    case ErrorCode::kTpmOwnerAuth:
    case ErrorCode::kTpmBusy:
    case ErrorCode::kTpmReset:
    case ErrorCode::kTpmPcrMismatch:
    case ErrorCode::kTpmFailure:
    case ErrorCode::kTpmResponse:
    case ErrorCode::kTpmLockout:
    case ErrorCode::kTpmLastTry:
    case ErrorCode::kModuleMissing:
    case ErrorCode::kModuleInvalid:
    case ErrorCode::kModuleFailed:
    case ErrorCode::kTokenTimeout:
    case ErrorCode::kTokenNotFound:
    case ErrorCode::kTokenAmbiguous:
    case ErrorCode::kTokenKeyNotFound:
    case ErrorCode::kTokenNotRegistered:
    case ErrorCode::kTokenRemoved:
    case ErrorCode::kTokenDevice:
    case ErrorCode::kPinLocked:
    case ErrorCode::kPinLastTry:
    case ErrorCode::kFactorMissing: return true;  // its token failed at a login: it was not asked
    default: return false;
  }
}

Error PathNotFound(const envelope::Header& header, const std::string& id) {
  std::string ids;
  for (const envelope::PathRecord& path : header.paths) ids += (ids.empty() ? "" : ", ") + path.id;
  return Error(ErrorCode::kPathNotFound, Action::kFixInput,
               "the envelope has no path \"" + id + "\"", "its paths are " + ids);
}

Result<std::size_t> PathChooser::Named(const std::string& id) {
  const envelope::PathRecord* path = sealed_.header().FindPath(id);
  if (path == nullptr) {
    // The format's word for it; exit status 3.
    return PathNotFound(sealed_.header(), id).WithFailure(Failure::kFactor);
  }
  const auto index = static_cast<std::size_t>(path - sealed_.header().paths.data());
  if (desk_ != nullptr) desk_->SetWaits(true);
  RETURN_IF_ERROR(opener_.Begin(index));
  return index;
}

Result<std::size_t> PathChooser::Next() {
  const auto& paths = sealed_.header().paths;
  for (; next_ < paths.size(); ++next_) {
    const bool asks_officers = desk_ != nullptr && HasShares(paths[next_]);
    if (asks_officers) desk_->SetWaits(false);
    Status begun = asks_officers ? opener_.Present(next_) : opener_.Begin(next_);
    if (begun && asks_officers) desk_->SetWaits(true);  // one of them may stand back
    if (begun) return next_++;
    if (asks_officers) waiting_.push_back(next_);
    Refuse(paths[next_].id, begun.error());
  }
  if (waiting_.empty()) return Nothing();
  const std::size_t index = waiting_.front();
  waiting_.clear();
  desk_->SetWaits(true);
  return index;
}

Result<OpenedBy> OpenByChoice(const envelope::SealedEnvelope& sealed, PathOpener& opener,
                              const std::string& via, Secrets& secrets, Progress& progress,
                              const envelope::PathRecord*& tried) {
  PathChooser chooser(sealed, opener, secrets.Desk());
  progress.Step("looking for the path's devices");
  tried = sealed.header().FindPath(via);
  ASSIGN_OR_RETURN(std::size_t index, via.empty() ? chooser.Next() : chooser.Named(via));
  while (true) {
    tried = &sealed.header().paths[index];
    auto opened = opener.Open(index);
    if (opened) return OpenedBy{std::move(*opened), index};
    if (!via.empty() || !MayTryAnotherPath(opened.error())) return std::move(opened).error();
    chooser.Refuse(tried->id, opened.error());
    ASSIGN_OR_RETURN(index, chooser.Next());  // where none is left, its error has every reason
    progress.Warn("the path " + tried->id + " does not open here: " + opened.error().message());
  }
}

Error PathChooser::Nothing() const {
  if (refused_.size() == 1) return refused_.front().second;
  std::string reasons;
  for (const auto& [id, error] : refused_) {
    reasons += (reasons.empty() ? "" : "; ") + id + ": " + error.message();
  }
  const Error& first = refused_.front().second;
  return Error(first.code(), first.action(), "no path can be opened here: " + reasons, first.hint())
      .WithFailure(first.failure())
      .WithNative(first.native_domain(), first.native_code());
}

}  // namespace keyescrow::agent
