// A token's PKCS#11 URI as a command line gives it, with --module beside it.
#pragma once

#include <string>

#include "agent/cli/session.h"

namespace keyescrow::agent {

struct TokenWords {
  std::string name;    // what the token is called when its PIN is asked for
  std::string uri;     // with or without a query
  std::string module;  // --module; ""
};

struct TokenPlace {
  std::string uri;  // without its query; may be stored
  std::string module;
  std::string pin_source;  // absolute path of the file with the PIN, or ""
};

// TakeTokenUri takes the URI's query: the module, and the file of the PIN, from which `secrets`
// reads it for this command. Errors: kInvalidUri; kUsage where no module is named, or two are.
Result<TokenPlace> TakeTokenUri(const TokenWords& words, Session& session, CliSecrets& secrets);

}  // namespace keyescrow::agent
