#include "envelope/sealed_envelope.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "envelope/base/base64url.h"
#include "envelope/base/ed25519.h"
#include "envelope/base/hash.h"
#include "envelope/base/pause_point.h"
#include "envelope/json_strict.h"
#include "envelope/jwe.h"
#include "envelope/path_keys.h"
#include "envelope/sealing.h"

namespace keyescrow::envelope {
namespace {

Error SignatureError(ErrorCode code, std::string message, std::string hint) {
  return Error(code, Action::kFixInput, std::move(message), std::move(hint))
      .WithFailure(Failure::kSignature);
}

Error MacError() {
  return Error(ErrorCode::kEnvelopeMac, Action::kFixInput,
               "the content's tag does not verify: the header or the content was changed after it "
               "was sealed",
               "take another copy of the envelope")
      .WithFailure(Failure::kMac);
}

// JwsParts: the outer JSON; its texts are those of the file.
struct JwsParts {
  std::string_view payload;
  std::string_view protected_header;
  Bytes64 signature{};
};

Result<JwsParts> ReadJws(std::string_view text) {
  ASSIGN_OR_RETURN(const JsonValue json, ParseStrictJson(text));
  ObjectReader reader(json, "envelope");
  JwsParts parts;
  parts.payload = reader.String("payload");
  parts.protected_header = reader.String("protected");
  const Bytes signature = reader.Base64Url("signature", 64);
  RETURN_IF_ERROR(reader.Finish());
  std::copy(signature.begin(), signature.end(), parts.signature.begin());
  return parts;
}

struct AgentKey {
  P256Point point;
  std::string thumbprint;
};

Result<AgentKey> ParseProtected(std::string_view protected_text) {
  const auto bytes = DecodeBase64Url(protected_text);
  if (!bytes) return FormatError("envelope: \"protected\" is not canonical base64url");
  ASSIGN_OR_RETURN(const JsonValue json, ParseStrictJson(AsText(*bytes)));
  ObjectReader reader(json, "protected header");
  reader.Require(reader.String("alg") == "ES256", "alg is not ES256");
  reader.Require(reader.String("typ") == "keyescrow+jws", "typ is not keyescrow+jws");
  const std::string_view thumbprint = reader.String("kid");
  ObjectReader jwk(reader.Object("jwk"), "protected header: jwk");
  RETURN_IF_ERROR(reader.Finish());
  const std::string_view curve = jwk.String("crv");
  const std::string_view key_type = jwk.String("kty");
  const Bytes x = jwk.Base64Url("x", 32);
  const Bytes y = jwk.Base64Url("y", 32);
  jwk.Require(curve == "P-256" && key_type == "EC", "is not a P-256 key");
  RETURN_IF_ERROR(jwk.Finish());
  const auto point = P256Point::FromXy(x, y);
  if (!point) return FormatError("protected header: jwk is not on the curve");
  if (JwkThumbprint(*point) != thumbprint) {
    return FormatError("protected header: kid is not the thumbprint of jwk");
  }
  return AgentKey{*point, std::string(thumbprint)};
}

// ReadProtected is ParseProtected for whoever reads one agent's envelopes, one after the other: the
// text is the same in each.
Result<AgentKey> ReadProtected(std::string_view protected_text) {
  thread_local std::optional<std::pair<std::string, AgentKey>> last;
  if (last && last->first == protected_text) return last->second;
  ASSIGN_OR_RETURN(AgentKey key, ParseProtected(protected_text));
  last.emplace(protected_text, key);
  return key;
}

const TrustedAgent* FindTrusted(const ReadOptions& options, std::string_view thumbprint) {
  for (const TrustedAgent& agent : options.trusted) {
    if (agent.thumbprint == thumbprint) return &agent;
  }
  return nullptr;
}

bool MatchesAny(const std::vector<std::string>& patterns, std::string_view name) {
  return patterns.empty() ||
         std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return NamePatternMatches(pattern, name); });
}

Result<SecretBytes> DeriveContentKey(const SecretBytes& file_key, std::string_view key_name,
                                     std::uint32_t key_version, std::string_view envelope_id) {
  return HkdfSha512(file_key,
                    "keyescrow1|content|" + std::string(key_name) + "|" +
                        std::to_string(key_version) + "|" + std::string(envelope_id),
                    64);
}

Status WrapToFactors(const EnrolledPath& enrolled, const Header& header,
                     const SecretBytes& file_key, RandomSource& random, PathRecord& path) {
  path.factors = enrolled.factors;
  std::vector<const SecretBytes*> secrets;
  for (const SecretBytes& secret : enrolled.secrets) secrets.push_back(&secret);
  ASSIGN_OR_RETURN(const PathKeys keys,
                   DerivePathKeys(secrets, PathBinding(header, path), path.factors, path.id));
  path.wrapped_key_header = kProtected;
  ASSIGN_OR_RETURN(path.wrapped_key, EncryptJwe(keys.wrapping_key, kProtected, file_key, random));
  ASSIGN_OR_RETURN(path.drill_key, Ed25519PublicKey(keys.drill_seed));
  return Ok();
}

// WrapToRecoveryKey needs the public half alone; all else is the record as it was registered. It
// looks again at what it made: ECDH gives both sides one secret, so what opens by the writer's, the
// private half opens.
Status WrapToRecoveryKey(const RecoveryKey& key, const Header& header, const SecretBytes& file_key,
                         RandomSource& random, PathRecord& path) {
  path.factors = key.factors;
  path.drill_key = key.drill_key;
  path.recovery_key = key.record;
  ASSIGN_OR_RETURN(
      WrappedFileKey wrapped,
      WrapFileKey(key.Public(),
                  PathBinding(header.key_name, header.key_version, header.envelope_id, path.id),
                  file_key, random));
  const Error broken(ErrorCode::kInternal, Action::kReportBug,
                     "a key that was wrapped to a recovery key does not open again",
                     "keep the key where it is, and report this");
  ASSIGN_OR_RETURN(const SecretBytes again,
                   DecryptJwe(wrapped.key, wrapped.header, wrapped.jwe.iv, wrapped.jwe.ciphertext,
                              wrapped.jwe.tag, broken));
  if (!again.EqualsConstantTime(file_key)) return broken;
  path.wrapped_key_header = std::move(wrapped.header);
  path.wrapped_key = std::move(wrapped.jwe);
  return Ok();
}

}  // namespace

Result<SealedEnvelope> SealedEnvelope::Read(ByteView file, const ReadOptions& options,
                                            ParsedHeader* known) {
  if (file.size() > kMaxFileSizeBytes) return LimitError("the envelope is over 3 MiB");
  std::string_view text = AsText(file);
  if (text.ends_with('\n')) text.remove_suffix(1);
  auto read = ReadJws(text);
  if (!read && read.error().failure() == Failure::kFormat && !text.starts_with('{')) {
    return FormatError("this is no envelope: it does not begin with '{'");
  }
  ASSIGN_OR_RETURN(const JwsParts jws, std::move(read));
  ASSIGN_OR_RETURN(const AgentKey agent, ReadProtected(jws.protected_header));
  const auto payload = DecodeBase64Url(jws.payload);
  if (!payload) return FormatError("envelope: \"payload\" is not canonical base64url");

  const Bytes32 digest =
      Sha256({AsBytes(jws.protected_header), AsBytes("."), AsBytes(jws.payload)});
  if (!VerifyEs256(agent.point, digest, jws.signature)) {
    return SignatureError(ErrorCode::kEnvelopeSignature,
                          "the envelope's signature does not verify: it was edited or damaged",
                          "take another copy of the envelope");
  }
  const TrustedAgent* trusted = FindTrusted(options, agent.thumbprint);
  if (trusted == nullptr && !options.accept_unknown_agent) {
    return SignatureError(
        ErrorCode::kAgentNotTrusted,
        "the envelope was signed by the agent " + agent.thumbprint + ", which is not trusted here",
        "compare this thumbprint with the one on the recovery sheet or from 'agent-key show' on "
        "its host; if it is the same, pass --agent " +
            agent.thumbprint);
  }

  if (payload->size() > kMaxPayloadSizeBytes) return LimitError("the payload is over 2 MiB");
  ASSIGN_OR_RETURN(const JsonValue inner_json, ParseStrictJson(AsText(*payload)));
  ObjectReader inner(inner_json, "payload");
  inner.Require(inner.String("protected") == kProtected, "\"protected\" is not A256CBC-HS512");
  std::string aad(inner.String("aad"));
  const Bytes iv = inner.Base64Url("iv", 16);
  Bytes ciphertext = inner.Base64Url("ciphertext");
  const Bytes tag = inner.Base64Url("tag", 32);
  inner.Require(!ciphertext.empty() && ciphertext.size() % 16 == 0,
                "\"ciphertext\" is not whole blocks");
  if (ciphertext.size() > kMaxContentSizeBytes + 16) {
    inner.Fail(LimitError("the content is over 1 MiB"));
  }
  // Canonical base64url: the same text is the same header.
  const bool is_known = known != nullptr && !aad.empty() && known->aad == aad;
  const Bytes header_bytes = is_known ? Bytes() : inner.Base64Url("aad");
  RETURN_IF_ERROR(inner.Finish());

  Header header;
  if (is_known) {
    header = std::move(known->header);
    known->aad.clear();
  } else {
    ASSIGN_OR_RETURN(header, ParseHeader(AsText(header_bytes)));
  }
  if (header.agent != agent.thumbprint) {
    return FormatError("header: agent is not the key that signed");
  }
  const bool in_scope = trusted != nullptr && MatchesAny(trusted->host_patterns, header.host) &&
                        MatchesAny(trusted->key_patterns, header.key_name);
  if (trusted != nullptr && !in_scope && !options.accept_unknown_agent) {
    return SignatureError(ErrorCode::kAgentOutOfScope,
                          "the agent " + agent.thumbprint + " is trusted, but not for the key " +
                              header.key_name + " of the host " + header.host,
                          "check who made this envelope; 'trust list' shows what each agent may "
                          "sign for");
  }

  SealedEnvelope envelope(std::move(header), agent.point);
  envelope.agent_trusted_ = in_scope;
  envelope.hash_ = Sha256(AsBytes(jws.payload));
  envelope.aad_ = std::move(aad);
  std::copy(iv.begin(), iv.end(), envelope.iv_.begin());
  envelope.ciphertext_ = std::move(ciphertext);
  std::copy(tag.begin(), tag.end(), envelope.tag_.begin());
  return envelope;
}

Result<OpenedEnvelope> SealedEnvelope::Open(std::size_t path_index,
                                            std::span<const SecretBytes* const> factor_secrets,
                                            const RecoveryKey* registered) const {
  const PathRecord& path = header_.paths.at(path_index);
  if (path.recovery_key) {
    ASSIGN_OR_RETURN(
        const OpenedRecoveryKey key,
        OpenRecoveryKey(registered != nullptr ? *registered : AsRecoveryKey(path), factor_secrets));
    return OpenByRecoveryKey(path_index, key);
  }
  ASSIGN_OR_RETURN(PathKeys keys, DerivePathKeys(factor_secrets, PathBinding(header_, path),
                                                 path.factors, path.id));
  PausePoint("path-key-derived");
  // D tells whether the factors are right, the tag under PK as well.
  ASSIGN_OR_RETURN(const Bytes32 drill_key, Ed25519PublicKey(keys.drill_seed));
  const Error damaged = DamagedPathError(path.id);
  const Error refusal = drill_key == path.drill_key ? damaged : UnwrapError(path.factors, path.id);
  const CompactJwe& jwe = path.wrapped_key;
  if (!VerifyJweTag(keys.wrapping_key, kProtected, jwe.iv, jwe.ciphertext, jwe.tag)) return refusal;
  ASSIGN_OR_RETURN(SecretBytes file_key, DecryptJwe(keys.wrapping_key, kProtected, jwe.iv,
                                                    jwe.ciphertext, jwe.tag, damaged));
  PausePoint("file-key-open");
  if (file_key.size() != 32) return damaged;
  if (drill_key != path.drill_key) return damaged;
  ASSIGN_OR_RETURN(SecretBytes content, DecryptContent(file_key));
  return OpenedEnvelope(path.id, std::move(content), std::move(file_key),
                        std::move(keys.drill_seed));
}

Result<OpenedEnvelope> SealedEnvelope::OpenByRecoveryKey(std::size_t path_index,
                                                         const OpenedRecoveryKey& key) const {
  const PathRecord& path = header_.paths.at(path_index);
  const Error refusal = UnwrapError({}, path.id);
  if (!path.recovery_key || !(*path.recovery_key->public_key == key.pair().Public())) {
    return refusal;
  }
  ASSIGN_OR_RETURN(SecretBytes file_key,
                   UnwrapFileKey(key.pair(), path,
                                 PathBinding(header_.key_name, header_.key_version,
                                             header_.envelope_id, path.id),
                                 refusal));
  // A record whose password was changed since has another drill key than this copy.
  SecretBytes drill_seed;
  ASSIGN_OR_RETURN(const Bytes32 drill_key, Ed25519PublicKey(key.drill_seed()));
  if (drill_key == path.drill_key) {
    ASSIGN_OR_RETURN(drill_seed, SecretBytes::CopyOf(key.drill_seed().Expose()));
  }
  ASSIGN_OR_RETURN(SecretBytes content, DecryptContent(file_key));
  return OpenedEnvelope(path.id, std::move(content), std::move(file_key), std::move(drill_seed));
}

Result<SecretBytes> SealedEnvelope::DecryptContent(const SecretBytes& file_key) const {
  ASSIGN_OR_RETURN(
      const SecretBytes content_key,
      DeriveContentKey(file_key, header_.key_name, header_.key_version, header_.envelope_id));
  const std::string aad = std::string(kProtected) + "." + aad_;
  PausePoint("content-key-derived");
  ASSIGN_OR_RETURN(SecretBytes content,
                   DecryptJwe(content_key, aad, iv_, ciphertext_, tag_, MacError()));
  if (content.empty()) return FormatError("the content is empty");
  return content;
}

Result<SecretBytes> DeriveTpmAuth(const SecretBytes& password_secret, std::string_view binding) {
  return HkdfSha512(password_secret, "keyescrow1|tpmauth|" + std::string(binding), 32);
}

Result<std::string> NewEnvelopeId(RandomSource& random) {
  Bytes16 id;
  RETURN_IF_ERROR(random.Fill(id));
  return EncodeBase64Url(id);
}

Result<PathRecord> WrapPath(const Header& header, const EnrolledPath& enrolled,
                            const SecretBytes& file_key, RandomSource& random) {
  PathRecord path;
  path.id = enrolled.id;
  if (enrolled.recovery_key) {
    RETURN_IF_ERROR(WrapToRecoveryKey(*enrolled.recovery_key, header, file_key, random, path));
  } else {
    RETURN_IF_ERROR(WrapToFactors(enrolled, header, file_key, random, path));
  }
  return path;
}

Result<SealedBytes> Seal(const EnvelopeDraft& draft, const std::vector<EnrolledPath>& paths,
                         const SecretBytes& content, Signer& signer, RandomSource& random) {
  Header header;
  header.envelope_id = draft.envelope_id;
  header.policy = draft.policy;
  header.key_name = draft.key_name;
  header.key_version = draft.key_version;
  header.revision = draft.revision;
  header.previous = draft.previous;
  header.host = draft.host;
  header.created = draft.created;
  header.updated = draft.updated;
  header.agent = JwkThumbprint(signer.PublicKey());
  header.note = draft.note;

  ASSIGN_OR_RETURN(const SecretBytes file_key, RandomSecret(random, 32));
  for (const EnrolledPath& enrolled : paths) {
    ASSIGN_OR_RETURN(PathRecord path, WrapPath(header, enrolled, file_key, random));
    header.paths.push_back(std::move(path));
  }
  return SealHeader(header, file_key, content, signer, random);
}

Result<SealedBytes> SealHeader(const Header& header, const SecretBytes& file_key,
                               const SecretBytes& content, Signer& signer, RandomSource& random) {
  // What a reader takes may be edited too: its limit is that of the ciphertext, whole blocks.
  if (content.empty() || content.size() >= kMaxContentSizeBytes + 16) {
    return LimitError("a protected key has 1 byte to 1 MiB");
  }
  SealedBytes sealed;
  const std::string header_text = WriteHeader(header);
  // Never sign what no reader would take.
  ASSIGN_OR_RETURN(sealed.parsed.header, ParseHeader(header_text));
  sealed.parsed.aad = EncodeBase64Url(AsBytes(header_text));
  const std::string aad = fmt::format("{}.{}", kProtected, sealed.parsed.aad);
  ASSIGN_OR_RETURN(
      const SecretBytes content_key,
      DeriveContentKey(file_key, header.key_name, header.key_version, header.envelope_id));
  ASSIGN_OR_RETURN(const CompactJwe jwe, EncryptJwe(content_key, aad, content, random));
  // An edit's kept paths need not be at hand to show it: what was sealed opens.
  ASSIGN_OR_RETURN(const SecretBytes again,
                   DecryptJwe(content_key, aad, jwe.iv, jwe.ciphertext, jwe.tag, MacError()));
  if (!again.EqualsConstantTime(content)) return MacError();
  PausePoint("content-sealed");
  const std::string inner =
      fmt::format(R"({{"protected":"{}","aad":"{}","iv":"{}","ciphertext":"{}","tag":"{}"}})",
                  kProtected, sealed.parsed.aad, EncodeBase64Url(jwe.iv),
                  EncodeBase64Url(jwe.ciphertext), EncodeBase64Url(jwe.tag));
  const std::string payload = EncodeBase64Url(AsBytes(inner));
  const P256Point& key = signer.PublicKey();
  const std::string protected_json = R"({"alg":"ES256","jwk":{"crv":"P-256","kty":"EC","x":")" +
                                     EncodeBase64Url(key.x()) + R"(","y":")" +
                                     EncodeBase64Url(key.y()) + R"("},"kid":")" + header.agent +
                                     R"(","typ":"keyescrow+jws"})";
  const std::string protected_text = EncodeBase64Url(AsBytes(protected_json));
  ASSIGN_OR_RETURN(
      const Bytes64 signature,
      signer.SignDigest(Sha256({AsBytes(protected_text), AsBytes("."), AsBytes(payload)})));
  sealed.file = fmt::format("{{\"payload\":\"{}\",\"protected\":\"{}\",\"signature\":\"{}\"}}\n",
                            payload, protected_text, EncodeBase64Url(signature));
  sealed.hash = Sha256(AsBytes(payload));
  return sealed;
}

}  // namespace keyescrow::envelope
