#include "agent/usecases/summary_paths.h"

#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "agent/usecases/agent.h"
#include "agent/usecases/pack_fields.h"

namespace keyescrow::agent {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxMembers = 16;

std::string OptionalText(PackFields& fields, const Json& object, const char* name) {
  return object.contains(name) ? fields.Text(name) : std::string();
}

Bytes KeyHash(PackFields& fields) {
  const Bytes32 hash = fields.Hash("key_sha256");
  return Bytes(hash.begin(), hash.end());
}

// KdfOf reads "argon2id t=4 m=262144 p=4" and "pbkdf2-sha512 iter=1000000". What sscanf made of a
// number that is none, or too large, is found by writing it again.
// NOLINTBEGIN(cert-err34-c)
std::optional<envelope::KdfParameters> KdfOf(const std::string& text) {
  envelope::Argon2idParameters argon2id;
  envelope::Pbkdf2Parameters pbkdf2;
  if (std::sscanf(text.c_str(), "argon2id t=%u m=%u p=%u", &argon2id.passes, &argon2id.memory_kib,
                  &argon2id.lanes) == 3 &&
      KdfCost(argon2id) == text) {
    return argon2id;
  }
  if (std::sscanf(text.c_str(), "pbkdf2-sha512 iter=%u", &pbkdf2.iterations) == 1 &&
      KdfCost(pbkdf2) == text) {
    return pbkdf2;
  }
  return std::nullopt;
}
// NOLINTEND(cert-err34-c)

// ThresholdOf reads "2of3"; 0 where it is none.
std::uint32_t ThresholdOf(std::string_view text, std::size_t num_members) {
  const std::string end = "of" + std::to_string(num_members);
  std::uint32_t threshold = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), threshold);
  const bool good = parsed.ec == std::errc() &&
                    text.substr(static_cast<std::size_t>(parsed.ptr - text.data())) == end;
  return good && threshold <= num_members ? threshold : 0;
}

envelope::TokenRecord TokenOf(PackFields& fields, const std::string& kind, std::string name) {
  if (kind == "pkcs11-rsa") {
    envelope::Pkcs11RsaRecord record;
    record.token = std::move(name);
    record.spki = KeyHash(fields);
    return record;
  }
  fields.Need(kind == "pkcs11-ecdh");
  envelope::Pkcs11EcdhRecord record;
  record.token = std::move(name);
  record.spki = KeyHash(fields);
  return record;
}

envelope::SharesRecord SharesOf(PackFields& fields) {
  envelope::SharesRecord shares;
  for (const Json& item : fields.List("members")) {
    PackFields member(item);
    envelope::ShareMember& row = shares.members.emplace_back();
    row.name = member.Text("name");
    // A token that is registered under the member's own name is not named twice.
    std::string token = OptionalText(member, item, "token");
    row.factor = TokenOf(member, member.Text("kind"), token.empty() ? row.name : std::move(token));
    fields.Need(member.good());
  }
  shares.threshold = ThresholdOf(fields.Text("id"), shares.members.size());
  fields.Need(shares.threshold > 0 && shares.members.size() <= kMaxMembers);
  return shares;
}

envelope::FactorRecord FactorOf(PackFields& fields) {
  const std::string kind = fields.Text("kind");
  if (kind == "password") {
    const auto kdf = KdfOf(fields.Text("kdf"));
    fields.Need(kdf.has_value());
    return envelope::PasswordRecord{kdf.value_or(envelope::KdfParameters()), ""};
  }
  if (kind == "shares") return SharesOf(fields);
  if (kind == "tpm2") {
    envelope::Tpm2Record record;
    record.host = fields.Text("id");
    record.parent_public = KeyHash(fields);
    return record;
  }
  return std::visit([](auto record) { return envelope::FactorRecord(std::move(record)); },
                    TokenOf(fields, kind, fields.Text("id")));
}

}  // namespace

Result<envelope::Header> SummaryHeader(std::string_view line) {
  const Json json = ParsePackJson(line);
  PackFields fields(json);
  PackFields key(fields.Of("key"));
  envelope::Header header;
  header.key_name = key.Text("name");
  header.key_version = key.NumberOf<std::uint32_t>("version");
  header.revision = fields.NumberOf<std::uint32_t>("revision");
  header.host = fields.Text("host");
  for (const Json& item : fields.List("paths")) {
    PackFields path(item);
    envelope::PathRecord& row = header.paths.emplace_back();
    row.id = path.Text("id");
    for (const Json& factor_item : path.List("factors")) {
      PackFields factor(factor_item);
      row.factors.push_back(FactorOf(factor));
      path.Need(factor.good());
    }
    if (item.is_object() && item.contains("recovery_key")) {
      row.recovery_key.emplace();
      row.recovery_key->name = path.Text("recovery_key");
    }
    fields.Need(path.good());
  }
  if (!fields.good() || !key.good()) return MisshapenPart("a line of summaries");
  return header;
}

}  // namespace keyescrow::agent
