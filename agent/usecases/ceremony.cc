#include "agent/usecases/ceremony.h"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <set>
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
    case ErrorCode::kPinExpired:
    case ErrorCode::kFactorMissing: return true;  // refused before: TokenSessions did not ask
    default: return false;
  }
}

// IsBadShare: the token gave something else than the share that was committed to.
bool IsBadShare(ErrorCode code) {
  return code == ErrorCode::kFactorBad || code == ErrorCode::kTokenDataInvalid;
}

// IsUnknownHere: the token cannot be met on this machine, wherever it is.
bool IsUnknownHere(ErrorCode code) {
  return code == ErrorCode::kTokenNotRegistered || code == ErrorCode::kModuleMissing ||
         code == ErrorCode::kModuleInvalid;
}

// Absence: an officer who did not serve, and why.
struct Absence {
  std::string name;
  Error why;
  std::string token = {};  // what the token is called, where it lacks a PIN
};

// ReasonsOf says why each did not serve; of several tokens that are not there the names are enough.
std::string ReasonsOf(const std::vector<Absence>& absent) {
  std::string reasons;
  std::string away;
  std::size_t num_away = 0;
  for (const Absence& absence : absent) {
    if (absence.why.code() != ErrorCode::kTokenNotFound) continue;
    away += (away.empty() ? "" : ", ") + absence.name;
    ++num_away;
  }
  const bool is_grouped = num_away > 1;
  for (const Absence& absence : absent) {
    if (is_grouped && absence.why.code() == ErrorCode::kTokenNotFound) continue;
    reasons += (reasons.empty() ? "" : "; ") + absence.name + ": " + absence.why.message();
  }
  if (is_grouped) reasons += (reasons.empty() ? "" : "; ") + away + " are not present";
  return reasons;
}

// TooFew is the error where `what` ("officers' shares") are there of `num_there`, and no more.
Error TooFew(const envelope::SharesRecord& record, std::size_t num_there, std::string_view what,
             const std::vector<Absence>& absent) {
  std::size_t num_bad = 0;
  std::size_t num_unknown = 0;
  const Error* unknown = nullptr;
  const Error* refused = nullptr;
  for (const Absence& absence : absent) {
    if (IsBadShare(absence.why.code())) ++num_bad;
    if (IsUnknownHere(absence.why.code())) {
      ++num_unknown;
      unknown = &absence.why;
    }
    if (refused == nullptr && WasRefused(absence.why.code())) refused = &absence.why;
  }
  const std::string message = fmt::format("{} of {} {} are there: {}", num_there, record.threshold,
                                          what, ReasonsOf(absent));
  if (record.members.size() - num_bad < record.threshold) {
    return Error(ErrorCode::kFactorBad, Action::kWrongDevice, message,
                 "use another path: too many shares of this one are bad")
        .WithFailure(Failure::kFactor);
  }
  if (record.members.size() - num_unknown < record.threshold) {
    return Error(unknown->code(), unknown->action(), message, unknown->hint())
        .WithFailure(Failure::kFactor);
  }
  if (refused != nullptr) {
    return Error(refused->code(), refused->action(), message, refused->hint())
        .WithFailure(Failure::kFactor)
        .WithNative(refused->native_domain(), refused->native_code());
  }
  std::string options;
  for (const Absence& absence : absent) {
    if (absence.why.code() != ErrorCode::kSecretSourceMissing) continue;
    options += " --pin-file " + absence.token + "=FILE";
  }
  return Error(ErrorCode::kTokenNotFound, Action::kReconnect, message,
               (options.empty() ? "" : "add" + options + "; ") +
                   "bring the tokens of those who are missing, each with its PIN, or use another "
                   "path")
      .WithFailure(Failure::kFactor);
}

// MayTryAgain: a person can do something about it with the token in hand.
bool MayTryAgain(ErrorCode code) {
  return code == ErrorCode::kWrongPin || code == ErrorCode::kPinInvalid ||
         code == ErrorCode::kPinLastTry;
}

class Ceremony {
 public:
  Ceremony(const envelope::SharesRecord& record, const CeremonyOptions& options)
      : record_(record), options_(options), desk_(options.secrets->Desk()) {
    view_.path_id = options.path_id;
    view_.purpose = options.purpose;
    view_.threshold = record.threshold;
    for (const envelope::ShareMember& member : record.members) {
      view_.officers.push_back({member.index, member.name, OfficerState::kAway, ""});
      seats_.push_back({FactorOf(member), nullptr, std::nullopt});
    }
  }

  Result<SecretBytes> Run() {
    if (desk_ == nullptr) return Collect();
    options_.progress->Pause();
    desk_->Open(view_);
    auto secret = Collect();
    options_.progress->Pause();
    desk_->Close(view_);
    return secret;
  }

 private:
  struct Seat {
    envelope::FactorRecord factor;
    std::unique_ptr<TokenSessions> own;  // where a person can be asked; null: none was begun
    std::optional<Error> why;            // why this officer did not serve
    bool allowed = false;                // a person said that its token may be tried again
  };

  bool waits() const { return desk_ != nullptr && desk_->waits(); }
  bool Done() const { return shares_.size() == record_.threshold; }

  Result<SecretBytes> Collect() {
    Look(false);
    if (!EnoughAreReachable()) return Missing();
    while (true) {
      RETURN_IF_ERROR(AskThoseHere());
      if (Done()) return envelope::CombineShares(shares_);
      if (!waits() || !EnoughCanServe()) return Missing();
      desk_->Show(view_);
      ASSIGN_OR_RETURN(const DeskAnswer answer,
                       desk_->Wait(view_, [&] { return TokensHere() != seen_; }));
      RETURN_IF_ERROR(Answer(answer));
    }
  }

  Status AskThoseHere() {
    for (std::size_t i = 0; i < seats_.size() && !Done(); ++i) {
      if (view_.officers[i].state == OfficerState::kHere) RETURN_IF_ERROR(Ask(i));
    }
    return Ok();
  }

  Status Answer(const DeskAnswer& answer) {
    switch (answer.kind) {
      case DeskAnswer::Kind::kIdle: Look(true); return Ok();
      case DeskAnswer::Kind::kLook:
        for (OfficerView& officer : view_.officers) {  // who stood back is asked again
          if (officer.state == OfficerState::kNotNow) officer.state = OfficerState::kAway;
        }
        Look(true);
        return Ok();
      case DeskAnswer::Kind::kOfficer: ComeBack(answer.officer); return Ok();
      case DeskAnswer::Kind::kLeave: break;
    }
    if (!desk_->Leave(view_)) return Ok();
    return Error(ErrorCode::kFactorMissing, Action::kRetry,
                 fmt::format("the ceremony was left with {} of {} officers' shares", shares_.size(),
                             record_.threshold),
                 "run the command again when the officers are there: all of them give their shares "
                 "anew")
        .WithFailure(Failure::kFactor);
  }

  // ComeBack takes an officer's word that the token may be tried again.
  void ComeBack(std::size_t i) {
    OfficerView& officer = view_.officers[i];
    if (officer.state == OfficerState::kGiven || officer.state == OfficerState::kBadShare) return;
    if (officer.state == OfficerState::kRefused) Allow(i, false);
    officer.state = OfficerState::kAway;
    Look(true);
  }

  // TokensOf returns the sessions that serve an officer. Where a person can be asked they are the
  // officer's own: a token that refused a PIN is asked again on that person's word alone, and one
  // that left the reader is found when it comes back.
  TokenSessions& TokensOf(std::size_t i) {
    if (desk_ == nullptr) return *options_.tokens;
    if (!seats_[i].own) {
      TokenSessionOptions sessions = options_.sessions;
      // What refused a PIN for another path of this command waits for that word too.
      if (!seats_[i].allowed) sessions.refusals = options_.tokens->refusals();
      seats_[i].own = std::make_unique<TokenSessions>(std::move(sessions));
    }
    return *seats_[i].own;
  }

  // Allow takes a person's word that an officer's token may be tried again, with a typed PIN.
  void Allow(std::size_t i, bool use_last_try) {
    desk_->ForgetPin(TokensOf(i).NameOf(seats_[i].factor));
    seats_[i].allowed = true;
    TokenSessionOptions sessions = options_.sessions;
    sessions.use_last_try = sessions.use_last_try || use_last_try;
    seats_[i].own = std::make_unique<TokenSessions>(std::move(sessions));
  }

  // Look finds out whose tokens are here; `anew` where they may have changed since.
  void Look(bool anew) {
    options_.progress->Step("looking for the officers' tokens");
    if (waits()) seen_ = TokensHere();  // first: what arrives while it is looked shows as a change
    const auto looked_for = [&](std::size_t i) {
      const OfficerState state = view_.officers[i].state;
      return state != OfficerState::kGiven && state != OfficerState::kBadShare;
    };
    for (std::size_t i = 0; i < seats_.size(); ++i) {  // all modules load at once
      if (!looked_for(i)) continue;
      if (anew) seats_[i].own.reset();
      (void)TokensOf(i).Start(seats_[i].factor);  // its error shows when it is located
    }
    for (std::size_t i = 0; i < seats_.size(); ++i) {
      if (!looked_for(i)) continue;
      OfficerView& officer = view_.officers[i];
      const Status located = TokensOf(i).Locate(seats_[i].factor);
      if (!located) {
        seats_[i].why = located.error();
        const ErrorCode code = located.error().code();
        officer.why = code == ErrorCode::kTokenNotFound ? "" : located.error().message();
        // Who stood back with the token is asked again when it comes back.
        officer.state = WasRefused(code) ? OfficerState::kRefused : OfficerState::kAway;
      } else if (officer.state == OfficerState::kAway) {
        officer.state = OfficerState::kHere;
        officer.why.clear();
      }
    }
    options_.progress->Pause();
  }

  // TokensHere names the tokens that the members' modules show, in one text to compare.
  std::string TokensHere() {
    std::string text;
    for (const std::string& module : Modules()) {
      const auto facts = options_.sessions.devices->InspectModule(module);
      if (!facts) {
        text += facts.error().message() + "\n";
        continue;
      }
      for (const TokenFacts& token : facts->tokens) {
        text += token.label + "\t" + token.serial + "\t" + token.manufacturer + "\n";
      }
    }
    return text;
  }

  // Modules returns those of the officers who did not give a share: as registered, or as named.
  std::set<std::string> Modules() {
    std::set<std::string> modules;
    if (!options_.sessions.module.empty()) modules.insert(options_.sessions.module);
    if (options_.sessions.store == nullptr) return modules;
    const auto registered = options_.sessions.store->Tokens();
    for (std::size_t i = 0; registered && i < seats_.size(); ++i) {
      if (view_.officers[i].state == OfficerState::kGiven) continue;
      for (const store::TokenRecord& token : *registered) {
        if (token.spki == *IdentityOf(seats_[i].factor)->spki) modules.insert(token.module);
      }
    }
    return modules;
  }

  // Ask has one officer's token give its share. Only what is this machine's fault is an error.
  Status Ask(std::size_t i) {
    OfficerView& officer = view_.officers[i];
    if (desk_ != nullptr) {
      if (waits()) desk_->Show(view_);
      desk_->Greet(officer);
    }
    while (true) {
      auto share = Take(i);
      if (share) {
        shares_.push_back(std::move(*share));
        officer.state = OfficerState::kGiven;
        officer.why.clear();
        seats_[i].why.reset();
        // Its token leaves the reader, and its session the machine.
        seats_[i].own.reset();
        if (desk_ != nullptr) desk_->Thank(officer, view_);
        return Ok();
      }
      const Error& error = share.error();
      if (IsOfThisProcess(error.code())) return error;
      seats_[i].why = error;
      officer.why = error.message();
      officer.state = StateAfter(error.code());
      if (seats_[i].own && officer.state == OfficerState::kRefused) {
        options_.tokens->Learn(seats_[i].own->refusals());
      }
      if (desk_ == nullptr) {
        if (officer.state == OfficerState::kBadShare) {
          options_.progress->Warn("skipped the share of " + officer.name + ": " + error.message());
        }
        return Ok();
      }
      options_.progress->Pause();
      if (!MayTryAgain(error.code())) {
        desk_->Refuse(officer);
        return Ok();
      }
      const bool is_last_try = error.code() == ErrorCode::kPinLastTry;
      desk_->ForgetPin(TokensOf(i).NameOf(seats_[i].factor));
      if (!desk_->TryAgain(officer, error, is_last_try)) return Ok();
      Allow(i, is_last_try);
    }
  }

  OfficerState StateAfter(ErrorCode code) const {
    if (IsBadShare(code)) return OfficerState::kBadShare;
    const bool stood_back =
        code == ErrorCode::kPinEmpty || code == ErrorCode::kSecretSourceUnreadable;
    return desk_ != nullptr && stood_back ? OfficerState::kNotNow : OfficerState::kRefused;
  }

  Result<envelope::Share> Take(std::size_t i) {
    const envelope::ShareMember& member = record_.members[i];
    const envelope::FactorRecord& factor = seats_[i].factor;
    TokenSessions& tokens = TokensOf(i);
    RETURN_IF_ERROR(tokens.Locate(factor));
    RETURN_IF_ERROR(RequirePin(tokens.NameOf(factor), *options_.secrets));
    options_.progress->Step("waiting for the token of " + member.name);
    ASSIGN_OR_RETURN(const SecretBytes secret, tokens.Open(factor));
    PausePoint("token-opened");
    return envelope::OpenShare(member, options_.binding, secret);
  }

  // EnoughCanServe: those who gave a share or still may are enough.
  bool EnoughCanServe() const {
    std::size_t num_left = 0;
    for (const OfficerView& officer : view_.officers) {
      num_left += officer.state == OfficerState::kBadShare ? 0 : 1;
    }
    return num_left >= record_.threshold;
  }

  // EnoughAreReachable: this machine knows the modules of as many tokens as are needed.
  bool EnoughAreReachable() const {
    std::size_t num_reachable = 0;
    for (const Seat& seat : seats_) {
      num_reachable += seat.why && IsUnknownHere(seat.why->code()) ? 0 : 1;
    }
    return num_reachable >= record_.threshold;
  }

  Error Missing() {
    std::vector<Absence> absent;
    for (std::size_t i = 0; i < seats_.size(); ++i) {
      if (!seats_[i].why) continue;
      const bool lacks_pin = seats_[i].why->code() == ErrorCode::kSecretSourceMissing;
      absent.push_back({record_.members[i].name, *seats_[i].why,
                        lacks_pin ? TokensOf(i).NameOf(seats_[i].factor) : std::string()});
    }
    return TooFew(record_, shares_.size(), "officers' shares", absent);
  }

  const envelope::SharesRecord& record_;
  const CeremonyOptions& options_;
  CeremonyDesk* desk_;
  CeremonyView view_;
  std::vector<Seat> seats_;
  std::vector<envelope::Share> shares_;
  std::string seen_;  // TokensHere, when it was looked last
};

}  // namespace

bool WaitsForOfficers(Secrets& secrets) {
  const CeremonyDesk* const desk = secrets.Desk();
  return desk != nullptr && desk->waits();
}

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
  return Ceremony(record, options).Run();
}

}  // namespace keyescrow::agent
