// Ceremony: officers give their shares of a path, each by a token, until enough of them are good.
//
// They come one after another to one machine: tokens may take turns in one reader, and what one
// officer's token refuses costs the others nothing. Shares are kept in SecretBytes alone, nowhere
// else and no longer than the ceremony lasts. Without a person at a terminal, the officers whose
// tokens are here and whose PINs are given serve, and nobody is waited for.
#pragma once

#include <string>

#include "agent/usecases/ceremony_desk.h"
#include "agent/usecases/secrets.h"
#include "agent/usecases/token_sessions.h"
#include "envelope/header.h"

namespace keyescrow::agent {

struct CeremonyOptions {
  TokenSessions* tokens = nullptr;  // of the command: where nobody can be asked, they serve
  TokenSessionOptions sessions;     // for sessions of the ceremony's own, one an officer
  Secrets* secrets = nullptr;
  Progress* progress = nullptr;
  std::string binding;  // B of the path: envelope::PathBinding
  std::string path_id;
  std::string purpose;  // completes the title: "to restore prod/db"
};

// WaitsForOfficers: there is a desk, and officers who are not here are waited for.
bool WaitsForOfficers(Secrets& secrets);

// StartShares begins to load the modules of the members' tokens, without waiting. Errors: why,
// where fewer than the threshold can be met on this machine at all (kTokenNotRegistered …).
Status StartShares(const envelope::SharesRecord& record, TokenSessions& tokens);

// SharesPresent tells, without a PIN, whether as many of the members' tokens are here as are
// needed. Errors: kTokenNotFound, which says who is not here and why.
Status SharesPresent(const envelope::SharesRecord& record, TokenSessions& tokens);

// OpenShares returns S. Officers whose tokens are here are asked in the order of their indices. A
// share that cannot be had or is bad is skipped, and its officer named to `progress` or in the
// error. Errors, with Failure::kFactor: kFactorMissing where the ceremony was left; kFactorBad
// where so many shares are bad that the others cannot suffice; else what a token refused
// (kWrongPin, kPinLocked …), if one did; else kTokenNotFound.
Result<SecretBytes> OpenShares(const envelope::SharesRecord& record,
                               const CeremonyOptions& options);

}  // namespace keyescrow::agent
