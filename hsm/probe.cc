#include "hsm/probe.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "envelope/base/p256.h"
#include "hsm/token_client.h"
#include "hsm/token_location.h"
#include "hsm/token_login.h"
#include "hsm/uri.h"

namespace keyescrow::hsm {
namespace {

// OpenedToken: a worker with a session on the one token that a URI means.
struct OpenedToken {
  std::unique_ptr<TokenClient> client;
  std::optional<envelope::Pkcs11Uri> uri;
  TokenInfo token;
};

Result<std::optional<envelope::Pkcs11Uri>> ParseOptionalUri(const std::string& text) {
  std::optional<envelope::Pkcs11Uri> uri;
  if (!text.empty()) {
    ASSIGN_OR_RETURN(uri, ParseUri(text));
  }
  return uri;
}

Result<OpenedToken> OpenToken(const ProbeSpec& spec, bool read_write,
                              const TokenWorkerOptions& options) {
  OpenedToken opened;
  ASSIGN_OR_RETURN(opened.uri, ParseOptionalUri(spec.uri));
  ASSIGN_OR_RETURN(opened.client,
                   TokenClient::Start(spec.module_path, spec.module_arguments, options));
  ASSIGN_OR_RETURN(opened.token, FindToken(*opened.client, opened.uri));
  RETURN_IF_ERROR(opened.client->OpenSession(opened.token, read_write));
  return opened;
}

// UsablePublicKeys returns the RSA and P-256 keys that the open session shows, once each.
Result<std::vector<TokenKey>> UsablePublicKeys(TokenClient& client) {
  ASSIGN_OR_RETURN(const std::vector<KeyRow> rows, client.ListKeys(KeyClass::kPublic));
  std::vector<TokenKey> keys;
  for (const KeyRow& row : rows) {
    TokenKey key = PublicKeyOf(row);
    // The library's own parser has the last word on what may be registered.
    const bool usable = (key.kind == KeyKind::kRsa && RsaPublicKey::FromSpki(key.spki)) ||
                        (key.kind == KeyKind::kEcP256 && P256Point::FromSpki(key.spki));
    const bool repeated = std::any_of(keys.begin(), keys.end(), [&key](const TokenKey& other) {
      return other.spki == key.spki && other.id == key.id;
    });
    if (usable && !repeated) keys.push_back(std::move(key));
  }
  return keys;
}

std::optional<bool> Tristate(std::uint8_t value) {
  if (value > 1) return std::nullopt;
  return value == 1;
}

// EvidenceOf reads what the token says of the private half of `spki`; `where` has the public half
// where the token shows it. Needs a login.
Result<KeyEvidence> EvidenceOf(TokenClient& client, TokenLocation where, const Bytes& spki) {
  const TokenInfo& token = where.token;
  ASSIGN_OR_RETURN(const std::vector<KeyRow> rows, client.ListKeys(KeyClass::kPrivate));
  const auto row = FindPrivateKey(rows, spki, where.ids, DescribeToken(token));
  if (!row) {
    RETURN_IF_ERROR(CheckStillThere(client, token));
    return row.error();
  }
  ASSIGN_OR_RETURN(const Bytes values, client.ReadEvidence(row->handle));
  ASSIGN_OR_RETURN(const ModuleReport report, client.Report());
  KeyEvidence evidence;
  evidence.token = token;
  if (where.key) {
    evidence.key = *std::move(where.key);
  } else {
    evidence.key = PublicKeyOf(*row);
    evidence.key.spki = spki;
  }
  evidence.module_description = report.description;
  evidence.library_version = report.library_version;
  // In the order of token_protocol.h's kReadEvidence.
  std::optional<bool>* const fields[kNumEvidenceBooleans] = {&evidence.sensitive,
                                                             &evidence.extractable,
                                                             &evidence.always_sensitive,
                                                             &evidence.never_extractable,
                                                             &evidence.local,
                                                             &evidence.wrap_with_trusted,
                                                             &evidence.always_authenticate,
                                                             &evidence.decrypt,
                                                             &evidence.derive,
                                                             &evidence.sign,
                                                             &evidence.unwrap};
  for (std::size_t index = 0; index < kNumEvidenceBooleans; ++index) {
    *fields[index] = Tristate(values[index]);
  }
  return evidence;
}

// ReadNewKey looks at the pair that was just made, in the session that made it.
Result<KeyEvidence> ReadNewKey(const GenerateSpec& spec, const OpenedToken& opened) {
  ASSIGN_OR_RETURN(std::vector<TokenKey> keys, UsablePublicKeys(*opened.client));
  for (TokenKey& key : keys) {
    if (key.id != spec.id) continue;
    const Bytes spki = key.spki;
    return EvidenceOf(*opened.client, {opened.token, std::move(key), {spec.id}}, spki);
  }
  RETURN_IF_ERROR(CheckStillThere(*opened.client, opened.token));
  return Error(ErrorCode::kTokenVendor, Action::kCallOperator,
               fmt::format("token {} says that it made the key, but does not show its public half",
                           DescribeToken(opened.token)),
               "look at the token with the vendor's tool");
}

// MayHaveBeenDone: a worker that died or hung, or a token that went away or broke, may have carried
// the call out; any other answer of the module is believed.
bool MayHaveBeenDone(const Error& error) {
  switch (error.code()) {
    case ErrorCode::kModuleFailed:
    case ErrorCode::kTokenTimeout:
    case ErrorCode::kTokenDevice:
    case ErrorCode::kTokenRemoved: return true;
    default: return false;
  }
}

// LeftBehind tells that a key pair is on the token, or may be, and how to use it: nothing on a
// token is ever destroyed.
Error LeftBehind(Error error, const GenerateSpec& spec, const TokenInfo& token) {
  TokenKey key;
  key.id = spec.id;
  std::string hint = fmt::format(
      "{}; if the pair is there, keyescrow token add NAME '{}' --module {} registers it, and "
      "pkcs11-tool --delete-object removes it",
      error.hint(), TokenUri(token, key), spec.where.module_path);
  return std::move(error)
      .WithContext("the new key pair may be on the token, unregistered")
      .WithHint(std::move(hint));
}

}  // namespace

Result<ModuleReport> InspectModule(const ProbeSpec& spec, const TokenWorkerOptions& options) {
  ASSIGN_OR_RETURN(auto client,
                   TokenClient::Start(spec.module_path, spec.module_arguments, options));
  ASSIGN_OR_RETURN(ModuleReport report, client->Report());
  for (TokenInfo& token : report.tokens) {
    ASSIGN_OR_RETURN(token.mechanisms, client->ReadMechanisms(token.slot_id));
  }
  return report;
}

Result<std::vector<TokenInfo>> ListTokens(const std::string& module_path,
                                          const TokenWorkerOptions& options) {
  ASSIGN_OR_RETURN(auto client, TokenClient::Start(module_path, {}, options));
  ASSIGN_OR_RETURN(ModuleReport report, client->Report());
  return std::move(report.tokens);
}

Result<std::vector<FoundKey>> ReadPublicKeys(const ProbeSpec& spec, envelope::PinProvider* pins,
                                             const TokenWorkerOptions& options) {
  ASSIGN_OR_RETURN(const OpenedToken opened, OpenToken(spec, false, options));
  if (pins != nullptr) {
    RETURN_IF_ERROR(LogIn(*opened.client, opened.token, {"", spec.use_last_try}, *pins));
  }
  ASSIGN_OR_RETURN(std::vector<TokenKey> keys, UsablePublicKeys(*opened.client));
  std::vector<FoundKey> found;
  for (TokenKey& key : keys) {
    if (!opened.uri || UriMatchesKey(*opened.uri, key)) {
      found.push_back({opened.token, std::move(key)});
    }
  }
  if (found.empty()) RETURN_IF_ERROR(CheckStillThere(*opened.client, opened.token));
  return found;
}

Result<FoundKey> FindPublicKey(const ProbeSpec& spec, envelope::PinProvider* pins,
                               const TokenWorkerOptions& options) {
  ASSIGN_OR_RETURN(std::vector<FoundKey> keys, ReadPublicKeys(spec, pins, options));
  if (keys.empty()) {
    return Error(
        ErrorCode::kTokenKeyNotFound, Action::kFixInput,
        "no RSA or P-256 public key on the token matches the URI",
        "'keyescrow token keygen' makes one; 'pkcs11-tool --module SO --list-objects' lists "
        "those that are there");
  }
  if (keys.size() > 1) {
    std::string list;
    for (const FoundKey& found : keys) {
      list += fmt::format("{}id={}", list.empty() ? "" : ", ",
                          envelope::PercentEncodePkcs11(AsText(found.key.id)));
    }
    return Error(
        ErrorCode::kTokenKeyAmbiguous, Action::kFixInput,
        fmt::format("{} keys on token {} match the URI", keys.size(), DescribeToken(keys[0].token)),
        fmt::format("add one of these to the URI: {}", list));
  }
  return std::move(keys[0]);
}

Result<KeyEvidence> ReadKeyEvidence(const TokenSpec& spec, envelope::PinProvider& pins,
                                    const TokenWorkerOptions& options) {
  ASSIGN_OR_RETURN(const std::optional<envelope::Pkcs11Uri> uri, ParseOptionalUri(spec.uri));
  ASSIGN_OR_RETURN(const auto client,
                   TokenClient::Start(spec.module_path, spec.module_arguments, options));
  ASSIGN_OR_RETURN(TokenLocation location, LocateToken(*client, uri, spec.spki));
  RETURN_IF_ERROR(LogIn(*client, location.token, {spec.name, spec.use_last_try}, pins));
  if (!location.key) {
    ASSIGN_OR_RETURN(std::vector<TokenKey> keys, UsablePublicKeys(*client));
    for (TokenKey& key : keys) {
      if (key.spki != spec.spki) continue;
      location.ids.push_back(key.id);
      location.key = std::move(key);
    }
  }
  return EvidenceOf(*client, std::move(location), spec.spki);
}

Result<KeyEvidence> GenerateKeyPair(const GenerateSpec& spec, envelope::PinProvider& pins,
                                    const TokenWorkerOptions& options) {
  if (spec.id.empty() || spec.id.size() > 64 || spec.label.empty() || spec.label.size() > 128) {
    return Error(ErrorCode::kUsage, Action::kFixInput,
                 "a new key needs an id of 1–64 bytes and a label of 1–128",
                 "give both, e.g. id 01 and label escrow");
  }
  ASSIGN_OR_RETURN(const OpenedToken opened, OpenToken(spec.where, true, options));
  RETURN_IF_ERROR(LogIn(*opened.client, opened.token, {"", spec.where.use_last_try}, pins));
  for (const KeyClass key_class : {KeyClass::kPublic, KeyClass::kPrivate}) {
    ASSIGN_OR_RETURN(const std::vector<KeyRow> rows, opened.client->ListKeys(key_class));
    for (const KeyRow& row : rows) {
      const bool same_id = row.id == spec.id;
      if (!same_id && !(spec.own_label && AsText(row.label) == spec.label)) continue;
      return Error(ErrorCode::kAlreadyExists, Action::kFixInput,
                   same_id ? fmt::format("token {} has a key of id {} already",
                                         DescribeToken(opened.token), ToHex(spec.id))
                           : fmt::format("token {} has a key called \"{}\" already",
                                         DescribeToken(opened.token), spec.label),
                   "'keyescrow token add' registers the key that is there; for a new one choose "
                   "another id= and object= ('pkcs11-tool --module SO --list-objects' lists those "
                   "in use)");
    }
  }
  Status made =
      opened.client->GenerateKeyPair(static_cast<std::uint8_t>(spec.kind), spec.id, spec.label);
  if (!made && !MayHaveBeenDone(made.error())) return std::move(made).error();
  if (!made) return LeftBehind(std::move(made).error(), spec, opened.token);
  Result<KeyEvidence> evidence = ReadNewKey(spec, opened);
  if (!evidence) return LeftBehind(std::move(evidence).error(), spec, opened.token);
  return evidence;
}

}  // namespace keyescrow::hsm
