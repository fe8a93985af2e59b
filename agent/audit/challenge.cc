#include "agent/audit/challenge.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"
#include "envelope/base/p256.h"
#include "envelope/base/rsa.h"
#include "envelope/json_strict.h"
#include "envelope/pkcs11_uri.h"

namespace keyescrow::agent::audit {
namespace {

using envelope::JsonValue;
using envelope::ObjectReader;

constexpr std::string_view kChallengeSchema = "keyescrow/challenge/1";
constexpr std::string_view kAnswersSchema = "keyescrow/challenge-answers/1";
constexpr std::string_view kAnswerLabel = "keyescrow1|challenge|";
constexpr std::int64_t kMaxVersion = (1LL << 31) - 1;
constexpr std::size_t kNonceSizeBytes = 32;
constexpr std::size_t kMaxOriginSize = 192;
constexpr std::size_t kMaxPathIdSize = 16;

Error Invalid(std::string what) {
  return Error(ErrorCode::kUsage, Action::kFixInput,
               "the file is not a challenge of an auditor: " + std::move(what),
               "give the file that 'keyescrow audit sample' wrote, unchanged");
}

Bytes32 ToBytes32(const Bytes& bytes) {
  Bytes32 fixed{};
  if (bytes.size() == fixed.size()) std::copy(bytes.begin(), bytes.end(), fixed.begin());
  return fixed;
}

// Printable ASCII that needs no escape.
bool IsPlain(std::string_view text, std::size_t max_size) {
  return text.size() <= max_size && std::all_of(text.begin(), text.end(), [](char c) {
           return c >= 0x20 && c <= 0x7E && c != '"' && c != '\\';
         });
}

bool IsDrawnPath(const DrawnPath& drawn) {
  return envelope::IsKeyName(drawn.key_name) && drawn.key_version <= kMaxVersion &&
         (drawn.path_id.empty() || envelope::IsName(drawn.path_id, kMaxPathIdSize));
}

DrawnPath ReadDrawn(ObjectReader& in) {
  DrawnPath drawn;
  drawn.key_name = in.String("key");
  if (in.Has("version")) {
    drawn.key_version = static_cast<std::uint32_t>(in.Integer("version", 1, kMaxVersion));
  }
  if (in.Has("path")) {
    drawn.path_id = in.String("path");
    in.Require(!drawn.path_id.empty(), "path is empty");
  }
  in.Require(IsDrawnPath(drawn), "names no key or path");
  return drawn;
}

envelope::Pkcs11RsaRecord ReadRsa(ObjectReader& in) {
  envelope::Pkcs11RsaRecord record;
  in.Require(in.String("alg") == "RSA-OAEP-256", "alg is unknown");
  record.spki = in.Base64Url("spki");
  record.wrapped = in.Base64Url("wrapped");
  const auto key = RsaPublicKey::FromSpki(record.spki);
  in.Require(key && record.wrapped.size() == key->modulus_size_bytes(),
             "spki or wrapped is not that of an RSA key");
  return record;
}

envelope::Pkcs11EcdhRecord ReadEcdh(ObjectReader& in) {
  envelope::Pkcs11EcdhRecord record;
  in.Require(in.String("crv") == "P-256", "crv is unknown");
  record.spki = in.Base64Url("spki", 91);
  record.epk = in.Base64Url("epk", 65);
  in.Require(P256Point::FromSpki(record.spki) && P256Point::FromUncompressed(record.epk),
             "spki or epk is not of P-256");
  return record;
}

envelope::TokenRecord ReadToken(ObjectReader& in) {
  const std::string_view type = in.String("type");
  const std::string token(in.String("token"));
  const std::string uri(in.String("uri"));
  in.Require(envelope::IsName(token), "token is not a name");
  in.Require(envelope::Pkcs11Uri::Parse(uri).has_value(), "uri is not a PKCS#11 URI as required");
  const auto complete = [&](auto record) -> envelope::TokenRecord {
    record.token = token;
    record.uri = uri;
    return record;
  };
  if (type == "pkcs11-rsa") return complete(ReadRsa(in));
  in.Require(type == "pkcs11-ecdh", "type is unknown");
  return complete(ReadEcdh(in));
}

// Read parses one object of an array with `read`.
template <typename Row, typename ReadRow>
Status ReadRows(ObjectReader& in, const char* name, std::size_t max_rows, ReadRow read,
                std::vector<Row>& rows) {
  if (!in.Has(name)) return Ok();
  const std::vector<JsonValue>& items = in.Array(name);
  in.Require(!items.empty() && items.size() <= max_rows,
             fmt::format("{} has too many rows or none", name));
  if (in.failed()) return in.Finish();
  for (std::size_t index = 0; index < items.size(); ++index) {
    ObjectReader row(items[index], fmt::format("{} {}", name, index + 1));
    Row read_row = read(row);
    RETURN_IF_ERROR(row.Finish());
    rows.push_back(std::move(read_row));
  }
  return Ok();
}

// WithoutLineFeed returns the one line of a file; nothing where it is too long.
std::optional<std::string_view> WithoutLineFeed(std::string_view file) {
  if (file.size() > kMaxChallengeBytes) return std::nullopt;
  if (file.ends_with('\n')) file.remove_suffix(1);
  return file;
}

Status ReadChallenge(std::string_view text, Challenge& challenge) {
  ASSIGN_OR_RETURN(const JsonValue json, envelope::ParseStrictJson(text));
  ObjectReader in(json, "challenge");
  in.Require(in.String("schema") == kChallengeSchema, "has another schema");
  challenge.nonce = ToBytes32(in.Base64Url("challenge", kNonceSizeBytes));
  const auto created = ParseUtc(in.String("created"));
  in.Require(created.has_value(), "created is not a time");
  challenge.created = created.value_or(0);
  if (in.Has("origin")) {
    challenge.origin = in.String("origin");
    in.Require(!challenge.origin.empty() && IsPlain(challenge.origin, kMaxOriginSize),
               "origin is not one");
  }
  RETURN_IF_ERROR(ReadRows(in, "drawn", kMaxDrawn, ReadDrawn, challenge.drawn));
  RETURN_IF_ERROR(ReadRows(in, "tokens", kMaxTokenNonces, ReadToken, challenge.tokens));
  return in.Finish();
}

struct TokenWriter {
  std::string operator()(const envelope::Pkcs11RsaRecord& record) const {
    return fmt::format(
        R"({{"type":"pkcs11-rsa","alg":"RSA-OAEP-256","token":"{}","spki":"{}","uri":"{}","wrapped":"{}"}})",
        record.token, EncodeBase64Url(record.spki), record.uri, EncodeBase64Url(record.wrapped));
  }
  std::string operator()(const envelope::Pkcs11EcdhRecord& record) const {
    return fmt::format(
        R"({{"type":"pkcs11-ecdh","crv":"P-256","token":"{}","spki":"{}","uri":"{}","epk":"{}"}})",
        record.token, EncodeBase64Url(record.spki), record.uri, EncodeBase64Url(record.epk));
  }
};

}  // namespace

Result<std::string> FormatChallenge(const Challenge& challenge) {
  fmt::memory_buffer out;
  const auto end = std::back_inserter(out);
  fmt::format_to(end, R"({{"schema":"{}","challenge":"{}","created":"{}")", kChallengeSchema,
                 EncodeBase64Url(challenge.nonce), FormatUtc(challenge.created));
  if (!challenge.origin.empty()) fmt::format_to(end, R"(,"origin":"{}")", challenge.origin);
  std::string_view separator = R"(,"drawn":[)";
  for (const DrawnPath& drawn : challenge.drawn) {
    if (!IsDrawnPath(drawn)) return Invalid("a drawn key or path is not named rightly");
    fmt::format_to(end, R"({}{{"key":"{}")", separator, drawn.key_name);
    if (drawn.key_version != 0) fmt::format_to(end, R"(,"version":{})", drawn.key_version);
    if (!drawn.path_id.empty()) fmt::format_to(end, R"(,"path":"{}")", drawn.path_id);
    fmt::format_to(end, "}}");
    separator = ",";
  }
  if (!challenge.drawn.empty()) fmt::format_to(end, "]");
  separator = R"(,"tokens":[)";
  for (const envelope::TokenRecord& token : challenge.tokens) {
    fmt::format_to(end, "{}{}", separator, std::visit(TokenWriter{}, token));
    separator = ",";
  }
  if (!challenge.tokens.empty()) fmt::format_to(end, "]");
  fmt::format_to(end, "}}\n");
  std::string file = fmt::to_string(out);
  // What cannot be read back is not given out.
  RETURN_IF_ERROR(ParseChallenge(file));
  return file;
}

Result<Challenge> ParseChallenge(std::string_view file) {
  const auto text = WithoutLineFeed(file);
  if (!text) return Invalid("it is larger than 3 MiB");
  Challenge challenge;
  if (Status read = ReadChallenge(*text, challenge); !read) return Invalid(read.error().message());
  return challenge;
}

Result<Bytes32> AnswerNonce(const SecretBytes& nonce) {
  ASSIGN_OR_RETURN(const SecretBytes digest, Sha256Secret({AsBytes(kAnswerLabel), nonce.Expose()}));
  return ToBytes32(ToBytes(digest.Expose()));
}

Result<WrappedNonce> WrapNonce(const envelope::TokenKey& target, RandomSource& random) {
  auto nonce = envelope::WrapToToken(target, random);
  if (!nonce) {
    if (nonce.error().code() != ErrorCode::kFactorBad) return std::move(nonce).error();
    return Invalid("the public key of the token " + target.token + " is no key");
  }
  WrappedNonce wrapped;
  wrapped.expected.key_sha256 = Sha256(target.spki);
  ASSIGN_OR_RETURN(wrapped.expected.answer, AnswerNonce(nonce->secret));
  wrapped.record = std::move(nonce->record);
  return wrapped;
}

std::string FormatTokenAnswers(const TokenAnswers& answers) {
  std::string rows;
  for (const TokenAnswer& row : answers.answers) {
    rows += fmt::format(R"({}{{"key_sha256":"{}","answer":"{}"}})", rows.empty() ? "" : ",",
                        EncodeBase64Url(row.key_sha256), EncodeBase64Url(row.answer));
  }
  return fmt::format(R"({{"schema":"{}","challenge":"{}","answers":[{}]}})", kAnswersSchema,
                     EncodeBase64Url(answers.nonce), rows) +
         "\n";
}

Result<TokenAnswers> ParseTokenAnswers(std::string_view file) {
  const auto text = WithoutLineFeed(file);
  if (!text) return Invalid("it is larger than 3 MiB");
  TokenAnswers answers;
  const auto read = [&]() -> Status {
    ASSIGN_OR_RETURN(const JsonValue json, envelope::ParseStrictJson(*text));
    ObjectReader in(json, "answers");
    in.Require(in.String("schema") == kAnswersSchema, "has another schema");
    answers.nonce = ToBytes32(in.Base64Url("challenge", kNonceSizeBytes));
    const std::vector<JsonValue>& rows = in.Array("answers");
    in.Require(rows.size() <= kMaxTokenNonces, "has too many rows");
    for (std::size_t index = 0; index < rows.size() && !in.failed(); ++index) {
      ObjectReader row(rows[index], fmt::format("answer {}", index + 1));
      answers.answers.push_back(
          {ToBytes32(row.Base64Url("key_sha256", 32)), ToBytes32(row.Base64Url("answer", 32))});
      RETURN_IF_ERROR(row.Finish());
      in.Require(std::ranges::count(answers.answers, answers.answers.back().key_sha256,
                                    &TokenAnswer::key_sha256) == 1,
                 "has two answers of one token key");
    }
    return in.Finish();
  };
  if (Status done = read(); !done) return Invalid(done.error().message());
  return answers;
}

std::vector<std::string> AnswerFaults(const TokenAnswers& expected, const TokenAnswers& given) {
  if (expected.nonce != given.nonce) return {"the answers were given to another challenge"};
  std::vector<std::string> faults;
  for (const TokenAnswer& row : expected.answers) {
    const auto found = std::ranges::find(given.answers, row.key_sha256, &TokenAnswer::key_sha256);
    const std::string key = "the token key " + EncodeBase64Url(row.key_sha256);
    if (found == given.answers.end()) {
      faults.push_back(key + " gave no answer");
    } else if (!EqualConstantTime(found->answer, row.answer)) {
      faults.push_back(key + " gave a wrong answer");
    }
  }
  return faults;
}

}  // namespace keyescrow::agent::audit
