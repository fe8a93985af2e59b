#include "agent/cli/token_uri.h"

namespace keyescrow::agent {

Result<TokenPlace> TakeTokenUri(const TokenWords& words, Session& session, CliSecrets& secrets) {
  ASSIGN_OR_RETURN(TokenUri uri, session.devices().ParseTokenUri(words.uri));
  if (!words.module.empty() && !uri.module.empty() && words.module != uri.module) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "--module and the URI's module-path= name different modules",
                 "leave one of them out");
  }
  TokenPlace place{uri.path, words.module.empty() ? uri.module : words.module, ""};
  if (place.module.empty()) {
    return Error(ErrorCode::kUsage, Action::kFixInput, "the token's PKCS#11 module is not named",
                 "add --module SO, or module-path= to the URI");
  }
  if (!uri.pin_source.empty()) {
    ASSIGN_OR_RETURN(place.pin_source, secrets.AddPinSource(words.name, uri.pin_source));
  }
  return place;
}

}  // namespace keyescrow::agent
