// RFC 7512 URIs as people type them: strict, with the two query attributes that we honour.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "envelope/base/result.h"
#include "envelope/pkcs11_uri.h"
#include "hsm/token_info.h"

namespace keyescrow::hsm {

// ParseUri takes what may be stored: path attributes only (envelope::Pkcs11Uri), with `type`
// one of RFC 7512's. The error says what is wrong and refuses by name slot-id, library-*,
// pin-value and any query. Errors: kInvalidUri.
Result<envelope::Pkcs11Uri> ParseUri(std::string_view text);

struct CommandLineUri {
  std::string path;  // "pkcs11:…" without the query; may be stored
  envelope::Pkcs11Uri uri;
  std::optional<std::string> module_path;
  std::optional<std::string> pin_source;  // a file's path, or file:PATH
};

// ParseCommandLineUri also takes `?module-path=…&pin-source=…`, each at most once; pin-value is
// refused (a PIN in argv is seen by every user), as is all else. Errors: kInvalidUri.
Result<CommandLineUri> ParseCommandLineUri(std::string_view text);

// UriMatchesToken tells whether every token attribute that `uri` names equals the token's.
bool UriMatchesToken(const envelope::Pkcs11Uri& uri, const TokenInfo& token);

// UriMatchesKey tells whether `object` and `id`, where `uri` names them, equal the key's.
bool UriMatchesKey(const envelope::Pkcs11Uri& uri, const TokenKey& key);

}  // namespace keyescrow::hsm
