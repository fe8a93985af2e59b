// TokenInfo and TokenKey: what a module says of its tokens and of the public keys on them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/bytes.h"

namespace keyescrow::hsm {

// TokenInfo: CK_TOKEN_INFO with its texts trimmed. Claims of the module, not proof.
// TokenMechanisms: which of the ways to open an envelope's factor a token offers.
struct TokenMechanisms {
  bool rsa_oaep = false;  // CKM_RSA_PKCS_OAEP
  bool rsa_raw = false;   // CKM_RSA_X_509, the fallback
  bool ecdh = false;      // CKM_ECDH1_DERIVE
};

struct TokenInfo {
  std::uint64_t slot_id = 0;  // of this process alone: modules renumber slots
  std::string label;
  std::string manufacturer;
  std::string model;
  std::string serial;
  std::string firmware;  // "major.minor"
  std::uint64_t flags = 0;
  std::uint64_t min_pin_length = 0;
  std::uint64_t max_pin_length = 0;
  std::optional<TokenMechanisms> mechanisms = {};  // filled by InspectModule alone

  bool initialized() const;      // CKF_TOKEN_INITIALIZED
  bool login_required() const;   // CKF_LOGIN_REQUIRED
  bool pin_initialized() const;  // CKF_USER_PIN_INITIALIZED
  bool protected_path() const;   // CKF_PROTECTED_AUTHENTICATION_PATH: the reader has a PIN pad
  bool pin_count_low() const;    // CKF_USER_PIN_COUNT_LOW: a wrong PIN since the last right one
  bool final_try() const;        // CKF_USER_PIN_FINAL_TRY
  bool locked() const;           // CKF_USER_PIN_LOCKED
  bool software() const;         // SoftHSM or NSS: keys are files on this host
};

enum class KeyKind : std::uint8_t { kOther, kRsa, kEcP256 };
std::string_view KeyKindName(KeyKind kind);  // "other", "rsa", "ec-p256"

// TokenKey: one public key on a token.
struct TokenKey {
  KeyKind kind = KeyKind::kOther;
  std::uint32_t bits = 0;
  std::string label;  // CKA_LABEL
  Bytes id;           // CKA_ID
  Bytes spki;         // canonical DER; empty where kind is kOther
};

// ModuleReport: CK_INFO and the module's tokens.
struct ModuleReport {
  std::string manufacturer;
  std::string description;
  std::string library_version;   // "major.minor"
  std::string cryptoki_version;  // of the interface in use
  std::vector<TokenInfo> tokens;
  std::uint32_t num_uninitialized = 0;  // slots whose token has no label and PIN yet
};

// TokenUri returns an RFC 7512 URI of at most 512 bytes that names the token and the key.
std::string TokenUri(const TokenInfo& token, const TokenKey& key);

// DescribeToken returns `"label" (serial 1234)` for messages, without control characters.
std::string DescribeToken(const TokenInfo& token);

}  // namespace keyescrow::hsm
