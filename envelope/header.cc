#include "envelope/header.h"

#include <fmt/format.h>

#include "envelope/base/base64url.h"
#include "envelope/header_parts.h"

namespace keyescrow::envelope {
namespace {

bool IsNameCharacter(char character) {
  return (character >= 'A' && character <= 'Z') || (character >= 'a' && character <= 'z') ||
         (character >= '0' && character <= '9') || character == '.' || character == '_' ||
         character == '-';
}

std::string WriteRsa(const Pkcs11RsaRecord& record) {
  return fmt::format(
      R"({{"type":"pkcs11-rsa","alg":"{}","token":"{}","spki":"{}","uri":"{}","wrapped":"{}"}})",
      record.hash == OaepHash::kSha1 ? "RSA-OAEP" : "RSA-OAEP-256", record.token,
      EncodeBase64Url(record.spki), record.uri, EncodeBase64Url(record.wrapped));
}

std::string WriteEcdh(const Pkcs11EcdhRecord& record) {
  return fmt::format(
      R"({{"type":"pkcs11-ecdh","crv":"P-256","token":"{}","spki":"{}","uri":"{}","epk":"{}"{}}})",
      record.token, EncodeBase64Url(record.spki), record.uri, EncodeBase64Url(record.epk),
      record.mask ? fmt::format(R"(,"mask":"{}")", EncodeBase64Url(*record.mask)) : std::string());
}

std::string WriteToken(const TokenRecord& record) {
  if (const auto* rsa = std::get_if<Pkcs11RsaRecord>(&record)) return WriteRsa(*rsa);
  return WriteEcdh(std::get<Pkcs11EcdhRecord>(record));
}

std::string WriteShares(const SharesRecord& record) {
  std::string members;
  for (const ShareMember& member : record.members) {
    if (!members.empty()) members += ',';
    members +=
        fmt::format(R"({{"index":{},"name":"{}","commitment":"{}","factor":{}}})", member.index,
                    member.name, EncodeBase64Url(member.commitment), WriteToken(member.factor));
  }
  return fmt::format(R"({{"type":"shares","threshold":{},"members":[{}]}})", record.threshold,
                     members);
}

std::string WritePassword(const PasswordRecord& record) {
  if (const auto* argon2 = std::get_if<Argon2idParameters>(&record.kdf)) {
    return fmt::format(R"({{"type":"password","kdf":"argon2id","salt":"{}","t":{},"m":{},"p":{}}})",
                       record.salt, argon2->passes, argon2->memory_kib, argon2->lanes);
  }
  return fmt::format(R"({{"type":"password","kdf":"pbkdf2-sha512","salt":"{}","iter":{}}})",
                     record.salt, std::get<Pbkdf2Parameters>(record.kdf).iterations);
}

std::string WriteTpm2(const Tpm2Record& record) {
  return fmt::format(
      R"({{"type":"tpm2","host":"{}","parent_public":"{}","pcrs":"{}","pcr_digest":"{}","signer":"{}","auth":{},"seed":"{}","public":"{}","private":"{}"}})",
      record.host, EncodeBase64Url(record.parent_public), record.pcrs,
      record.pcr_digest ? EncodeBase64Url(*record.pcr_digest) : std::string(),
      EncodeBase64Url(record.signer), record.auth, EncodeBase64Url(record.seed),
      EncodeBase64Url(record.object_public), EncodeBase64Url(record.object_private));
}

std::string WriteFactor(const FactorRecord& factor) {
  struct Writer {
    std::string operator()(const Pkcs11RsaRecord& record) const { return WriteRsa(record); }
    std::string operator()(const Pkcs11EcdhRecord& record) const { return WriteEcdh(record); }
    std::string operator()(const SharesRecord& record) const { return WriteShares(record); }
    std::string operator()(const PasswordRecord& record) const { return WritePassword(record); }
    std::string operator()(const Tpm2Record& record) const { return WriteTpm2(record); }
  };
  return std::visit(Writer{}, factor);
}

std::string WriteRecoveryKey(const RecoveryKeyRecord& record) {
  return fmt::format(R"(,"recovery_key":{{"name":"{}","public":{},"private":"{}"}})", record.name,
                     WriteJwk(*record.public_key), WriteCompactJwe(kProtected, record.private_key));
}

std::string WritePath(const PathRecord& path) {
  return fmt::format(R"({{"id":"{}","factors":{},"wrapped_key":"{}","drill_key":"{}"{}}})", path.id,
                     WriteFactors(path.factors),
                     WriteCompactJwe(path.wrapped_key_header, path.wrapped_key),
                     EncodeBase64Url(path.drill_key),
                     path.recovery_key ? WriteRecoveryKey(*path.recovery_key) : std::string());
}

}  // namespace

std::string WriteFactors(const std::vector<FactorRecord>& factors) {
  std::string text = "[";
  for (const FactorRecord& factor : factors) {
    if (text.size() > 1) text += ',';
    text += WriteFactor(factor);
  }
  return text + "]";
}

std::string WriteJwk(const P256Point& point) {
  return fmt::format(R"({{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}})",
                     EncodeBase64Url(point.x()), EncodeBase64Url(point.y()));
}

std::string_view FactorType(const FactorRecord& factor) {
  static constexpr std::string_view kTypes[] = {"pkcs11-rsa", "pkcs11-ecdh", "shares", "password",
                                                "tpm2"};
  return kTypes[factor.index()];
}

const PathRecord* Header::FindPath(std::string_view id) const {
  for (const PathRecord& path : paths) {
    if (path.id == id) return &path;
  }
  return nullptr;
}

bool IsName(std::string_view text, std::size_t max_size) {
  if (text.empty() || text.size() > max_size) return false;
  for (const char character : text) {
    if (!IsNameCharacter(character)) return false;
  }
  return true;
}

bool IsKeyName(std::string_view text) {
  if (text.size() > 128) return false;
  while (true) {
    const std::size_t slash = text.find('/');
    const std::string_view segment = text.substr(0, slash);
    if (!IsName(segment) || segment == "." || segment == "..") return false;
    if (slash == std::string_view::npos) return true;
    text.remove_prefix(slash + 1);
  }
}

bool IsNote(std::string_view text) {
  if (text.size() > 1024) return false;
  for (const char character : text) {
    if (character < 0x20 || character > 0x7e || character == '"' || character == '\\') return false;
  }
  return true;
}

std::string WriteCompactJwe(std::string_view protected_header, const CompactJwe& jwe) {
  return fmt::format("{}..{}.{}.{}", protected_header, EncodeBase64Url(jwe.iv),
                     EncodeBase64Url(jwe.ciphertext), EncodeBase64Url(jwe.tag));
}

std::string WriteHeader(const Header& header) {
  std::string paths;
  for (const PathRecord& path : header.paths) {
    if (!paths.empty()) paths += ',';
    paths += WritePath(path);
  }
  return fmt::format(
      R"({{"format":"keyescrow/1","envelope_id":"{}","policy":"{}","key_name":"{}","key_version":{},"revision":{},"previous":"{}","host":"{}","created":"{}","updated":"{}","agent":"{}","paths":[{}]{}}})",
      header.envelope_id, header.policy, header.key_name, header.key_version, header.revision,
      header.previous, header.host, header.created, header.updated, header.agent, paths,
      header.note ? fmt::format(R"(,"note":"{}")", *header.note) : std::string());
}

std::string PathBinding(std::string_view key_name, std::uint32_t key_version,
                        std::string_view envelope_id, std::string_view path_id) {
  return fmt::format("{}|{}|{}|{}", key_name, key_version, envelope_id, path_id);
}

std::string PathBinding(const Header& header, const PathRecord& path) {
  if (path.recovery_key) {
    return fmt::format("@{}|{}", path.recovery_key->name,
                       JwkThumbprint(*path.recovery_key->public_key));
  }
  return PathBinding(header.key_name, header.key_version, header.envelope_id, path.id);
}

std::string FactorTypes(const std::vector<FactorRecord>& factors) {
  std::string types;
  for (const FactorRecord& factor : factors) {
    if (!types.empty()) types += '+';
    types += FactorType(factor);
  }
  return types;
}

bool NamePatternMatches(std::string_view pattern, std::string_view name) {
  // reached[i]: the pattern so far matches the first i characters. A pass over the name for each
  // character of the pattern: no pattern costs more, as `*a*a*a…` does where one goes back.
  std::vector<bool> reached(name.size() + 1, false);
  reached[0] = true;
  for (std::size_t at = 0; at < pattern.size(); ++at) {
    if (pattern[at] != '*') {
      for (std::size_t i = name.size(); i > 0; --i) {
        reached[i] = reached[i - 1] && name[i - 1] == pattern[at];
      }
      reached[0] = false;
      continue;
    }
    const bool across = pattern.substr(at).starts_with("**");
    if (across) ++at;
    for (std::size_t i = 1; i <= name.size(); ++i) {
      if (reached[i - 1] && (across || name[i - 1] != '/')) reached[i] = true;
    }
  }
  return reached[name.size()];
}

}  // namespace keyescrow::envelope
