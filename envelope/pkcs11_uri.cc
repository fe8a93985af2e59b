#include "envelope/pkcs11_uri.h"

namespace keyescrow::envelope {
namespace {

constexpr std::string_view kScheme = "pkcs11:";
constexpr std::string_view kUnreservedMarks = "-._~";
constexpr std::string_view kAvailable = ":[]@!$'()*+,=";  // pk11-res-avail

bool IsAlphanumeric(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::optional<Pkcs11Uri> Pkcs11Uri::Parse(std::string_view text) {
  if (text.size() > kMaxSizeBytes || !text.starts_with(kScheme)) return std::nullopt;
  Pkcs11Uri uri;
  uri.text_ = text;
  text.remove_prefix(kScheme.size());
  while (true) {
    const std::size_t end = text.find(';');
    const std::string_view attribute = text.substr(0, end);
    const std::size_t equals = attribute.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    const std::string_view name = attribute.substr(0, equals);
    std::optional<std::string>* value = name == "token"          ? &uri.token
                                        : name == "manufacturer" ? &uri.manufacturer
                                        : name == "serial"       ? &uri.serial
                                        : name == "model"        ? &uri.model
                                        : name == "object"       ? &uri.object
                                        : name == "id"           ? &uri.id
                                        : name == "type"         ? &uri.type
                                                                 : nullptr;
    if (value == nullptr || value->has_value()) return std::nullopt;
    *value = PercentDecodePkcs11(attribute.substr(equals + 1), "&");
    if (!value->has_value()) return std::nullopt;
    if (end == std::string_view::npos) return uri;
    text.remove_prefix(end + 1);
  }
}

std::optional<std::string> PercentDecodePkcs11(std::string_view text,
                                               std::string_view also_allowed) {
  std::string decoded;
  for (std::size_t index = 0; index < text.size(); ++index) {
    const char c = text[index];
    if (c == '%') {
      if (text.size() - index < 3) return std::nullopt;
      const int high = HexDigit(text[index + 1]);
      const int low = HexDigit(text[index + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      decoded.push_back(static_cast<char>(high << 4 | low));
      index += 2;
    } else if (IsAlphanumeric(c) || kUnreservedMarks.find(c) != std::string_view::npos ||
               kAvailable.find(c) != std::string_view::npos ||
               also_allowed.find(c) != std::string_view::npos) {
      decoded.push_back(c);
    } else {
      return std::nullopt;
    }
  }
  return decoded;
}

std::string PercentEncodePkcs11(std::string_view value) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  std::string encoded;
  for (const char c : value) {
    if (IsAlphanumeric(c) || kUnreservedMarks.find(c) != std::string_view::npos) {
      encoded.push_back(c);
    } else {
      const auto byte = static_cast<unsigned char>(c);
      encoded.push_back('%');
      encoded.push_back(kDigits[byte >> 4]);
      encoded.push_back(kDigits[byte & 15]);
    }
  }
  return encoded;
}

}  // namespace keyescrow::envelope
