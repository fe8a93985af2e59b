// Ceremony: officers give their shares of a path, each by a token, until enough of them are good.
#pragma once

#include <string>

#include "agent/usecases/secrets.h"
#include "agent/usecases/token_sessions.h"
#include "envelope/header.h"

namespace keyescrow::agent {

struct CeremonyOptions {
  TokenSessions* tokens = nullptr;
  Secrets* secrets = nullptr;
  Progress* progress = nullptr;
  std::string binding;  // B of the path: envelope::PathBinding
};

// StartShares begins to load the modules of the members' tokens, without waiting. Errors: why,
// where fewer than the threshold can be met on this machine at all (kTokenNotRegistered …).
Status StartShares(const envelope::SharesRecord& record, TokenSessions& tokens);

// SharesPresent tells, without a PIN, whether as many of the members' tokens are here as are
// needed. Errors: kTokenNotFound, which says who is not here and why.
Status SharesPresent(const envelope::SharesRecord& record, TokenSessions& tokens);

// OpenShares returns S. The officers whose tokens are here and whose PINs can be had serve, in the
// order of their indices, until enough shares are good. A share that cannot be had or is bad is
// skipped, and its officer named to `progress` or in the error.
// Errors, with Failure::kFactor: kFactorBad where so many shares are bad that the others cannot
// suffice; else what a token refused (kWrongPin, kPinLocked …), if one did; else kTokenNotFound.
Result<SecretBytes> OpenShares(const envelope::SharesRecord& record,
                               const CeremonyOptions& options);

}  // namespace keyescrow::agent
