// Factors: what a recovery path asks for, as records of the envelope's header, and the interfaces
// through which devices yield a factor's 32-byte secret S. hsm/ and tpm/ implement them; nothing
// here knows a device. Record shapes: envelope/FORMAT.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"
#include "envelope/base/rsa.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::envelope {

// ---- PKCS#11 tokens

// Pkcs11RsaRecord: S = OAEP^-1(wrapped) by the private key of `spki`.
struct Pkcs11RsaRecord {
  OaepHash hash = OaepHash::kSha256;  // header: RSA-OAEP (SHA-1) or RSA-OAEP-256
  std::string token;                  // the name it was registered under
  Bytes spki;                         // canonical DER
  std::string uri;                    // RFC 7512 path attributes: a hint
  Bytes wrapped;                      // as long as the modulus
};

// Pkcs11EcdhRecord: S = X9.63-KDF-SHA-256(Z, EcdhSharedInfo(record)), Z = x of ECDH(spki, epk).
struct Pkcs11EcdhRecord {
  std::string token;
  Bytes spki;  // 91 bytes
  std::string uri;
  Bytes epk;                    // 65 bytes, uncompressed
  std::optional<Bytes32> mask;  // members of `shares` only: the share is S xor mask
};

// EcdhSharedInfo returns "keyescrow1|ecdh|" epk_b64u "|" spki_b64u.
std::string EcdhSharedInfo(const Pkcs11EcdhRecord& record);

// EcdhSecret returns S = SHA-256(Z ‖ 00000001 ‖ EcdhSharedInfo(record)); `shared_x` is Z, 32 bytes.
// Source: ANSI X9.63 KDF with SHA-256, one block.
Result<SecretBytes> EcdhSecret(const SecretBytes& shared_x, const Pkcs11EcdhRecord& record);

// TokenFactor: one login to one token that holds the private key of one public key. Blocking, with
// the implementation's own deadlines; used from one thread.
class TokenFactor {
 public:
  virtual ~TokenFactor() = default;

  // Locate finds the token and the public key without a PIN where the token allows it.
  // Errors: kModule*, kTokenNotFound, kTokenAmbiguous, kTokenTimeout, kPinLocked, …
  virtual Status Locate() = 0;

  // UnwrapRsa and DeriveEcdh return S. They log in at the first call: one C_Login, never retried.
  // Errors: kWrongPin, kPinEmpty, kPinLocked, kPinLastTry, kToken*, kModuleFailed.
  virtual Result<SecretBytes> UnwrapRsa(const Pkcs11RsaRecord& record) = 0;
  virtual Result<SecretBytes> DeriveEcdh(const Pkcs11EcdhRecord& record) = 0;

  // Finish begins to log out while the caller goes on; nothing follows it but the destructor.
  virtual void Finish() {}
};

// PinRequest: what a person needs to know before typing a PIN.
struct PinRequest {
  std::string token_name;   // registered name, or "" where the token is not registered
  std::string token_label;  // CK_TOKEN_INFO, trimmed
  std::string token_serial;
  bool count_low = false;  // CKF_USER_PIN_COUNT_LOW: a wrong PIN was typed since the last right one
  bool final_try = false;  // CKF_USER_PIN_FINAL_TRY; asked only with use_last_try
};

// PinProvider yields a PIN for one token; called at most once a login, after the token was found.
// It is not called at all where the reader has a PIN pad.
class PinProvider {
 public:
  virtual ~PinProvider() = default;
  // Errors: kSecretSourceMissing and its kin; the login is then not attempted.
  virtual Result<SecretBytes> AskPin(const PinRequest& request) = 0;
  // OnReader tells the person to enter the PIN on the reader's own pad.
  virtual void OnReader(const PinRequest& request) = 0;
};

// ---- TPM 2.0

// Tpm2Record: a sealed object under the storage root key of one host's TPM.
struct Tpm2Record {
  std::string host;
  Bytes parent_public;                // TPM2B_PUBLIC of the SRK, 92 bytes
  std::string pcrs;                   // "" or "sha256:0,7"
  std::optional<Bytes32> pcr_digest;  // exactly when pcrs is set and signer is not
  Bytes signer;                       // empty, or the 91-byte SPKI that signs PCR policies
  bool auth = false;                  // the object has an auth value from the password
  Bytes seed;                         // empty, or 70 bytes: wrapped offline for another host
  Bytes object_public;                // TPM2B_PUBLIC, 80 bytes; header: "public"
  Bytes object_private;               // TPM2B_PRIVATE, 3–512 bytes; header: "private"
};

// ParsePcrSelection takes "sha256:" and ascending PCR numbers 0–23, joined by commas; nothing on
// any other text.
std::optional<std::vector<std::uint8_t>> ParsePcrSelection(std::string_view text);
std::string FormatPcrSelection(const std::vector<std::uint8_t>& pcrs);  // "" for none

// MarshalPcrSelection returns the TPML_PCR_SELECTION (one SHA-256 bank, 3 select bytes).
Bytes MarshalPcrSelection(const std::vector<std::uint8_t>& pcrs);

// Tpm2AuthPolicy returns the authPolicy that the record's object must carry (FORMAT.md, X).
// Source: TPM 2.0 Part 3, TPM2_PolicyPCR, TPM2_PolicyAuthorize, TPM2_PolicyAuthValue.
Bytes32 Tpm2AuthPolicy(const std::vector<std::uint8_t>& pcrs,
                       const std::optional<Bytes32>& pcr_digest, const Bytes& signer_spki);

// Tpm2Name returns the Name of a TPM2B_PUBLIC with nameAlg SHA-256: 000B ‖ SHA-256(TPMT_PUBLIC).
Bytes Tpm2Name(ByteView tpm2b_public);

struct SealRequest {
  const SecretBytes* secret = nullptr;      // 1–128 bytes
  const SecretBytes* auth_value = nullptr;  // 32 bytes, or null: no password in the path
  std::string host;
  std::vector<std::uint8_t> pcrs;  // empty: not bound to PCRs
};

struct UnsealRequest {
  const SecretBytes* auth_value = nullptr;  // 32 bytes, exactly when the record's auth is true
  bool use_last_try = false;                // spend the last try before lockout
  // R‖S over the PolicyPCR digest of the present PCRs, exactly when the record has a signer.
  const Bytes64* pcr_policy_signature = nullptr;
};

// TpmState: what `doctor`, `init` and `show` report of a TPM. Read without authorisation.
struct TpmState {
  std::string manufacturer;  // e.g. "IBM" for libtpms
  std::string vendor;        // e.g. "SW   TPM"
  bool simulator = false;
  bool lockout_auth_set = false;
  bool owner_auth_set = false;
  bool in_lockout = false;
  std::uint32_t lockout_counter = 0;
  std::uint32_t max_auth_fail = 0;
  std::uint32_t lockout_interval_s = 0;
  std::uint32_t lockout_recovery_s = 0;
  bool srk_persistent = false;       // our template's key is at 0x81000001
  bool srk_handle_occupied = false;  // another key is at 0x81000001: ours is made transient
};

// TpmFactor: sealing to the TPM of this host. Blocking, with a deadline of its own for every
// command; used from one thread.
class TpmFactor {
 public:
  virtual ~TpmFactor() = default;

  // StorageParent returns this TPM's SRK as a TPM2B_PUBLIC of 92 bytes.
  // Errors: kTpmUnavailable, kTpmTimeout, kTpmOwnerAuth, kTpmSrkUntrusted, kTpmBusy.
  virtual Result<Bytes> StorageParent() = 0;

  // Seal returns a record that only this TPM opens. At most 3 TPM commands once the SRK is known.
  virtual Result<Tpm2Record> Seal(const SealRequest& request) = 0;

  // Unseal returns the sealed bytes. Where the object is DA-protected the DA state is read first:
  // a locked TPM is told without a try, the last try is not spent unasked.
  // Errors: kTpmWrongDevice, kTpmWrongAuth, kTpmLockout, kTpmLastTry, kTpmPcrMismatch, …
  virtual Result<SecretBytes> Unseal(const Tpm2Record& record, const UnsealRequest& request) = 0;

  virtual Result<TpmState> Inspect() = 0;
};

}  // namespace keyescrow::envelope
