#include "hsm/token_info.h"

#include <fmt/format.h>

#include "envelope/pkcs11_uri.h"
#include "hsm/cryptoki.h"

namespace keyescrow::hsm {
namespace {

std::string Printable(std::string_view text) {
  std::string printable(text);
  for (char& c : printable) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || c == '"') c = '?';
  }
  return printable;
}

}  // namespace

bool TokenInfo::initialized() const { return (flags & CKF_TOKEN_INITIALIZED) != 0; }
bool TokenInfo::login_required() const { return (flags & CKF_LOGIN_REQUIRED) != 0; }
bool TokenInfo::pin_initialized() const { return (flags & CKF_USER_PIN_INITIALIZED) != 0; }
bool TokenInfo::protected_path() const { return (flags & CKF_PROTECTED_AUTHENTICATION_PATH) != 0; }
bool TokenInfo::pin_count_low() const { return (flags & CKF_USER_PIN_COUNT_LOW) != 0; }
bool TokenInfo::final_try() const { return (flags & CKF_USER_PIN_FINAL_TRY) != 0; }
bool TokenInfo::locked() const { return (flags & CKF_USER_PIN_LOCKED) != 0; }
bool TokenInfo::software() const {
  return manufacturer.starts_with("SoftHSM") || model.starts_with("NSS ") ||
         manufacturer.starts_with("Mozilla");
}

std::string_view KeyKindName(KeyKind kind) {
  switch (kind) {
    case KeyKind::kRsa: return "rsa";
    case KeyKind::kEcP256: return "ec-p256";
    case KeyKind::kOther: return "other";
  }
  return "other";
}

std::string TokenUri(const TokenInfo& token, const TokenKey& key) {
  std::string uri = "pkcs11:";
  const auto append = [&uri](std::string_view name, std::string_view value) {
    const std::string attribute = fmt::format("{}{}={}", uri.back() == ':' ? "" : ";", name,
                                              envelope::PercentEncodePkcs11(value));
    if (!value.empty() && uri.size() + attribute.size() <= envelope::Pkcs11Uri::kMaxSizeBytes) {
      uri += attribute;
    }
  };
  append("token", token.label);
  append("serial", token.serial);
  append("manufacturer", token.manufacturer);
  append("model", token.model);
  append("id", AsText(key.id));
  append("object", key.label);
  if (uri.back() == ':') uri += "type=private";
  return uri;
}

std::string DescribeToken(const TokenInfo& token) {
  return fmt::format("\"{}\" (serial {})", Printable(token.label), Printable(token.serial));
}

}  // namespace keyescrow::hsm
