// What clevis and systemd-cryptenroll wrote: their JSON into pins.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "agent/usecases/foreign_escrow.h"
#include "agent/usecases/foreign_json.h"
#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent {
namespace {

using Json = nlohmann::json;
using Kind = ForeignPin::Kind;

constexpr std::size_t kMaxHeaderBytes = 256u << 10;
constexpr int kMaxPinDepth = 4;
constexpr std::size_t kMaxPins = 64;
constexpr std::size_t kMaxNameBytes = 1024;
constexpr std::size_t kMaxKindBytes = 64;
constexpr std::size_t kMaxBankBytes = 16;
constexpr unsigned kMaxPcr = 23;
constexpr unsigned kMaxKeyslots = 32;

// ParseNumber reads a decimal number up to `max`, without leading zeros.
std::optional<unsigned> ParseNumber(std::string_view text, unsigned max) {
  if (text.empty() || text.size() > 2 || (text.size() > 1 && text[0] == '0')) return std::nullopt;
  unsigned value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<unsigned>(c - '0');
  }
  return value <= max ? std::optional(value) : std::nullopt;
}

// NumbersOf reads PCRs: a JSON array of numbers, or text as "0,7". Empty where there is none.
Result<std::vector<unsigned>> NumbersOf(const Json* list) {
  std::vector<unsigned> numbers;
  const auto wrong = [] { return ForeignError("its PCRs are no numbers up to 23"); };
  if (list == nullptr || list->is_null()) return numbers;
  if (const auto* text = list->get_ptr<const std::string*>()) {
    std::string_view rest = *text;
    while (!rest.empty()) {
      const std::string_view word = rest.substr(0, rest.find(','));
      const auto number = ParseNumber(word, kMaxPcr);
      if (!number || numbers.size() > kMaxPcr) return wrong();
      numbers.push_back(*number);
      rest.remove_prefix(std::min(word.size() + 1, rest.size()));
    }
    return numbers;
  }
  if (!list->is_array() || list->size() > kMaxPcr + 1) return wrong();
  for (const Json& item : *list) {
    if (!item.is_number_unsigned() || item.get<std::uint64_t>() > kMaxPcr) return wrong();
    numbers.push_back(item.get<unsigned>());
  }
  return numbers;
}

// PcrDetail: "pcrs sha256:0,7"; "" without PCRs.
Result<std::string> PcrDetail(const Json& object, const char* bank_member, const char* list) {
  ASSIGN_OR_RETURN(const std::vector<unsigned> pcrs, NumbersOf(Member(object, list)));
  if (pcrs.empty()) return std::string();
  const std::string* bank = Text(object, bank_member);
  const bool is_bank =
      bank == nullptr || (!bank->empty() && bank->size() <= kMaxBankBytes &&
                          std::all_of(bank->begin(), bank->end(), [](char c) {
                            return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
                          }));
  if (!is_bank) return ForeignError("its PCR bank is no name of a hash");
  return fmt::format("pcrs {}{}{}", bank == nullptr ? "" : *bank, bank == nullptr ? "" : ":",
                     fmt::join(pcrs, ","));
}

// NameOf reads a name that people see.
Result<std::string> NameOf(const Json& object, const char* member, const char* missing,
                           std::size_t max_bytes = kMaxNameBytes) {
  const std::string* name = Text(object, member);
  if (name == nullptr || name->empty()) return ForeignError(missing);
  if (name->size() > max_bytes) {
    return ForeignError(fmt::format("its {} is longer than {} bytes", member, max_bytes));
  }
  return CleanForeignName(*name);
}

bool IsTrue(const Json& object, const char* name) {
  const Json* member = Member(object, name);
  return member != nullptr && member->is_boolean() && member->get<bool>();
}

bool IsBlob(const std::string* text) { return text != nullptr && !text->empty(); }

bool IsBase64UrlText(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
  });
}

// SplitJwe returns the five parts of a compact JWE: header, key (empty with clevis), initial
// vector, ciphertext, tag. Source: RFC 7516, 7.1.
Result<std::vector<std::string_view>> SplitJwe(std::string_view text) {
  std::vector<std::string_view> parts;
  if (std::count(text.begin(), text.end(), '.') != 4) {
    return ForeignError("it is no compact JWE: that has five parts, joined by dots");
  }
  for (int i = 0; i < 5; ++i) {
    parts.push_back(text.substr(0, text.find('.')));
    if (!IsBase64UrlText(parts.back())) return ForeignError("a part of the JWE is not base64url");
    text.remove_prefix(std::min(parts.back().size() + 1, text.size()));
  }
  if (parts[0].empty() || parts[2].empty() || parts[4].empty()) {
    return ForeignError("a part of the JWE is empty");
  }
  return parts;
}

// ClevisReader follows the pins of a clevis JWE; sss pins hold whole JWEs.
class ClevisReader {
 public:
  // ReadHeader reads a protected header (b64u) into a pin, and its name into `pin_name`.
  Result<ForeignPin> ReadHeader(std::string_view encoded, int depth, std::string* pin_name) {
    if (depth > kMaxPinDepth) return ForeignError("its sss pins nest more than 4 deep");
    if (++num_pins_ > kMaxPins) return ForeignError("it has more than 64 pins");
    if (encoded.size() > kMaxHeaderBytes) return ForeignError("its header is larger than 256 KiB");
    const auto bytes = DecodeBase64Url(encoded);
    if (!bytes) return ForeignError("its protected header is not base64url");
    ASSIGN_OR_RETURN(const Json header, ParseForeignObject(AsText(ByteView(*bytes))));
    const Json* clevis = Member(header, "clevis");
    if (clevis == nullptr) return ForeignError("it is a JWE, and not one of clevis");
    ASSIGN_OR_RETURN(const std::string name,
                     NameOf(*clevis, "pin", "its clevis header names no pin", kMaxKindBytes));
    if (pin_name != nullptr) *pin_name = name;
    const Json none = Json::object();
    const Json* config = Member(*clevis, name.c_str());
    return ReadPin(name, config == nullptr ? none : *config, depth);
  }

 private:
  Result<ForeignPin> ReadPin(const std::string& name, const Json& config, int depth) {
    ForeignPin pin;
    if (name == "tpm2") {
      pin.kind = Kind::kTpm;
      if (!IsBlob(Text(config, "jwk_pub")) || !IsBlob(Text(config, "jwk_priv"))) {
        return ForeignError("its tpm2 pin holds no sealed key");
      }
      ASSIGN_OR_RETURN(pin.detail, PcrDetail(config, "pcr_bank", "pcr_ids"));
    } else if (name == "tang") {
      pin.kind = Kind::kTang;
      ASSIGN_OR_RETURN(pin.name, NameOf(config, "url", "its tang pin names no server"));
    } else if (name == "null") {
      pin.kind = Kind::kNothing;
    } else if (name == "sss") {
      RETURN_IF_ERROR(ReadShares(config, depth, pin));
    } else {
      pin.name = name;
    }
    return pin;
  }

  Status ReadShares(const Json& config, int depth, ForeignPin& pin) {
    const Json* threshold = Member(config, "t");
    const Json* members = Member(config, "jwe");
    if (threshold == nullptr || !threshold->is_number_unsigned() || members == nullptr ||
        !members->is_array() || threshold->get<std::uint64_t>() < 1 ||
        threshold->get<std::uint64_t>() > members->size()) {
      return ForeignError("its sss pin has no threshold that fits its members");
    }
    if (members->size() > kMaxPins) return ForeignError("it has more than 64 pins");
    pin.kind = Kind::kThreshold;
    pin.threshold = threshold->get<unsigned>();
    for (const Json& member : *members) {
      const auto* jwe = member.get_ptr<const std::string*>();
      if (jwe == nullptr) return ForeignError("a member of its sss pin is no JWE");
      ASSIGN_OR_RETURN(const auto parts, SplitJwe(*jwe));
      ASSIGN_OR_RETURN(ForeignPin inner, ReadHeader(parts[0], depth + 1, nullptr));
      pin.members.push_back(std::move(inner));
    }
    return Ok();
  }

  std::size_t num_pins_ = 0;
};

ForeignPin Both(ForeignPin first, ForeignPin second) {
  ForeignPin both;
  both.kind = Kind::kThreshold;
  both.threshold = 2;
  both.members.push_back(std::move(first));
  both.members.push_back(std::move(second));
  return both;
}

Result<ForeignPin> ReadTpmToken(const Json& token) {
  ForeignPin pin;
  pin.kind = Kind::kTpm;
  if (!IsBlob(Text(token, "tpm2-blob"))) return ForeignError("it holds no sealed key");
  ASSIGN_OR_RETURN(pin.detail, PcrDetail(token, "tpm2-pcr-bank", "tpm2-pcrs"));
  // PCRs whose values a key signs: systemd 252, --tpm2-public-key.
  ASSIGN_OR_RETURN(const auto signed_pcrs, NumbersOf(Member(token, "tpm2_pubkey_pcrs")));
  if (!signed_pcrs.empty()) {
    pin.detail += fmt::format("{}signed pcrs {}", pin.detail.empty() ? "" : "; ",
                              fmt::join(signed_pcrs, ","));
  }
  if (!IsTrue(token, "tpm2-pin")) return pin;
  ForeignPin typed;
  typed.kind = Kind::kPin;
  return Both(std::move(pin), std::move(typed));
}

// ReadFido2Token tells two tokens apart by their credentials, which are no secrets.
Result<ForeignPin> ReadFido2Token(const Json& token) {
  ForeignPin pin;
  pin.kind = Kind::kFido2;
  const std::string* credential = Text(token, "fido2-credential");
  if (!IsBlob(credential)) return ForeignError("it names no credential of a FIDO2 token");
  pin.name = ToHex(ByteView(Sha256(AsBytes(*credential))).first(4));
  constexpr std::pair<const char*, const char*> kNeeds[] = {
      {"fido2-clientPin-required", "with its pin"},
      {"fido2-uv-required", "with user verification"},
      {"fido2-up-required", "with a touch"}};
  for (const auto& [member, words] : kNeeds) {
    if (IsTrue(token, member)) pin.detail += (pin.detail.empty() ? "" : ", ") + std::string(words);
  }
  return pin;
}

Result<ForeignPin> ReadClevisToken(const Json& token, std::string& kind) {
  const Json* jwe = Member(token, "jwe");
  const std::string* header = jwe == nullptr ? nullptr : Text(*jwe, "protected");
  if (header == nullptr || !IsBlob(Text(*jwe, "iv")) || !IsBlob(Text(*jwe, "tag"))) {
    return ForeignError("it holds no JWE");
  }
  ClevisReader reader;
  std::string pin_name;
  ASSIGN_OR_RETURN(ForeignPin pin, reader.ReadHeader(*header, 1, &pin_name));
  kind = "clevis-" + pin_name;
  return pin;
}

Result<ForeignPin> ReadToken(const Json& token, std::string& kind) {
  ForeignPin pin;
  if (kind == "clevis") return ReadClevisToken(token, kind);
  if (kind == "systemd-tpm2") return ReadTpmToken(token);
  if (kind == "systemd-fido2") return ReadFido2Token(token);
  if (kind == "systemd-recovery") {
    pin.kind = Kind::kRecoveryKey;
    return pin;
  }
  pin.kind = Kind::kToken;
  pin.detail = "with its pin";
  ASSIGN_OR_RETURN(pin.name, NameOf(token, "pkcs11-uri", "it names no PKCS#11 token"));
  if (!IsBlob(Text(token, "pkcs11-key"))) return ForeignError("it holds no wrapped key");
  return pin;
}

Status ReadKeyslots(const Json& token, std::vector<unsigned>& slots) {
  const Json* list = Member(token, "keyslots");
  const auto wrong = [] { return ForeignError("its keyslots are no numbers up to 31"); };
  if (list == nullptr || !list->is_array() || list->size() > kMaxKeyslots) return wrong();
  for (const Json& slot : *list) {
    const auto* text = slot.get_ptr<const std::string*>();
    const auto number = text == nullptr ? std::nullopt : ParseNumber(*text, kMaxKeyslots - 1);
    if (!number || std::find(slots.begin(), slots.end(), *number) != slots.end()) return wrong();
    slots.push_back(*number);
  }
  return Ok();
}

}  // namespace

Result<ForeignEscrow> ParseClevisJwe(std::string_view text) {
  ForeignEscrow escrow;
  escrow.item = "jwe";
  ASSIGN_OR_RETURN(const auto parts, SplitJwe(text));
  ClevisReader reader;
  std::string pin_name;
  ASSIGN_OR_RETURN(escrow.opens_by, reader.ReadHeader(parts[0], 1, &pin_name));
  escrow.kind = "clevis-" + pin_name;
  escrow.sha256 = Sha256(AsBytes(text));
  return escrow;
}

Result<std::optional<ForeignEscrow>> ParseLuksTokenJson(unsigned token, std::string_view json) {
  constexpr std::string_view kKinds[] = {"clevis", "systemd-tpm2", "systemd-fido2",
                                         "systemd-pkcs11", "systemd-recovery"};
  ASSIGN_OR_RETURN(const Json object, ParseForeignObject(json));
  const std::string* kind = Text(object, "type");
  if (kind == nullptr ||
      std::find(std::begin(kKinds), std::end(kKinds), *kind) == std::end(kKinds)) {
    return std::optional<ForeignEscrow>();
  }
  ForeignEscrow escrow;
  escrow.item = fmt::format("token {}", token);
  escrow.kind = *kind;
  escrow.sha256 = Sha256(AsBytes(json));
  RETURN_IF_ERROR(ReadKeyslots(object, escrow.slots));
  ASSIGN_OR_RETURN(escrow.opens_by, ReadToken(object, escrow.kind));
  return std::optional(std::move(escrow));
}

}  // namespace keyescrow::agent
