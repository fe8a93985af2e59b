#include "agent/usecases/ceremony.h"

#include <fmt/format.h>

#include <optional>
#include <vector>

#include "agent/usecases/path_proof.h"
#include "envelope/base/pause_point.h"
#include "envelope/shares.h"

namespace keyescrow::agent {
namespace {

envelope::FactorRecord FactorOf(const envelope::ShareMember& member) {
  return std::visit([](const auto& token) { return envelope::FactorRecord(token); }, member.factor);
}

// IsOfThisProcess: the failure is this machine's, and no other officer would fare better.
bool IsOfThisProcess(ErrorCode code) {
  return code == ErrorCode::kMemoryLockLimit || code == ErrorCode::kOutOfMemory ||
         code == ErrorCode::kCryptoLibrary || code == ErrorCode::kInternal;
}

// WasRefused: a login was tried, or would have been, and the token does not take it.
bool WasRefused(ErrorCode code) {
  switch (code) {
    case ErrorCode::kWrongPin:
    case ErrorCode::kPinEmpty:
    case ErrorCode::kPinInvalid:
    case ErrorCode::kPinLocked:
    case ErrorCode::kPinLastTry:
    case ErrorCode::kPinExpired: return true;
    default: return false;
  }
}

// Absence: an officer who did not serve, and why.
struct Absence {
  std::string name;
  Error why;
};

// TooFew is the error where `what` ("officers' shares") are there of `num_there`, and no more.
Error TooFew(const envelope::SharesRecord& record, std::size_t num_there, std::string_view what,
             const std::vector<Absence>& absent) {
  std::string reasons;
  std::size_t num_bad = 0;
  const Error* refused = nullptr;
  for (const Absence& absence : absent) {
    reasons += (reasons.empty() ? "" : "; ") + absence.name + ": " + absence.why.message();
    if (absence.why.code() == ErrorCode::kFactorBad) ++num_bad;
    if (refused == nullptr && WasRefused(absence.why.code())) refused = &absence.why;
  }
  const std::string message =
      fmt::format("{} of {} {} are there: {}", num_there, record.threshold, what, reasons);
  if (record.members.size() - num_bad < record.threshold) {
    return Error(ErrorCode::kFactorBad, Action::kWrongDevice, message,
                 "use another path: too many shares of this one are bad")
        .WithFailure(Failure::kFactor);
  }
  if (refused != nullptr) {
    return Error(refused->code(), refused->action(), message, refused->hint())
        .WithFailure(Failure::kFactor)
        .WithNative(refused->native_domain(), refused->native_code());
  }
  return Error(ErrorCode::kTokenNotFound, Action::kReconnect, message,
               "bring the tokens of those who are missing, each with its PIN, or use another path")
      .WithFailure(Failure::kFactor);
}

// ShareOf has one officer's token give its share.
Result<envelope::Share> ShareOf(const envelope::ShareMember& member,
                                const CeremonyOptions& options) {
  const envelope::FactorRecord factor = FactorOf(member);
  RETURN_IF_ERROR(options.tokens->Locate(factor));
  RETURN_IF_ERROR(RequirePin(options.tokens->NameOf(factor), *options.secrets));
  options.progress->Step("waiting for the token of " + member.name);
  ASSIGN_OR_RETURN(const SecretBytes secret, options.tokens->Open(factor));
  PausePoint("token-opened");
  return envelope::OpenShare(member, options.binding, secret);
}

}  // namespace

Status StartShares(const envelope::SharesRecord& record, TokenSessions& tokens) {
  std::vector<Absence> absent;
  for (const envelope::ShareMember& member : record.members) {
    const Status started = tokens.Start(FactorOf(member));
    if (!started) absent.push_back({member.name, started.error()});
  }
  const std::size_t num_there = record.members.size() - absent.size();
  if (num_there >= record.threshold) return Ok();
  return TooFew(record, num_there, "officers' tokens", absent);
}

Status SharesPresent(const envelope::SharesRecord& record, TokenSessions& tokens) {
  std::vector<Absence> absent;
  for (const envelope::ShareMember& member : record.members) {
    const Status located = tokens.Locate(FactorOf(member));
    if (!located) absent.push_back({member.name, located.error()});
  }
  const std::size_t num_there = record.members.size() - absent.size();
  if (num_there >= record.threshold) return Ok();
  return TooFew(record, num_there, "officers' tokens", absent);
}

Result<SecretBytes> OpenShares(const envelope::SharesRecord& record,
                               const CeremonyOptions& options) {
  std::vector<envelope::Share> shares;
  std::vector<Absence> absent;
  for (const envelope::ShareMember& member : record.members) {
    if (shares.size() == record.threshold) break;
    auto share = ShareOf(member, options);
    if (share) {
      shares.push_back(std::move(*share));
      continue;
    }
    if (IsOfThisProcess(share.error().code())) return std::move(share).error();
    if (share.error().code() == ErrorCode::kFactorBad) {
      options.progress->Warn("skipped the share of " + member.name + ": " +
                             share.error().message());
    }
    absent.push_back({member.name, std::move(share).error()});
  }
  if (shares.size() < record.threshold) {
    return TooFew(record, shares.size(), "officers' shares", absent);
  }
  return envelope::CombineShares(shares);
}

}  // namespace keyescrow::agent
