// The protocol between the agent and the worker that holds a PKCS#11 module: one request, one
// reply, each one SOCK_SEQPACKET message. Integers are big-endian; a field is a 16-bit size and
// its bytes. Both sides check every size: a worker taken over by its module can only make the
// agent's call fail, or yield a wrong secret, which the envelope's tag refuses.
//
// Request: u8 TokenRequest, its fields, and, as the last field, a secret where it has one.
// Reply:   u8 TokenRequest (echoed), u8 TokenReply, then the fields of that status.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

#include "envelope/base/byte_reader.h"
#include "envelope/base/bytes.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::hsm {

enum class TokenRequest : std::uint8_t {
  kLoad = 1,             // module path, module arguments → nothing
  kListTokens = 2,       // → CK_INFO, tokens
  kReadToken = 3,        // slot → token
  kOpenSession = 4,      // slot, read-write → nothing; an earlier session is closed
  kListKeys = 5,         // public or private, first index → keys, more to come
  kLogin = 6,            // on the reader's pad, PIN → nothing
  kDecryptRsa = 7,       // key, hash, ciphertext, use PIN, PIN → raw, plaintext or block
  kDeriveEcdh = 8,       // key, point, shared info, use PIN, PIN → is S, S or Z
  kReadEvidence = 9,     // key → booleans
  kGenerate = 10,        // kind, id, label → nothing
  kLeave = 11,           // log out, close, exit; no reply
  kReadMechanisms = 12,  // slot → bits of TokenMechanism
  kSign = 13,            // key, digest, use PIN, PIN → R‖S
};

enum class TokenReply : std::uint8_t {
  kOk = 0,
  kModuleError = 1,    // u8 TokenCall, u64 CK_RV, text
  kModuleMissing = 2,  // text
  kModuleInvalid = 3,  // text
  kNoMemory = 4,       // the worker cannot lock memory
  kBadRequest = 5,     // the request does not parse, or comes out of turn
};

// TokenMechanism: what a token offers of what an envelope can ask for.
enum class TokenMechanism : std::uint8_t {
  kRsaOaep = 1,  // CKM_RSA_PKCS_OAEP, CKF_DECRYPT
  kRsaRaw = 2,   // CKM_RSA_X_509, CKF_DECRYPT
  kEcdh = 4,     // CKM_ECDH1_DERIVE, CKF_DERIVE
};

// Limits of one message and of its parts.
inline constexpr std::size_t kMaxRequestBytes = 8192;
inline constexpr std::size_t kMaxReplyBytes = 65536;
inline constexpr std::size_t kMaxSecretReplyBytes = 2048;
inline constexpr std::size_t kMaxPathBytes = 4095;
inline constexpr std::size_t kMaxArgumentsBytes = 1024;
inline constexpr std::size_t kMaxPinBytes = 255;
inline constexpr std::size_t kMaxTextBytes = 512;
inline constexpr std::size_t kMaxIdBytes = 256;
inline constexpr std::size_t kMaxNumberBytes = 1100;  // an RSA modulus of 8192 bits, and slack
inline constexpr std::size_t kDigestBytes = 32;
inline constexpr std::size_t kSignatureBytes = 64;
inline constexpr std::size_t kMaxTokens = 256;  // as many as slots: none is left out unseen
inline constexpr std::size_t kMaxKeysInReply = 16;
inline constexpr std::size_t kMaxKeys = 1024;

// MessageWriter appends fields; it never holds a secret.
class MessageWriter {
 public:
  void PutU8(std::uint8_t value) { bytes_.push_back(value); }
  void PutU16(std::uint16_t value);
  void PutU32(std::uint32_t value);
  void PutU64(std::uint64_t value);
  void PutField(ByteView bytes);  // at most 65535 bytes; more is cut off
  void PutField(std::string_view text) { PutField(AsBytes(text)); }
  const Bytes& bytes() const { return bytes_; }

 private:
  Bytes bytes_;
};

std::optional<std::uint64_t> TakeU64(ByteReader& reader);
// TakeField returns a field of at most `max_size_bytes`, or nothing.
std::optional<ByteView> TakeField(ByteReader& reader, std::size_t max_size_bytes);

// SendMessage sends `head` and, if `secret` is not null, the secret as a last field, as one
// message; the secret is gathered by the kernel and copied nowhere else. False on failure.
bool SendMessage(int socket_fd, ByteView head, const SecretBytes* secret = nullptr);

// AwaitMessage waits until a message, or the other side's end, can be received; false once
// `deadline` has passed. Where there is more than one processor it looks again and again for the
// first 10 ms: most answers come within that, and waking a processor that went to sleep costs a
// virtual machine up to a millisecond each time, there and back.
bool AwaitMessage(int socket_fd, std::chrono::milliseconds deadline);

// RemainingMs returns the time until `end` for poll(), rounded up; 0 once it has passed.
int RemainingMs(std::chrono::steady_clock::time_point end);

// PrivateBooleans: the attributes that kReadEvidence reports, in this order, as 0, 1 or 2 (absent).
inline constexpr std::size_t kNumEvidenceBooleans = 11;

}  // namespace keyescrow::hsm
