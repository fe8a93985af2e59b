// What `token add`, `token keygen` and `doctor` ask of a module. Each call is one worker process of
// its own.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "envelope/base/result.h"
#include "envelope/factor.h"
#include "hsm/token_factor.h"
#include "hsm/token_info.h"
#include "hsm/worker_options.h"

namespace keyescrow::hsm {

// ProbeSpec: a module and, by the URI's attributes, one of its tokens and keys.
struct ProbeSpec {
  std::string module_path;
  std::string module_arguments;
  std::string uri;  // may be empty: any
  bool use_last_try = false;
};

// InspectModule loads the module and lists its initialised tokens, without a PIN.
// Errors: kModuleMissing, kModuleInvalid, kModuleFailed, kTokenTimeout, …
Result<ModuleReport> InspectModule(const ProbeSpec& spec, const TokenWorkerOptions& options = {});

// ListTokens is InspectModule's tokens. Errors: as InspectModule.
Result<std::vector<TokenInfo>> ListTokens(const std::string& module_path,
                                          const TokenWorkerOptions& options = {});

struct FoundKey {
  TokenInfo token;
  TokenKey key;
};

// ReadPublicKeys returns the RSA and P-256 public keys on the one token that the URI's token
// attributes match, filtered by its `id` and `object`. With `pins` it logs in first, for tokens
// that hide public keys. Errors: kTokenNotFound, kTokenAmbiguous, kInvalidUri, …
Result<std::vector<FoundKey>> ReadPublicKeys(const ProbeSpec& spec,
                                             envelope::PinProvider* pins = nullptr,
                                             const TokenWorkerOptions& options = {});

// FindPublicKey is ReadPublicKeys where exactly one key must match (`token add`).
// Errors: kTokenKeyNotFound, kTokenKeyAmbiguous (the hint lists id and label of each), …
Result<FoundKey> FindPublicKey(const ProbeSpec& spec, envelope::PinProvider* pins = nullptr,
                               const TokenWorkerOptions& options = {});

// KeyEvidence: what the token asserts of a private key. Claims of the module, not proof: print
// "token-asserted". Absent: the module does not say.
struct KeyEvidence {
  TokenInfo token;
  TokenKey key;
  std::string module_description;
  std::string library_version;
  std::optional<bool> sensitive;
  std::optional<bool> extractable;
  std::optional<bool> always_sensitive;
  std::optional<bool> never_extractable;
  std::optional<bool> local;
  std::optional<bool> wrap_with_trusted;
  std::optional<bool> always_authenticate;
  std::optional<bool> decrypt;
  std::optional<bool> derive;
  std::optional<bool> sign;
  std::optional<bool> unwrap;
};

// ReadKeyEvidence logs in once and reads the private key's attributes.
// Errors: as TokenFactor, kTokenKeyNotFound.
Result<KeyEvidence> ReadKeyEvidence(const TokenSpec& spec, envelope::PinProvider& pins,
                                    const TokenWorkerOptions& options = {});

enum class GeneratedKey : std::uint8_t { kRsa2048, kRsa3072, kP256 };

struct GenerateSpec {
  ProbeSpec where;  // the URI's token attributes must match exactly one token
  GeneratedKey kind = GeneratedKey::kRsa3072;
  Bytes id;                // CKA_ID, 1–64 bytes; refused where the token has a key of that id
  std::string label;       // CKA_LABEL, 1–128 bytes
  bool own_label = false;  // refused where the token has a key of that label, too
};

// GenerateKeyPair makes a key pair inside the token: sensitive, not extractable, every usage flag
// explicit; and reads, under the same login, what the token says of it. A failure after the pair
// was made, or may have been, says so, and its hint how to use the pair or to be rid of it.
// Errors: kAlreadyExists, kTokenMechanism, kTokenVendor, as TokenFactor's login.
Result<KeyEvidence> GenerateKeyPair(const GenerateSpec& spec, envelope::PinProvider& pins,
                                    const TokenWorkerOptions& options = {});

}  // namespace keyescrow::hsm
