// Finding the token and the key: the public key decides, the URI's attributes are hints.
#pragma once

#include <chrono>
#include <optional>
#include <string_view>
#include <vector>

#include "envelope/base/result.h"
#include "envelope/pkcs11_uri.h"
#include "hsm/token_client.h"
#include "hsm/token_info.h"

namespace keyescrow::hsm {

// PublicKeyOf builds the public key that a row shows; kind kOther and no spki where it shows none
// that we use.
TokenKey PublicKeyOf(const KeyRow& row);

struct TokenLocation {
  TokenInfo token;
  std::optional<TokenKey> key;  // the wanted public key, where it is visible without a PIN
  std::vector<Bytes> ids;       // the CKA_ID of each public object that is this key
};

// IdsOf returns the CKA_ID of each row that shows the public key: a copy may have one of its own.
std::vector<Bytes> IdsOf(const std::vector<KeyRow>& rows, ByteView spki);

// The pauses before LocateToken and FindToken look again where the token is not there: 0.4 s in
// all. A reader whose service has just been started shows its card late; SoftHSM 2.6 hides a token
// for as long as another process writes its flags, which every login does. No PIN is sent before
// the token is found, so looking again costs no try.
inline constexpr std::chrono::milliseconds kPausesBetweenLooks[] = {
    std::chrono::milliseconds(60), std::chrono::milliseconds(120), std::chrono::milliseconds(240)};

// LocateToken finds the token that holds `spki`, and leaves a session open on it. Of the tokens
// that match `uri`, the one that shows the public key; else any other that shows it; else the only
// one that matches (some tokens hide public keys until login). No login is attempted.
// Errors: kTokenNotFound, kTokenAmbiguous, as TokenClient.
Result<TokenLocation> LocateToken(TokenClient& client,
                                  const std::optional<envelope::Pkcs11Uri>& uri, ByteView spki);

// FindToken finds the only token that matches `uri`. Errors: kTokenNotFound, kTokenAmbiguous, as
// TokenClient::Report.
Result<TokenInfo> FindToken(TokenClient& client, const std::optional<envelope::Pkcs11Uri>& uri);

// CheckStillThere tells a token that shows no key because it was pulled from one that has none.
// Errors: kTokenRemoved, and what the slot answers.
Status CheckStillThere(TokenClient& client, const TokenInfo& token);

// FindPrivateKey returns the private key of `spki` among `keys`, read after login: by its own
// modulus or point where it shows one, else by one of `ids`, the CKA_IDs of the public key.
// Errors: kTokenKeyNotFound, kTokenKeyAmbiguous.
Result<KeyRow> FindPrivateKey(const std::vector<KeyRow>& keys, ByteView spki,
                              const std::vector<Bytes>& ids, std::string_view token);

}  // namespace keyescrow::hsm
