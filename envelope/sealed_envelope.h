// SealedEnvelope: an envelope that was read and whose signature was verified; still locked.
//
//   file bytes --Read--> SealedEnvelope --Open(path, factor secrets)--> OpenedEnvelope
//   content, paths with their factors' secrets --Seal--> file bytes
//
// Locked and unlocked are two types, so that code which only looks (list, show, verify) cannot
// hold a secret. Formats and the order of checks: envelope/FORMAT.md.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/random.h"
#include "envelope/header.h"
#include "envelope/opened_envelope.h"
#include "envelope/recovery_key.h"
#include "envelope/signer.h"

namespace keyescrow::envelope {

// TrustedAgent: an agent key whose signatures count, for which hosts and key names.
struct TrustedAgent {
  std::string thumbprint;                  // RFC 7638, base64url
  std::vector<std::string> host_patterns;  // empty: every host
  std::vector<std::string> key_patterns;   // empty: every key
};

struct ReadOptions {
  std::vector<TrustedAgent> trusted;
  // accept_unknown_agent reads an envelope whose agent is not in `trusted`, or not for its host or
  // key; agent_trusted() is then false. A signature that does not verify is refused all the same.
  bool accept_unknown_agent = false;
};

// ParsedHeader: a header as it was parsed, and its text in base64url, as `aad` has it.
struct ParsedHeader {
  std::string aad;
  Header header;
};

class SealedEnvelope {
 public:
  // Read parses and verifies a whole file. No KDF runs and no device is touched. Where the file's
  // header is that of `known` to the byte, it is taken from there and not parsed once more.
  // Errors by Failure: kLimit, kFormat, kSignature; kAgentNotTrusted and kAgentOutOfScope are
  // kSignature.
  static Result<SealedEnvelope> Read(ByteView file, const ReadOptions& options,
                                     ParsedHeader* known = nullptr);

  const Header& header() const { return header_; }
  const P256Point& agent_key() const { return agent_key_; }
  bool agent_trusted() const { return agent_trusted_; }
  // hash is the envelope hash: SHA-256 of the ASCII of the payload member.
  const Bytes32& hash() const { return hash_; }

  // Open takes S of each factor of header().paths[path_index], in their order, and returns the
  // protected key. In a path with a recovery key the factors are those of `registered` where it is
  // given, the record that is registered for that key, else those of the path's own copy.
  // Errors: kEnvelopeUnwrap or, where the path has a password, kWrongPassword (Failure::kUnwrap);
  // kEnvelopeMac (kMac).
  Result<OpenedEnvelope> Open(std::size_t path_index,
                              std::span<const SecretBytes* const> factor_secrets,
                              const RecoveryKey* registered = nullptr) const;

  // OpenByRecoveryKey opens a path to a recovery key that is open. Errors: kEnvelopeUnwrap, also
  // where the path goes to another key; kEnvelopeMac.
  Result<OpenedEnvelope> OpenByRecoveryKey(std::size_t path_index,
                                           const OpenedRecoveryKey& key) const;

 private:
  SealedEnvelope(Header header, P256Point agent_key)
      : header_(std::move(header)), agent_key_(agent_key) {}
  Result<SecretBytes> DecryptContent(const SecretBytes& file_key) const;

  Header header_;
  P256Point agent_key_;
  bool agent_trusted_ = false;
  Bytes32 hash_{};
  std::string aad_;  // base64url of H, as received
  Bytes16 iv_{};
  Bytes ciphertext_;
  Bytes32 tag_{};
};

// DeriveTpmAuth returns authVal = HKDF(S_password, "keyescrow1|tpmauth|" B, 32).
Result<SecretBytes> DeriveTpmAuth(const SecretBytes& password_secret, std::string_view binding);

// EnrolledPath: a path's factors with their secrets, in the header's order; or a recovery key
// alone, whose record has them.
struct EnrolledPath {
  std::string id;
  std::vector<FactorRecord> factors = {};
  std::vector<SecretBytes> secrets = {};
  std::optional<RecoveryKey> recovery_key = {};
};

// EnvelopeDraft: what the caller decides of the header; Seal fills in agent and paths.
struct EnvelopeDraft {
  std::string envelope_id;  // base64url of 16 fresh random bytes: NewEnvelopeId
  std::string policy;
  std::string key_name;
  std::uint32_t key_version = 1;
  std::uint32_t revision = 1;
  std::string previous;
  std::string host;
  std::string created;
  std::string updated;
  std::optional<std::string> note;
};

struct SealedBytes {
  std::string file;  // with the trailing LF
  Bytes32 hash{};
  ParsedHeader parsed;  // for whoever reads the file again
};

// NewEnvelopeId returns 16 fresh random bytes in base64url.
Result<std::string> NewEnvelopeId(RandomSource& random);

// Seal makes an envelope with a fresh file key and has `signer` sign it.
// Errors: Failure::kFormat or kLimit when the draft does not make a valid envelope; the signer's.
Result<SealedBytes> Seal(const EnvelopeDraft& draft, const std::vector<EnrolledPath>& paths,
                         const SecretBytes& content, Signer& signer, RandomSource& random);

}  // namespace keyescrow::envelope
