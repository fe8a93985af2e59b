#include "agent/cli/token_uri.h"

#include <filesystem>
#include <system_error>

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
  // As it was found from here; a bare name is looked for where libraries are, from anywhere.
  if (!place.module.starts_with('/') && place.module.find('/') != std::string::npos) {
    std::error_code error;
    const std::filesystem::path absolute = std::filesystem::absolute(place.module, error);
    if (!error) place.module = absolute.lexically_normal().string();
  }
  if (!uri.pin_source.empty()) {
    ASSIGN_OR_RETURN(place.pin_source, secrets.AddPinSource(words.name, uri.pin_source));
  }
  return place;
}

}  // namespace keyescrow::agent
