// What headers and recovery keys' records are made of, as JSON: every rule of a factor's shape and
// range, in the order of envelope/FORMAT.md.
#include "envelope/header_parts.h"

#include <algorithm>
#include <set>
#include <utility>

#include "envelope/base/base64url.h"
#include "envelope/pkcs11_uri.h"

namespace keyescrow::envelope {
namespace {

bool IsSalt(std::string_view text) {
  return text.size() == 32 && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

Pkcs11RsaRecord ReadRsa(ObjectReader& reader) {
  Pkcs11RsaRecord record;
  const std::string_view algorithm = reader.String("alg");
  reader.Require(algorithm == "RSA-OAEP" || algorithm == "RSA-OAEP-256", "alg is unknown");
  record.hash = algorithm == "RSA-OAEP" ? OaepHash::kSha1 : OaepHash::kSha256;
  record.token = reader.String("token");
  record.spki = reader.Base64Url("spki");
  record.uri = reader.String("uri");
  record.wrapped = reader.Base64Url("wrapped");
  if (reader.failed()) return record;
  reader.Require(IsName(record.token), "token is not a name");
  reader.Require(Pkcs11Uri::Parse(record.uri).has_value(), "uri is not a PKCS#11 URI as required");
  const auto key = RsaPublicKey::FromSpki(record.spki);
  reader.Require(key.has_value(), "spki is not an RSA key of 2048 to 8192 bits in canonical DER");
  reader.Require(key && record.wrapped.size() == key->modulus_size_bytes(),
                 "wrapped is not as long as the modulus");
  return record;
}

Pkcs11EcdhRecord ReadEcdh(ObjectReader& reader, bool in_shares) {
  Pkcs11EcdhRecord record;
  reader.Require(reader.String("crv") == "P-256", "crv is unknown");
  record.token = reader.String("token");
  record.spki = reader.Base64Url("spki", 91);
  record.uri = reader.String("uri");
  record.epk = reader.Base64Url("epk", 65);
  if (in_shares) record.mask = ToBytes32(reader.Base64Url("mask", 32));
  if (reader.failed()) return record;
  reader.Require(IsName(record.token), "token is not a name");
  reader.Require(Pkcs11Uri::Parse(record.uri).has_value(), "uri is not a PKCS#11 URI as required");
  reader.Require(P256Point::FromSpki(record.spki).has_value(), "spki is not a P-256 key");
  reader.Require(P256Point::FromUncompressed(record.epk).has_value(), "epk is not on the curve");
  return record;
}

Result<TokenRecord> ReadToken(const JsonValue& json, const std::string& what, bool in_shares) {
  ObjectReader reader(json, what);
  const std::string_view type = reader.String("type");
  TokenRecord record;
  if (type == "pkcs11-rsa") {
    record = ReadRsa(reader);
  } else if (type == "pkcs11-ecdh") {
    record = ReadEcdh(reader, in_shares);
  } else {
    reader.Require(false, "type is unknown here");
  }
  RETURN_IF_ERROR(reader.Finish());
  return record;
}

Result<SharesRecord> ReadShares(ObjectReader& reader, const std::string& what) {
  SharesRecord record;
  const std::vector<JsonValue>& members = reader.Array("members");
  if (!reader.failed() && (members.size() < 2 || members.size() > 16)) {
    reader.Fail(LimitError(what + ": members are not 2..16"));
  }
  record.threshold = static_cast<std::uint32_t>(
      reader.Integer("threshold", 2, std::max<std::int64_t>(2, std::ssize(members))));
  RETURN_IF_ERROR(reader.Finish());
  std::set<std::string> names;
  for (std::size_t position = 0; position < members.size(); ++position) {
    const std::string member_what = what + ": member " + std::to_string(position + 1);
    ObjectReader member_reader(members[position], member_what);
    ShareMember member;
    // The index is its position, so any other number is a fault of shape, not of range.
    member_reader.RequireInteger("index", static_cast<std::int64_t>(position) + 1,
                                 "index is not its position");
    member.index = static_cast<std::uint32_t>(position + 1);
    member.name = member_reader.String("name");
    member.commitment = ToBytes32(member_reader.Base64Url("commitment", 32));
    member_reader.Require(IsName(member.name), "name is not a name");
    member_reader.Require(names.insert(member.name).second, "name stands twice");
    const JsonValue& factor = member_reader.Object("factor");
    RETURN_IF_ERROR(member_reader.Finish());
    ASSIGN_OR_RETURN(member.factor, ReadToken(factor, member_what, true));
    record.members.push_back(std::move(member));
  }
  return record;
}

PasswordRecord ReadPassword(ObjectReader& reader) {
  PasswordRecord record;
  const std::string_view kdf = reader.String("kdf");
  record.salt = reader.String("salt");
  reader.Require(IsSalt(record.salt), "salt is not 32 lower-case hexadecimal digits");
  if (kdf == "argon2id") {
    Argon2idParameters parameters;
    parameters.passes = static_cast<std::uint32_t>(reader.Integer("t", 1, 32));
    parameters.memory_kib = static_cast<std::uint32_t>(reader.Integer("m", 19456, 4194304));
    parameters.lanes = static_cast<std::uint32_t>(reader.Integer("p", 1, 16));
    record.kdf = parameters;
  } else if (kdf == "pbkdf2-sha512") {
    record.kdf =
        Pbkdf2Parameters{static_cast<std::uint32_t>(reader.Integer("iter", 210000, 20000000))};
  } else {
    reader.Require(false, "kdf is unknown");
  }
  if (!reader.failed()) {
    if (Status in_range = CheckKdfParameters(record.kdf); !in_range) reader.Fail(in_range.error());
  }
  return record;
}

bool HasBytes(ByteView bytes, std::size_t offset, std::initializer_list<std::uint8_t> expected) {
  return bytes.size() >= offset + expected.size() &&
         std::equal(expected.begin(), expected.end(),
                    bytes.begin() + static_cast<std::ptrdiff_t>(offset));
}

bool IsStorageParent(ByteView area) {
  return area.size() == 92 &&
         HasBytes(area, 0,
                  {0x00, 0x5a, 0x00, 0x23, 0x00, 0x0b, 0x00, 0x03, 0x04, 0x72, 0x00, 0x00, 0x00,
                   0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x00, 0x03, 0x00, 0x10, 0x00, 0x20}) &&
         HasBytes(area, 58, {0x00, 0x20}) &&
         P256Point::FromXy(area.subspan(26, 32), area.subspan(60, 32)).has_value();
}

bool IsSeed(ByteView seed) {
  return seed.size() == 70 && HasBytes(seed, 0, {0x00, 0x44, 0x00, 0x20}) &&
         HasBytes(seed, 36, {0x00, 0x20}) &&
         P256Point::FromXy(seed.subspan(4, 32), seed.subspan(38, 32)).has_value();
}

Tpm2Record ReadTpm2(ObjectReader& reader, bool path_has_password) {
  Tpm2Record record;
  record.host = reader.String("host");
  record.parent_public = reader.Base64Url("parent_public", 92);
  record.pcrs = reader.String("pcrs");
  const Bytes pcr_digest = reader.Base64Url("pcr_digest");
  record.signer = reader.Base64Url("signer");
  record.auth = reader.Boolean("auth");
  record.seed = reader.Base64Url("seed");
  record.object_public = reader.Base64Url("public", 80);
  record.object_private = reader.Base64Url("private");
  if (reader.failed()) return record;
  reader.Require(IsName(record.host), "host is not a name");
  reader.Require(IsStorageParent(record.parent_public), "parent_public is not of the SRK template");
  std::vector<std::uint8_t> pcrs;
  if (!record.pcrs.empty()) {
    auto parsed = ParsePcrSelection(record.pcrs);
    reader.Require(parsed.has_value(), "pcrs is not a selection such as sha256:0,7");
    if (parsed) pcrs = std::move(*parsed);
  }
  reader.Require(record.signer.empty() || P256Point::FromSpki(record.signer).has_value(),
                 "signer is not a P-256 key");
  reader.Require(record.signer.empty() || !record.pcrs.empty(), "signer stands without pcrs");
  const bool needs_digest = !record.pcrs.empty() && record.signer.empty();
  reader.Require(pcr_digest.size() == (needs_digest ? 32U : 0U),
                 "pcr_digest stands exactly where pcrs does and signer does not");
  reader.Require(record.auth == path_has_password, "auth must be true exactly with a password");
  reader.Require(record.seed.empty() || IsSeed(record.seed), "seed is not an encrypted P-256 seed");
  const std::size_t private_size = record.object_private.size();
  reader.Require(private_size >= 3 && private_size <= 512 &&
                     static_cast<std::size_t>(record.object_private[0] << 8 |
                                              record.object_private[1]) == private_size - 2,
                 "private is not a TPM2B_PRIVATE");
  if (reader.failed()) return record;
  if (needs_digest) record.pcr_digest = ToBytes32(pcr_digest);
  const auto fixed_bits = static_cast<std::uint8_t>(record.seed.empty() ? 0x12 : 0x00);
  const auto no_da_bit = static_cast<std::uint8_t>(record.auth ? 0x00 : 0x04);
  const ByteView area = record.object_public;
  reader.Require(HasBytes(area, 0,
                          {0x00, 0x4e, 0x00, 0x08, 0x00, 0x0b, 0x00, 0x00, no_da_bit, fixed_bits,
                           0x00, 0x20}) &&
                     HasBytes(area, 44, {0x00, 0x10, 0x00, 0x20}),
                 "public is not a sealed object with the attributes it must have");
  const Bytes32 policy = Tpm2AuthPolicy(pcrs, record.pcr_digest, record.signer);
  reader.Require(std::equal(policy.begin(), policy.end(), area.begin() + 12),
                 "public does not carry the policy that the record describes");
  return record;
}

// FactorRank gives the order that factors stand in.
int FactorRank(std::string_view type) {
  if (type == "pkcs11-rsa" || type == "pkcs11-ecdh") return 0;
  if (type == "shares") return 1;
  if (type == "password") return 2;
  return 3;
}

std::string_view TypeOf(const JsonValue& json) {
  for (const auto& [name, value] : json.members) {
    if (name == "type" && value.type == JsonValue::Type::kString) return value.text;
  }
  return {};
}

Result<FactorRecord> ReadFactor(const JsonValue& json, const std::string& what,
                                bool path_has_password) {
  const std::string_view type = TypeOf(json);
  if (type == "pkcs11-rsa" || type == "pkcs11-ecdh") {
    ASSIGN_OR_RETURN(TokenRecord token, ReadToken(json, what, false));
    return std::visit(
        [](auto&& record) { return FactorRecord(std::forward<decltype(record)>(record)); },
        std::move(token));
  }
  ObjectReader reader(json, what);
  reader.String("type");
  FactorRecord record;
  if (type == "shares") {
    ASSIGN_OR_RETURN(SharesRecord shares, ReadShares(reader, what));
    return FactorRecord(std::move(shares));
  }
  if (type == "password") {
    record = ReadPassword(reader);
  } else if (type == "tpm2") {
    record = ReadTpm2(reader, path_has_password);
  } else {
    reader.Require(false, "type is unknown");
  }
  RETURN_IF_ERROR(reader.Finish());
  return record;
}

Status RequireDistinctKeys(const std::vector<FactorRecord>& factors, const std::string& what) {
  std::set<Bytes> keys;
  bool distinct = true;
  const auto add = [&](const Bytes& spki) { distinct = keys.insert(spki).second && distinct; };
  for (const FactorRecord& factor : factors) {
    if (const auto* rsa = std::get_if<Pkcs11RsaRecord>(&factor)) add(rsa->spki);
    if (const auto* ecdh = std::get_if<Pkcs11EcdhRecord>(&factor)) add(ecdh->spki);
    if (const auto* shares = std::get_if<SharesRecord>(&factor)) {
      for (const ShareMember& member : shares->members) {
        std::visit([&](const auto& record) { add(record.spki); }, member.factor);
      }
    }
  }
  if (!distinct) return FormatError(what + ": one public key stands twice");
  return Ok();
}

}  // namespace

Bytes32 ToBytes32(const Bytes& bytes) {
  Bytes32 fixed{};
  if (bytes.size() == fixed.size()) std::copy(bytes.begin(), bytes.end(), fixed.begin());
  return fixed;
}

Result<CompactJwe> ParseCompactJwe(std::string_view text, std::string& header,
                                   std::size_t ciphertext_size, const std::string& what) {
  std::vector<std::string_view> parts;
  for (std::size_t start = 0;;) {
    const std::size_t dot = text.find('.', start);
    parts.push_back(text.substr(start, dot == std::string_view::npos ? dot : dot - start));
    if (dot == std::string_view::npos || parts.size() > 5) break;
    start = dot + 1;
  }
  if (parts.size() != 5 || !parts[1].empty()) {
    return FormatError(what + " is not a compact JWE with an empty encrypted key");
  }
  header = parts[0];
  const auto iv = DecodeBase64Url(parts[2]);
  auto ciphertext = DecodeBase64Url(parts[3]);
  const auto tag = DecodeBase64Url(parts[4]);
  if (!iv || iv->size() != 16 || !tag || tag->size() != 32 || !ciphertext || ciphertext->empty() ||
      ciphertext->size() % 16 != 0 ||
      (ciphertext_size != 0 && ciphertext->size() != ciphertext_size)) {
    return FormatError(what + " has parts of a wrong size");
  }
  CompactJwe jwe;
  std::copy(iv->begin(), iv->end(), jwe.iv.begin());
  jwe.ciphertext = std::move(*ciphertext);
  std::copy(tag->begin(), tag->end(), jwe.tag.begin());
  return jwe;
}

std::optional<P256Point> ReadPoint(ObjectReader& reader, const std::string& what) {
  const std::string_view curve = reader.String("crv");
  const std::string_view key_type = reader.String("kty");
  const Bytes x = reader.Base64Url("x", 32);
  const Bytes y = reader.Base64Url("y", 32);
  reader.Require(curve == "P-256" && key_type == "EC", "is not a P-256 key");
  auto point = reader.failed() ? std::nullopt : P256Point::FromXy(x, y);
  reader.Require(point.has_value(), what + " is not on the curve");
  return point;
}

Result<std::vector<FactorRecord>> ReadFactors(const std::vector<JsonValue>& values,
                                              const std::string& what) {
  if (values.empty() || values.size() > kMaxFactors) {
    return FormatError(what + ": factors are not 1 to 4");
  }
  std::vector<FactorRecord> factors;
  bool path_has_password = false;
  for (const JsonValue& value : values) path_has_password |= TypeOf(value) == "password";
  int last_rank = 0;
  for (std::size_t index = 0; index < values.size(); ++index) {
    ASSIGN_OR_RETURN(FactorRecord factor,
                     ReadFactor(values[index], what + ", factor " + std::to_string(index + 1),
                                path_has_password));
    const int rank = FactorRank(FactorType(factor));
    if (index > 0 && (rank < last_rank || (rank > 0 && rank == last_rank))) {
      return FormatError(what + ": the factors are not in their order, or one stands twice");
    }
    last_rank = rank;
    factors.push_back(std::move(factor));
  }
  RETURN_IF_ERROR(RequireDistinctKeys(factors, what));
  return factors;
}

Result<RecoveryKeyRecord> ReadRecoveryKeyRecord(ObjectReader& reader, const std::string& what) {
  RecoveryKeyRecord record;
  record.name = reader.String("name");
  reader.Require(IsName(record.name), "name is not a name");
  const std::string_view private_text = reader.String("private");
  ObjectReader public_reader(reader.Object("public"), what + ": public");
  RETURN_IF_ERROR(reader.Finish());
  record.public_key = ReadPoint(public_reader, "public");
  RETURN_IF_ERROR(public_reader.Finish());
  std::string private_header;
  ASSIGN_OR_RETURN(record.private_key,
                   ParseCompactJwe(private_text, private_header, 0, what + ": private"));
  if (private_header != kProtected) return FormatError(what + ": private has another header");
  return record;
}

Status CheckKdfParameters(const KdfParameters& parameters) {
  if (const auto* argon2 = std::get_if<Argon2idParameters>(&parameters)) {
    const std::uint64_t product = std::uint64_t{argon2->passes} * argon2->memory_kib;
    if (argon2->memory_kib < 19456 || argon2->memory_kib > 4194304 || argon2->passes < 1 ||
        argon2->passes > 32 || argon2->lanes < 1 || argon2->lanes > 16 || product > 33554432 ||
        (argon2->passes == 1 && argon2->memory_kib < 47104)) {
      return LimitError("the Argon2id parameters are outside the format's range");
    }
    return Ok();
  }
  const std::uint32_t iterations = std::get<Pbkdf2Parameters>(parameters).iterations;
  if (iterations < 210000 || iterations > 20000000) {
    return LimitError("the PBKDF2 iterations are outside 210000..20000000");
  }
  return Ok();
}

}  // namespace keyescrow::envelope
