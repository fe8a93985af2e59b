// Header: the clear part of an envelope (H in envelope/FORMAT.md): which key, which paths, which
// factors. Every rule of shape and every range is checked when it is parsed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/p256.h"
#include "envelope/base/result.h"
#include "envelope/factor.h"

namespace keyescrow::envelope {

inline constexpr std::size_t kMaxFileSizeBytes = 3U << 20;
inline constexpr std::size_t kMaxPayloadSizeBytes = 2U << 20;  // L1
inline constexpr std::size_t kMaxHeaderSizeBytes = 256U << 10;
inline constexpr std::size_t kMaxContentSizeBytes = 1U << 20;
inline constexpr std::size_t kMaxPaths = 16;
inline constexpr std::size_t kMaxFactors = 4;

// {"alg":"dir","enc":"A256CBC-HS512"} in base64url; compared as a string.
inline constexpr std::string_view kProtected = "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2Q0JDLUhTNTEyIn0";

struct Argon2idParameters {
  std::uint32_t passes = 4;           // t
  std::uint32_t memory_kib = 262144;  // m
  std::uint32_t lanes = 4;            // p
  bool operator==(const Argon2idParameters&) const = default;
};
struct Pbkdf2Parameters {
  std::uint32_t iterations = 1000000;
  bool operator==(const Pbkdf2Parameters&) const = default;
};
using KdfParameters = std::variant<Argon2idParameters, Pbkdf2Parameters>;

// The defaults of a path that a password alone opens; the members' are those beside hardware.
inline constexpr Argon2idParameters kPasswordOnlyArgon2id{4, 1048576, 4};
inline constexpr Pbkdf2Parameters kPasswordOnlyPbkdf2{2000000};

struct PasswordRecord {
  KdfParameters kdf;
  std::string salt;  // 32 lower-case hexadecimal digits; the salt's bytes are these characters
};

using TokenRecord = std::variant<Pkcs11RsaRecord, Pkcs11EcdhRecord>;

struct ShareMember {
  std::uint32_t index = 0;
  std::string name;
  Bytes32 commitment{};
  TokenRecord factor;
};
struct SharesRecord {
  std::uint32_t threshold = 0;
  std::vector<ShareMember> members;
};

using FactorRecord =
    std::variant<Pkcs11RsaRecord, Pkcs11EcdhRecord, SharesRecord, PasswordRecord, Tpm2Record>;

// FactorType returns the header's `type`: "pkcs11-rsa", "password" ….
std::string_view FactorType(const FactorRecord& factor);

// CompactJwe: the three parts of a compact JWE that are not fixed.
struct CompactJwe {
  Bytes16 iv{};
  Bytes ciphertext;
  Bytes32 tag{};
};

struct RecoveryKeyRecord {
  std::string name;
  std::optional<P256Point> public_key;  // always set once parsed
  CompactJwe private_key;
};

struct PathRecord {
  std::string id;
  std::vector<FactorRecord> factors;
  std::string wrapped_key_header;  // kProtected, or the ECDH-ES header's base64url
  CompactJwe wrapped_key;
  Bytes32 drill_key{};
  std::optional<RecoveryKeyRecord> recovery_key;
};

struct Header {
  std::string envelope_id;  // base64url of 16 bytes, as in the header
  std::string policy;
  std::string key_name;
  std::uint32_t key_version = 1;
  std::uint32_t revision = 1;
  std::string previous;  // "" or the base64url of the previous envelope hash
  std::string host;
  std::string created;
  std::string updated;
  std::string agent;  // thumbprint
  std::vector<PathRecord> paths;
  std::optional<std::string> note;

  // FindPath returns the path of that id, or null.
  const PathRecord* FindPath(std::string_view id) const;
};

// Names: N = [A-Za-z0-9._-]{1,64}; K = such segments joined by "/", at most 128 bytes, no segment
// "." or "..". A path id is a name of at most 16 characters.
bool IsName(std::string_view text, std::size_t max_size = 64);
bool IsKeyName(std::string_view text);
// IsNote: at most 1024 characters that need no escape: printable ASCII without `"` and `\`.
bool IsNote(std::string_view text);

// ParseHeader reads H, whose size and characters the caller need not have checked.
// Errors: Failure::kFormat, Failure::kLimit.
Result<Header> ParseHeader(std::string_view text);

// ParseKdfParameters' range check, for parameters that a person chose. Errors: Failure::kLimit.
Status CheckKdfParameters(const KdfParameters& parameters);

// WriteHeader returns H; parsing it gives the same header again.
std::string WriteHeader(const Header& header);

// WriteCompactJwe returns header..iv.ciphertext.tag.
std::string WriteCompactJwe(std::string_view protected_header, const CompactJwe& jwe);

// PathBinding returns B: the labels' part that ties secrets to one key, envelope and path.
std::string PathBinding(std::string_view key_name, std::uint32_t key_version,
                        std::string_view envelope_id, std::string_view path_id);
std::string PathBinding(const Header& header, const PathRecord& path);

// FactorTypes returns the types joined by "+", as the path's label has them.
std::string FactorTypes(const std::vector<FactorRecord>& factors);

// NamePatternMatches: `*` within a segment, `**` across segments (as in policies and trust).
bool NamePatternMatches(std::string_view pattern, std::string_view name);

}  // namespace keyescrow::envelope
