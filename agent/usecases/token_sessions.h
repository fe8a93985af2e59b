// TokenSessions: the tokens that a command has open. One login serves every envelope that needs the
// same key of a token; an authorisation that was refused once is not tried again.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/store/escrow_store.h"
#include "agent/usecases/devices.h"
#include "agent/usecases/secrets.h"
#include "envelope/header.h"

namespace keyescrow::agent {

// PinRefusals: what refused a PIN in this run.
struct PinRefusals {
  std::set<std::string> tokens;   // label and serial
  std::set<std::string> readers;  // modules whose reader's pad was used
};

struct TokenSessionOptions {
  Devices* devices = nullptr;
  envelope::PinProvider* pins = nullptr;
  store::EscrowStore* store = nullptr;  // registered tokens; null without state
  std::string module;                   // for tokens that are not registered
  bool use_last_try = false;
  PinRefusals refusals = {};  // from before: these are not tried
};

// TokenIdentity: what both kinds of token records share.
struct TokenIdentity {
  const std::string* token;
  const Bytes* spki;
  const std::string* uri;
};
std::optional<TokenIdentity> IdentityOf(const envelope::FactorRecord& factor);

class TokenSessions {
 public:
  explicit TokenSessions(TokenSessionOptions options);
  ~TokenSessions();
  TokenSessions(const TokenSessions&) = delete;
  TokenSessions& operator=(const TokenSessions&) = delete;

  // Start begins to load the token's module without waiting, once.
  // Errors: kTokenNotRegistered, Devices::StartToken's.
  Status Start(const envelope::FactorRecord& record);

  // Locate finds token and key, without a PIN where the token allows it. Errors: as TokenFactor's.
  Status Locate(const envelope::FactorRecord& record);

  // NameOf returns the token's registered name, or the record's where it is not registered.
  const std::string& NameOf(const envelope::FactorRecord& record);

  // Open returns S. It logs in at a token's first use; after an operation that failed for the
  // data's sake the next one gets a session of its own, with the PIN that was accepted. Errors: as
  // TokenFactor's; kFactorMissing where the token refused this run's PIN before.
  Result<SecretBytes> Open(const envelope::FactorRecord& record);

  // refusals returns what refused a PIN, here or before; Learn adds what others refused.
  const PinRefusals& refusals() const;
  void Learn(const PinRefusals& refusals);

  // Finish lets the tokens log out while the caller goes on. Nothing is opened after it.
  void Finish();

 private:
  class GuardedPins;
  struct Token {
    TokenSpec spec;
    Result<std::unique_ptr<envelope::TokenFactor>> factor;
    std::optional<Status> located;
    bool worked = false;   // an operation succeeded: the login was accepted
    bool spent = false;    // the session failed for the data's sake: begin another
    bool refused = false;  // the login was refused: nothing is tried again
  };
  Token& FindOrStart(const envelope::FactorRecord& record);
  Result<TokenSpec> SpecOf(const TokenIdentity& identity);
  Result<std::unique_ptr<envelope::TokenFactor>> StartFactor(const TokenSpec& spec);

  TokenSessionOptions options_;
  std::unique_ptr<GuardedPins> pins_;
  std::vector<std::unique_ptr<Token>> tokens_;
  std::optional<std::vector<store::TokenRecord>> registered_;
};

}  // namespace keyescrow::agent
