// Devices: the hardware of this host, as the use cases see it: factors, signers and plain facts.
// agent/host_devices implements it with tpm/ and hsm/; nothing else in agent/ knows a device.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "envelope/anchor.h"
#include "envelope/base/result.h"
#include "envelope/factor.h"
#include "envelope/signer.h"

namespace keyescrow::agent {

// TokenSpec: one private key on a token; the public key is the identity, the URI a hint.
struct TokenSpec {
  std::string name;
  std::string module;  // path of the PKCS#11 module
  std::string uri;     // RFC 7512 path attributes
  Bytes spki;
  bool use_last_try = false;
};

// TokenFacts: what a module says of a token (claims, not proof).
struct TokenFacts {
  std::string label;
  std::string manufacturer;
  std::string model;
  std::string serial;
  std::string firmware;
  bool software = false;  // keys are files on this host: SoftHSM, NSS
  bool pin_count_low = false;
  bool final_try = false;
  bool locked = false;
  bool protected_path = false;
  // What the token offers; true where it was not asked (InspectModule asks).
  bool unwraps_rsa = true;
  bool derives_ecdh = true;
};

struct TokenKeyFacts {
  TokenFacts token;
  std::string kind;  // "rsa", "ec-p256", "other"
  std::uint32_t bits = 0;
  std::string label;
  Bytes id;
  Bytes spki;
  std::string uri;       // names the token and the key; may be stored
  std::string evidence;  // of GenerateTokenKey alone: what ReadTokenEvidence would say
};

struct ModuleFacts {
  std::string description;
  std::string manufacturer;
  std::string library_version;
  std::vector<TokenFacts> tokens;
};

struct KeyPairRequest {
  std::string module;
  std::string uri;    // its token attributes match exactly one token
  bool p256 = false;  // else RSA-3072
  std::string label;
  bool use_last_try = false;
};

// TpmAgentKeyBlob: an agent key as the state keeps it; only the TPM that made it loads it.
struct TpmAgentKeyBlob {
  Bytes object_public;
  Bytes object_private;
};

// TpmAnchorBlob: the log's counter and attestation key as the state keeps them.
struct TpmAnchorBlob {
  envelope::AnchorKey key;
  Bytes attestation_private;
  std::uint64_t base = 0;  // the counter as it was made
};

// TokenUri: a PKCS#11 URI as a person types it, taken apart.
struct TokenUri {
  std::string path;        // "pkcs11:…" without its query; may be stored
  std::string module;      // module-path, or ""
  std::string pin_source;  // "" where the URI names none
};

class Devices {
 public:
  virtual ~Devices() = default;

  // UseTpm says which TPM is meant before the first use: a TCTI, "" for the kernel's, "none"; and
  // the SRK that was pinned at init, or nothing.
  virtual void UseTpm(const std::string& tcti, const Bytes& pinned_srk) = 0;

  // Tpm opens the TPM at the first call and keeps it; a failure is kept as well, so that a TPM that
  // hangs costs its deadline once. Errors: kTpmUnavailable, kTpmTimeout.
  virtual Result<envelope::TpmFactor*> Tpm() = 0;
  // PersistSrk puts the SRK at its usual handle if nothing is there.
  virtual Status PersistSrk() = 0;
  virtual Result<TpmAgentKeyBlob> CreateAgentKey(const SecretBytes& auth) = 0;
  virtual Result<std::unique_ptr<envelope::Signer>> OpenAgentKey(const TpmAgentKeyBlob& blob,
                                                                 SecretBytes auth) = 0;
  // LastSignature tells the key that OpenAgentKey gave that its next signature is the last one, so
  // that it leaves the TPM without further commands.
  virtual void LastSignature() = 0;

  // CreateAnchor makes the log's counter in the TPM; OpenAnchor sends no command. `origin` is the
  // log's. Errors: kTpmOwnerAuth, kAnchorNoIndex; kAnchorMissing; kTpm*.
  virtual Result<TpmAnchorBlob> CreateAnchor(const SecretBytes& auth,
                                             const std::string& origin) = 0;
  virtual Result<std::unique_ptr<envelope::Anchor>> OpenAnchor(const TpmAnchorBlob& blob,
                                                               SecretBytes auth,
                                                               const std::string& origin) = 0;

  // ParseTokenUri reads RFC 7512 strictly. Errors: kInvalidUri (pin-value, slot-id and what is not
  // known here are refused by name).
  virtual Result<TokenUri> ParseTokenUri(const std::string& uri) = 0;
  // PrepareToken begins what every token session begins with, before it is known which token and
  // module are wanted. It costs a process where none is wanted then.
  virtual void PrepareToken() {}
  // PrepareModule begins to load a module before it is known which key is wanted; StartToken takes
  // it over. Errors show there.
  virtual void PrepareModule(const std::string& module) { static_cast<void>(module); }
  // StartToken begins to load the module in a process of its own and returns at once. `pins`
  // outlives the factor.
  virtual Result<std::unique_ptr<envelope::TokenFactor>> StartToken(
      const TokenSpec& spec, envelope::PinProvider& pins) = 0;
  virtual Result<ModuleFacts> InspectModule(const std::string& module) = 0;
  // FindTokenKey returns the one public key that the URI matches. With `pins` it logs in where the
  // token hides its public keys.
  virtual Result<TokenKeyFacts> FindTokenKey(const std::string& module, const std::string& uri,
                                             envelope::PinProvider* pins) = 0;
  // ReadTokenEvidence returns the private key's attributes as JSON: claims of the module.
  virtual Result<std::string> ReadTokenEvidence(const TokenSpec& spec,
                                                envelope::PinProvider& pins) = 0;
  // GenerateTokenKey makes a pair on the token and reads its evidence, with one login. Nothing on a
  // token is ever destroyed: where it fails after the pair was made, the hint says how to use it.
  virtual Result<TokenKeyFacts> GenerateTokenKey(const KeyPairRequest& request,
                                                 envelope::PinProvider& pins) = 0;
};

}  // namespace keyescrow::agent
