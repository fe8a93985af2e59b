#include "hsm/uri.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace keyescrow::hsm {
namespace {

constexpr std::string_view kExample =
    "write it as 'pkcs11:token=LABEL;id=%01'; 'keyescrow doctor --module SO' lists the tokens";
constexpr std::string_view kQueryCharacters = "/?|";

Error UriError(std::string message, std::string hint = std::string(kExample)) {
  return Error(ErrorCode::kInvalidUri, Action::kFixInput, std::move(message), std::move(hint));
}

// ExplainPath says why envelope::Pkcs11Uri refused `text`, for a person to mend it.
Error ExplainPath(std::string_view text) {
  if (text.size() > envelope::Pkcs11Uri::kMaxSizeBytes) {
    return UriError(
        fmt::format("the PKCS#11 URI is longer than {} bytes", envelope::Pkcs11Uri::kMaxSizeBytes),
        "leave out attributes that are not needed: token and id are enough");
  }
  if (!text.starts_with("pkcs11:")) return UriError("the URI does not begin with 'pkcs11:'");
  if (text.find('?') != std::string_view::npos) {
    return UriError("a stored PKCS#11 URI has no query",
                    "give the module with --module and the PIN with --pin-file");
  }
  text.remove_prefix(7);
  constexpr std::array<std::string_view, 7> kNames = {"token",  "manufacturer", "serial", "model",
                                                      "object", "id",           "type"};
  std::array<bool, kNames.size()> seen{};
  while (true) {
    const std::size_t end = text.find(';');
    const std::string_view attribute = text.substr(0, end);
    if (attribute.empty()) return UriError("the PKCS#11 URI has an empty attribute");
    const std::size_t equals = attribute.find('=');
    if (equals == std::string_view::npos) {
      return UriError("an attribute of the PKCS#11 URI has no value");
    }
    const std::string_view name = attribute.substr(0, equals);
    if (name == "slot-id" || name == "slot-description" || name == "slot-manufacturer") {
      return UriError(fmt::format("'{}' is refused: slots change their numbers", name),
                      "name the token by token= or serial=");
    }
    if (name.starts_with("library-")) {
      return UriError(fmt::format("'{}' is refused: the module comes from --module", name),
                      "leave it out");
    }
    const auto* known = std::find(kNames.begin(), kNames.end(), name);
    if (known == kNames.end()) {
      return UriError("the PKCS#11 URI has an attribute that is not known here");
    }
    bool& repeated = seen.at(static_cast<std::size_t>(known - kNames.begin()));
    if (repeated) return UriError(fmt::format("'{}' stands twice in the PKCS#11 URI", name));
    repeated = true;
    if (!envelope::PercentDecodePkcs11(attribute.substr(equals + 1), "&")) {
      return UriError(
          fmt::format("the value of '{}' has a character that must be written as %XX", name));
    }
    if (end == std::string_view::npos) return UriError("the PKCS#11 URI does not follow RFC 7512");
    text.remove_prefix(end + 1);
  }
}

}  // namespace

Result<envelope::Pkcs11Uri> ParseUri(std::string_view text) {
  std::optional<envelope::Pkcs11Uri> uri = envelope::Pkcs11Uri::Parse(text);
  if (!uri) return ExplainPath(text);
  constexpr std::array<std::string_view, 5> kTypes = {"public", "private", "cert", "secret-key",
                                                      "data"};
  if (uri->type && std::find(kTypes.begin(), kTypes.end(), *uri->type) == kTypes.end()) {
    return UriError("'type' is none of public, private, cert, secret-key, data");
  }
  return *std::move(uri);
}

Result<CommandLineUri> ParseCommandLineUri(std::string_view text) {
  const std::size_t question = text.find('?');
  const std::string_view path = text.substr(0, question);
  ASSIGN_OR_RETURN(envelope::Pkcs11Uri uri, ParseUri(path));
  CommandLineUri result{std::string(path), std::move(uri), std::nullopt, std::nullopt};
  if (question == std::string_view::npos) return result;
  std::string_view query = text.substr(question + 1);
  while (true) {
    const std::size_t end = query.find('&');
    const std::string_view attribute = query.substr(0, end);
    const std::size_t equals = attribute.find('=');
    const std::string_view name = attribute.substr(0, equals);
    if (name == "pin-value") {
      return UriError("'pin-value' is refused: other users see a command's arguments",
                      "put the PIN in a file of mode 0600 and give --pin-file or pin-source=");
    }
    if (name == "module-name") {
      return UriError("'module-name' is refused: it does not say which file is loaded",
                      "give the module's file: module-path=/usr/lib/… or --module");
    }
    std::optional<std::string>* value = name == "module-path"  ? &result.module_path
                                        : name == "pin-source" ? &result.pin_source
                                                               : nullptr;
    if (value == nullptr || equals == std::string_view::npos) {
      return UriError("the PKCS#11 URI's query has an attribute that is not known here",
                      "only module-path= and pin-source= may follow the '?'");
    }
    if (value->has_value()) {
      return UriError(fmt::format("'{}' stands twice in the PKCS#11 URI", name));
    }
    *value = envelope::PercentDecodePkcs11(attribute.substr(equals + 1), kQueryCharacters);
    if (!value->has_value() || (*value)->empty() || (*value)->find('\0') != std::string::npos) {
      return UriError(
          fmt::format("the value of '{}' is empty or has a character that must be "
                      "written as %XX",
                      name));
    }
    if (end == std::string_view::npos) return result;
    query.remove_prefix(end + 1);
  }
}

bool UriMatchesToken(const envelope::Pkcs11Uri& uri, const TokenInfo& token) {
  return (!uri.token || *uri.token == token.label) &&
         (!uri.serial || *uri.serial == token.serial) &&
         (!uri.manufacturer || *uri.manufacturer == token.manufacturer) &&
         (!uri.model || *uri.model == token.model);
}

bool UriMatchesKey(const envelope::Pkcs11Uri& uri, const TokenKey& key) {
  return (!uri.object || *uri.object == key.label) && (!uri.id || *uri.id == AsText(key.id));
}

}  // namespace keyescrow::hsm
