// ModuleSession: the worker's side of each request: calls of the module, and what they answer.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/rsa.h"
#include "envelope/base/secret_bytes.h"
#include "hsm/errors.h"
#include "hsm/module.h"
#include "hsm/token_protocol.h"

namespace keyescrow::hsm {

// ModuleFailure: a function of the module answered something else than CKR_OK.
struct ModuleFailure {
  TokenCall call;
  CK_RV rv;
  std::string text;  // what the token offers instead, where that helps
};
using ModuleStatus = std::optional<ModuleFailure>;  // nothing: all is well

// KeyRow: one key object as the module shows it; empty where it does not.
struct KeyRow {
  std::uint64_t handle = 0;
  std::uint64_t key_type = ~std::uint64_t{0};
  bool always_authenticate = false;
  Bytes id;
  Bytes label;
  Bytes modulus;
  Bytes exponent;
  Bytes ec_params;
  Bytes ec_point;
};

struct KeyOperation {
  CK_OBJECT_HANDLE key = 0;
  const SecretBytes* pin = nullptr;  // for CKA_ALWAYS_AUTHENTICATE; null: not asked for
  bool on_reader = false;            // that PIN is typed on the reader's pad
};

// One session at a time, on one token. Used from one thread.
class ModuleSession {
 public:
  explicit ModuleSession(Module& module) : module_(module) {}

  ModuleStatus Open(CK_SLOT_ID slot, bool read_write);
  // Close logs out and closes, as far as the module lets it.
  void Close();
  bool open() const { return open_; }

  // ListKeys appends up to kMaxKeysInReply keys, leaving out the first `first` ones.
  ModuleStatus ListKeys(CK_OBJECT_CLASS object_class, std::size_t first, std::vector<KeyRow>& keys,
                        bool& more);

  // Login calls C_Login once; `pin` is null at a PIN pad.
  ModuleStatus Login(const SecretBytes* pin);

  // DecryptRsa: RSA-OAEP with `hash`; where C_DecryptInit refuses that, raw RSA: `raw` tells that
  // `output` is the padded block. After C_Decrypt there is no second way (padding oracle).
  ModuleStatus DecryptRsa(const KeyOperation& operation, OaepHash hash, ByteView ciphertext,
                          bool& raw, SecretBytes& output);

  // DeriveEcdh: `output` is Z, or S where the token applied the KDF itself: `is_s`.
  ModuleStatus DeriveEcdh(const KeyOperation& operation, ByteView point, ByteView shared_info,
                          bool& is_s, SecretBytes& output);

  // SignEcdsa: CKM_ECDSA over `digest`; `signature` is R‖S, kSignatureBytes.
  ModuleStatus SignEcdsa(const KeyOperation& operation, ByteView digest, Bytes& signature);

  ModuleStatus ReadEvidence(CK_OBJECT_HANDLE key, std::vector<std::uint8_t>& booleans);

  ModuleStatus GenerateKeyPair(std::uint8_t kind, ByteView id, ByteView label);

 private:
  bool ReadAttribute(CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type, std::size_t max_size_bytes,
                     Bytes& value);
  struct Wanted {
    CK_ATTRIBUTE_TYPE type;
    std::size_t max_size_bytes;
    Bytes* value;  // empty where the module does not show it
  };
  static constexpr std::size_t kMaxWanted = 4;
  void ReadAttributes(CK_OBJECT_HANDLE object, std::span<const Wanted> wanted);
  KeyRow ReadKey(CK_OBJECT_HANDLE object, bool is_private);
  ModuleStatus ContextLogin(const KeyOperation& operation);
  ModuleStatus DeriveOnce(const KeyOperation& operation, CK_ULONG kdf, ByteView point,
                          ByteView shared_info, SecretBytes& output);
  std::string OfferedMechanisms();

  Module& module_;
  CK_SLOT_ID slot_ = 0;
  CK_SESSION_HANDLE session_ = 0;
  bool open_ = false;
  bool logged_in_ = false;
};

}  // namespace keyescrow::hsm
