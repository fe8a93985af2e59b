// CeremonyDesk: the table at which officers give their shares, one after another, with a person
// there who can be asked. agent/cli implements it on a terminal; without a terminal there is none.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/result.h"

namespace keyescrow::agent {

enum class OfficerState : std::uint8_t {
  kAway,      // the token is not here
  kHere,      // the token is here, the PIN was not asked for yet
  kNotNow,    // the officer was asked and stood back
  kRefused,   // the token refused the PIN, or cannot be used as it is: `why`
  kBadShare,  // the token gave something else than the share: it cannot serve
  kGiven,     // the share is here, and good
};

struct OfficerView {
  std::uint32_t index = 0;  // as in the envelope, from 1
  std::string name;
  OfficerState state = OfficerState::kAway;
  std::string why;  // of kRefused and kBadShare, and of kAway where it is more than an absent token
};

struct CeremonyView {
  std::string path_id;
  std::string purpose;  // "to restore prod/db"
  std::uint32_t threshold = 0;
  std::vector<OfficerView> officers;

  std::uint32_t NumGiven() const {
    std::uint32_t num_given = 0;
    for (const OfficerView& officer : officers) {
      num_given += officer.state == OfficerState::kGiven ? 1 : 0;
    }
    return num_given;
  }
};

struct DeskAnswer {
  enum class Kind : std::uint8_t {
    kIdle,     // what was waited for has happened, or the screen has to be shown again
    kLook,     // look at the readers now
    kOfficer,  // an officer comes back: `officer`, position in CeremonyView::officers
    kLeave,    // the person wants to leave
  };
  Kind kind = Kind::kIdle;
  std::size_t officer = 0;
};

// Secrets::Desk finds it.
class CeremonyDesk {
 public:
  virtual ~CeremonyDesk() = default;

  // waits: officers who are not here are waited for, else only those who are here are asked. A use
  // case turns it on where that is what the person wants.
  bool waits() const { return waits_; }
  void SetWaits(bool waits) { waits_ = waits; }

  // Open and Close enclose one ceremony. In between an interrupt (Ctrl-C) asks, and ends nothing.
  virtual void Open(const CeremonyView& view) = 0;
  virtual void Close(const CeremonyView& view) = 0;

  // Show says how many shares are there, who gave one and who is still needed.
  virtual void Show(const CeremonyView& view) = 0;
  // Greet comes before an officer's PIN is asked for; Thank after the share was found to be good.
  virtual void Greet(const OfficerView& officer) = 0;
  virtual void Thank(const OfficerView& officer, const CeremonyView& view) = 0;
  virtual void Refuse(const OfficerView& officer) = 0;

  // Wait waits for an answer, and calls `look` about every second; true from it ends the wait.
  virtual Result<DeskAnswer> Wait(const CeremonyView& view, const std::function<bool()>& look) = 0;

  // TryAgain asks an officer whose login failed whether to try again: nothing is tried unless a
  // person says so. `is_last_try`: the next wrong PIN locks the token, and the question says it.
  virtual bool TryAgain(const OfficerView& officer, const Error& error, bool is_last_try) = 0;
  // ForgetPin makes the token's next PIN a typed one, whatever file named it.
  virtual void ForgetPin(std::string_view token_name) = 0;

  // Leave asks whether to leave for good, and tells what is lost with it.
  virtual bool Leave(const CeremonyView& view) = 0;

  // PasswordAgain asks whether to type a path's password again, after all shares were given and it
  // was refused; the next Password is then a typed one. `is_counted`: by a TPM.
  virtual bool PasswordAgain(const Error& error, bool is_counted) = 0;

 private:
  bool waits_ = false;
};

}  // namespace keyescrow::agent
