// The tokens that paths need, by the names under which a person gives their PINs.
#pragma once

#include <string>
#include <vector>

#include "agent/store/escrow_store.h"
#include "agent/usecases/secrets.h"
#include "envelope/header.h"
#include "envelope/path_expression.h"

namespace keyescrow::agent {

// TokensOf returns the tokens of a path, officers' too: by their registered names, or the record's
// where a key is not registered. `store` is null without state. Errors: kStore*.
Result<Secrets::TokenNames> TokensOf(const envelope::PathRecord& path, store::EscrowStore* store);

// TokensOf returns the tokens that a path's expression names.
Secrets::TokenNames TokensOf(const envelope::PathExpression& expression);

// TokensToOpen returns the tokens of the path `via`, or, for "", of every path of the envelope.
Result<Secrets::TokenNames> TokensToOpen(const envelope::Header& header, const std::string& via,
                                         store::EscrowStore* store);

}  // namespace keyescrow::agent
