// Pkcs11Uri: the part of RFC 7512 that an envelope or a configuration may hold: path attributes
// that describe a token and a key. It is a hint for finding them, never a module's path, a slot's
// number or a PIN's place; identity is the public key.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "envelope/base/bytes.h"

namespace keyescrow::envelope {

class Pkcs11Uri {
 public:
  static constexpr std::size_t kMaxSizeBytes = 512;

  // Parse takes "pkcs11:" and at least one of token, manufacturer, serial, model, object, id, type,
  // each at most once, joined by ";", percent-encoded, at most 512 bytes in all; an empty value is
  // allowed, an empty attribute is not. Nothing on any other text: a query, slot-id, library-*,
  // vendor attributes, a raw character that RFC 7512 would encode, or a broken %XX.
  // Source: RFC 7512, 2.3 (path); envelope/FORMAT.md, U.
  static std::optional<Pkcs11Uri> Parse(std::string_view text);

  const std::string& text() const { return text_; }

  // Values are percent-decoded and may hold any byte; absent where the URI does not name them.
  std::optional<std::string> token;
  std::optional<std::string> manufacturer;
  std::optional<std::string> serial;
  std::optional<std::string> model;
  std::optional<std::string> object;
  std::optional<std::string> id;  // CKA_ID's raw bytes
  std::optional<std::string> type;

 private:
  Pkcs11Uri() = default;
  std::string text_;
};

// PercentDecodePkcs11 decodes `text`, made of RFC 7512's unreserved and available characters and of
// those in `also_allowed`, and %XX; nothing on any other character.
std::optional<std::string> PercentDecodePkcs11(std::string_view text,
                                               std::string_view also_allowed);

// PercentEncodePkcs11 keeps RFC 3986's unreserved characters and encodes all others as %XX.
std::string PercentEncodePkcs11(std::string_view value);

}  // namespace keyescrow::envelope
