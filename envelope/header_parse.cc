// Parsing of the header: every rule of shape and range, in the order of envelope/FORMAT.md.
#include <algorithm>
#include <set>

#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/header.h"
#include "envelope/header_parts.h"
#include "envelope/json_strict.h"

namespace keyescrow::envelope {
namespace {

constexpr std::int64_t kMaxVersion = (1LL << 31) - 1;
constexpr std::size_t kWrappedFileKeySizeBytes = 48;

// CheckEcdhEsHeader takes exactly alg, enc, apv and epk.
Status CheckEcdhEsHeader(std::string_view header, std::string_view expected_apv,
                         const std::string& what) {
  const auto bytes = DecodeBase64Url(header);
  if (!bytes) return FormatError(what + ": the header is not canonical base64url");
  ASSIGN_OR_RETURN(const JsonValue json, ParseStrictJson(AsText(*bytes)));
  ObjectReader reader(json, what);
  reader.Require(reader.String("alg") == "ECDH-ES", "alg is not ECDH-ES");
  reader.Require(reader.String("enc") == "A256CBC-HS512", "enc is not A256CBC-HS512");
  reader.Require(reader.String("apv") == expected_apv, "apv is not that of this key and path");
  ObjectReader epk(reader.Object("epk"), what + ": epk");
  if (!reader.failed()) {
    ReadPoint(epk, "epk");
    RETURN_IF_ERROR(epk.Finish());
  }
  return reader.Finish();
}

Result<PathRecord> ReadPath(const JsonValue& json, std::size_t number, const Header& header) {
  PathRecord path;
  const std::string what = "path " + std::to_string(number);
  ObjectReader reader(json, what);
  path.id = reader.String("id");
  reader.Require(IsName(path.id, 16), "id is not a path id");
  const std::vector<JsonValue>& factors = reader.Array("factors");
  const std::string_view wrapped_text = reader.String("wrapped_key");
  path.drill_key = ToBytes32(reader.Base64Url("drill_key", 32));
  const JsonValue* recovery_key =
      reader.Has("recovery_key") ? &reader.Object("recovery_key") : nullptr;
  RETURN_IF_ERROR(reader.Finish());

  ASSIGN_OR_RETURN(path.factors, ReadFactors(factors, what));
  if (recovery_key != nullptr) {
    ObjectReader key_reader(*recovery_key, what + ": recovery_key");
    ASSIGN_OR_RETURN(path.recovery_key, ReadRecoveryKeyRecord(key_reader, what + ": recovery_key"));
  }
  ASSIGN_OR_RETURN(path.wrapped_key,
                   ParseCompactJwe(wrapped_text, path.wrapped_key_header, kWrappedFileKeySizeBytes,
                                   what + ": wrapped_key"));
  if (!path.recovery_key) {
    if (path.wrapped_key_header != kProtected) {
      return FormatError(what + ": wrapped_key has another header");
    }
    return path;
  }
  const std::string label = "keyescrow1|fk|" + PathBinding(header.key_name, header.key_version,
                                                           header.envelope_id, path.id);
  RETURN_IF_ERROR(CheckEcdhEsHeader(path.wrapped_key_header, EncodeBase64Url(AsBytes(label)),
                                    what + ": wrapped_key"));
  return path;
}

}  // namespace

Result<Header> ParseHeader(std::string_view text) {
  if (text.size() > kMaxHeaderSizeBytes) return LimitError("the header is over 256 KiB");
  ASSIGN_OR_RETURN(const JsonValue json, ParseStrictJson(text));
  ObjectReader reader(json, "header");
  Header header;
  const std::string_view format = reader.String("format");
  if (format.starts_with("keyescrow/") && format != "keyescrow/1") {
    return Error(ErrorCode::kEnvelopeNewerFormat, Action::kFixInput,
                 "the envelope is of the format " + std::string(format) +
                     ", which this version does not read",
                 "install a newer keyescrow; this is version " KEYESCROW_VERSION)
        .WithFailure(Failure::kFormat);
  }
  reader.Require(format == "keyescrow/1", "format is not keyescrow/1");
  header.envelope_id = reader.String("envelope_id");
  reader.Base64Url("envelope_id", 16);
  header.policy = reader.String("policy");
  header.key_name = reader.String("key_name");
  header.key_version = static_cast<std::uint32_t>(reader.Integer("key_version", 1, kMaxVersion));
  header.revision = static_cast<std::uint32_t>(reader.Integer("revision", 1, kMaxVersion));
  header.previous = reader.String("previous");
  reader.Base64Url("previous", header.revision == 1 ? 0 : 32);
  header.host = reader.String("host");
  header.created = reader.String("created");
  header.updated = reader.String("updated");
  header.agent = reader.String("agent");
  if (reader.Has("note")) {
    header.note = reader.String("note");
    reader.Require(header.note->size() <= 1024, "note is over 1024 characters");
  }
  reader.Require(IsName(header.policy), "policy is not a name");
  reader.Require(IsKeyName(header.key_name), "key_name is not a key name");
  reader.Require(IsName(header.host), "host is not a name");
  reader.Require(ParseUtc(header.created).has_value(), "created is not a time");
  reader.Require(ParseUtc(header.updated).has_value(), "updated is not a time");
  reader.Base64Url("agent", 32);
  const std::vector<JsonValue>& paths = reader.Array("paths");
  if (!reader.failed() && paths.size() > kMaxPaths) {
    reader.Fail(LimitError("header: more than 16 paths"));
  }
  reader.Require(!paths.empty(), "has no paths");
  RETURN_IF_ERROR(reader.Finish());
  std::set<std::string> ids;
  for (std::size_t index = 0; index < paths.size(); ++index) {
    ASSIGN_OR_RETURN(PathRecord path, ReadPath(paths[index], index + 1, header));
    if (!ids.insert(path.id).second) return FormatError("two paths have the id " + path.id);
    header.paths.push_back(std::move(path));
  }
  return header;
}

}  // namespace keyescrow::envelope
