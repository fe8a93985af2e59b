#include "hsm/token_location.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "hsm/cryptoki.h"
#include "hsm/spki.h"
#include "hsm/uri.h"

namespace keyescrow::hsm {
namespace {

using envelope::Pkcs11Uri;

constexpr std::size_t kP256SpkiSize = 91;

std::string DescribeWanted(const std::optional<Pkcs11Uri>& uri) {
  std::string text;
  const auto append = [&text](std::string_view name, const std::optional<std::string>& value) {
    if (!value) return;
    TokenInfo printable;  // DescribeToken's rules for characters
    printable.label = *value;
    const std::string quoted = DescribeToken(printable);
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name,
                        quoted.substr(0, quoted.rfind(" (serial")));
  };
  if (uri) {
    append("label", uri->token);
    append("serial", uri->serial);
    append("manufacturer", uri->manufacturer);
    append("model", uri->model);
  }
  return text.empty() ? "any token with the registered key" : text;
}

std::string DescribePresent(const ModuleReport& report) {
  std::string text;
  for (const TokenInfo& token : report.tokens) {
    text += (text.empty() ? "present: " : ", ") + DescribeToken(token);
  }
  if (text.empty()) text = "no token is present";
  if (report.num_uninitialized > 0 && report.tokens.empty()) {
    text += fmt::format(" ({} not initialised; never initialise one to restore)",
                        report.num_uninitialized);
  }
  return text;
}

Error NotFound(const ModuleReport& report, const std::optional<Pkcs11Uri>& uri) {
  return Error(ErrorCode::kTokenNotFound, Action::kReconnect,
               fmt::format("the token is not present; wanted: {}; {}", DescribeWanted(uri),
                           DescribePresent(report)),
               "insert it; 'keyescrow doctor --module SO' lists what the module sees");
}

Error Ambiguous(const std::vector<const TokenInfo*>& tokens, std::string_view what) {
  std::string text;
  for (const TokenInfo* token : tokens) {
    text += (text.empty() ? "" : ", ") + DescribeToken(*token);
  }
  return Error(ErrorCode::kTokenAmbiguous, Action::kFixInput,
               fmt::format("{} tokens {}: {}; no PIN was sent", tokens.size(), what, text),
               "remove all but one, or name the token's serial= in its URI");
}

bool IsKey(const TokenKey& key, ByteView spki) {
  return std::equal(key.spki.begin(), key.spki.end(), spki.begin(), spki.end());
}

// FindOnToken opens a session on `token` and looks for the public key.
Result<TokenLocation> FindOnToken(TokenClient& client, const TokenInfo& token, ByteView spki) {
  RETURN_IF_ERROR(client.OpenSession(token));
  ASSIGN_OR_RETURN(const std::vector<KeyRow> keys, client.ListKeys(KeyClass::kPublic));
  TokenLocation location{token, std::nullopt, IdsOf(keys, spki)};
  for (const KeyRow& row : keys) {
    TokenKey key = PublicKeyOf(row);
    if (!location.key && IsKey(key, spki)) location.key = std::move(key);
  }
  return location;
}

}  // namespace

TokenKey PublicKeyOf(const KeyRow& row) {
  TokenKey key;
  key.label.assign(AsText(row.label));
  key.id = row.id;
  std::optional<Bytes> spki;
  if (row.key_type == CKK_RSA) {
    spki = RsaSpki(row.modulus, row.exponent);
    key.kind = KeyKind::kRsa;
    key.bits = ModulusBits(row.modulus);
  } else if (row.key_type == CKK_EC) {
    spki = EcP256Spki(row.ec_params, row.ec_point);
    key.kind = KeyKind::kEcP256;
    key.bits = 256;
  }
  if (spki) {
    key.spki = *std::move(spki);
  } else {
    key.kind = KeyKind::kOther;
    key.bits = 0;
  }
  return key;
}

std::vector<Bytes> IdsOf(const std::vector<KeyRow>& rows, ByteView spki) {
  std::vector<Bytes> ids;
  for (const KeyRow& row : rows) {
    if (IsKey(PublicKeyOf(row), spki)) ids.push_back(row.id);
  }
  return ids;
}

namespace {

Result<TokenLocation> LocateTokenNow(TokenClient& client, const std::optional<Pkcs11Uri>& uri,
                                     ByteView spki) {
  ASSIGN_OR_RETURN(const ModuleReport report, client.Report());
  std::vector<const TokenInfo*> candidates;
  std::vector<const TokenInfo*> others;
  for (const TokenInfo& token : report.tokens) {
    (!uri || UriMatchesToken(*uri, token) ? candidates : others).push_back(&token);
  }
  const TokenInfo* open_on = nullptr;
  for (const std::vector<const TokenInfo*>* group : {&candidates, &others}) {
    std::vector<const TokenInfo*> holders;
    std::optional<TokenLocation> location;
    for (const TokenInfo* token : *group) {
      auto found = FindOnToken(client, *token, spki);
      // A token that does not answer matters only where it is the one that is meant.
      if (!found) {
        const bool worker_is_gone = found.error().code() == ErrorCode::kTokenTimeout ||
                                    found.error().code() == ErrorCode::kModuleFailed;
        if (worker_is_gone || (group == &candidates && candidates.size() == 1)) {
          return std::move(found).error();
        }
        continue;
      }
      open_on = token;
      if (found->key) {
        holders.push_back(token);
        if (!location) location = *std::move(found);
      }
    }
    if (holders.size() > 1) return Ambiguous(holders, "hold the wanted key");
    if (holders.size() == 1) {
      if (open_on != holders[0]) RETURN_IF_ERROR(client.OpenSession(*holders[0]));
      return *std::move(location);
    }
  }
  if (candidates.empty()) return NotFound(report, uri);
  if (candidates.size() > 1) {
    return Ambiguous(candidates, "match and none shows the wanted key without its PIN");
  }
  if (open_on != candidates[0]) RETURN_IF_ERROR(client.OpenSession(*candidates[0]));
  return TokenLocation{*candidates[0], std::nullopt, {}};
}

Result<TokenInfo> FindTokenNow(TokenClient& client, const std::optional<Pkcs11Uri>& uri) {
  ASSIGN_OR_RETURN(const ModuleReport report, client.Report());
  std::vector<const TokenInfo*> candidates;
  for (const TokenInfo& token : report.tokens) {
    if (!uri || UriMatchesToken(*uri, token)) candidates.push_back(&token);
  }
  if (candidates.empty()) return NotFound(report, uri);
  if (candidates.size() > 1) return Ambiguous(candidates, "match");
  return *candidates[0];
}

// LookAgainFor calls `look` until it finds the token or the looks are used up.
template <typename Look>
auto LookAgainFor(TokenClient& client, const Look& look) -> decltype(look()) {
  for (const std::chrono::milliseconds pause : kPausesBetweenLooks) {
    auto found = look();
    if (found || found.error().code() != ErrorCode::kTokenNotFound) return found;
    std::this_thread::sleep_for(pause);
    RETURN_IF_ERROR(client.LookAgain());
  }
  return look();
}

}  // namespace

Result<TokenLocation> LocateToken(TokenClient& client, const std::optional<Pkcs11Uri>& uri,
                                  ByteView spki) {
  return LookAgainFor(client, [&] { return LocateTokenNow(client, uri, spki); });
}

Result<TokenInfo> FindToken(TokenClient& client, const std::optional<Pkcs11Uri>& uri) {
  return LookAgainFor(client, [&] { return FindTokenNow(client, uri); });
}

Status CheckStillThere(TokenClient& client, const TokenInfo& token) {
  ASSIGN_OR_RETURN(const TokenInfo now, client.ReadToken(token.slot_id));
  if (now.serial == token.serial && now.label == token.label) return Ok();
  return Error(ErrorCode::kTokenRemoved, Action::kReconnect,
               fmt::format("token {} was removed in the middle", DescribeToken(token)),
               "insert the token and start again");
}

Result<KeyRow> FindPrivateKey(const std::vector<KeyRow>& keys, ByteView spki,
                              const std::vector<Bytes>& ids, std::string_view token) {
  const std::uint64_t key_type = spki.size() == kP256SpkiSize ? CKK_EC : CKK_RSA;
  std::vector<const KeyRow*> by_id;
  for (const KeyRow& row : keys) {
    if (row.key_type != key_type) continue;
    const TokenKey shown = PublicKeyOf(row);
    if (IsKey(shown, spki)) return row;
    // A key that shows another public half is another key, whatever its id.
    if (shown.spki.empty() && row.modulus.empty() && std::ranges::count(ids, row.id) > 0) {
      by_id.push_back(&row);
    }
  }
  if (by_id.size() == 1) return *by_id[0];
  if (by_id.size() > 1) {
    return Error(ErrorCode::kTokenKeyAmbiguous, Action::kFixInput,
                 fmt::format("token {}: {} private keys have an id of the public key, {}", token,
                             by_id.size(), ToHex(by_id[0]->id)),
                 "give each key on the token an id of its own with the vendor's tool");
  }
  return Error(ErrorCode::kTokenKeyNotFound, Action::kWrongDevice,
               fmt::format("token {} holds no private key for the registered public key", token),
               "insert the token that was registered, or one that holds a copy of its key");
}

}  // namespace keyescrow::hsm
