#include "agent/usecases/token_sessions.h"

#include <algorithm>

#include "envelope/pin_outcome.h"

namespace keyescrow::agent {
namespace {

Error NotTriedAgain(const std::string& token) {
  return Error(ErrorCode::kFactorMissing, Action::kReauthenticate,
               "the PIN of the token " + token + " was not accepted before, and is not sent again",
               "run the command again with the right PIN: each wrong one uses a try")
      .WithFailure(Failure::kFactor);
}

bool RefusesLogin(ErrorCode code) {
  switch (code) {
    case ErrorCode::kWrongPin:
    case ErrorCode::kPinEmpty:
    case ErrorCode::kPinInvalid:
    case ErrorCode::kPinLocked:
    case ErrorCode::kPinExpired:
    case ErrorCode::kTokenCancelled: return true;
    default: return false;
  }
}

}  // namespace

std::optional<TokenIdentity> IdentityOf(const envelope::FactorRecord& factor) {
  if (const auto* rsa = std::get_if<envelope::Pkcs11RsaRecord>(&factor)) {
    return TokenIdentity{&rsa->token, &rsa->spki, &rsa->uri};
  }
  if (const auto* ecdh = std::get_if<envelope::Pkcs11EcdhRecord>(&factor)) {
    return TokenIdentity{&ecdh->token, &ecdh->spki, &ecdh->uri};
  }
  return std::nullopt;
}

// GuardedPins stands between the tokens and whoever knows their PINs: several keys can lie on one
// token, and a PIN that it did not accept for one of them is not sent for the next. A module that
// crashed, hung or failed in the middle of a login may have counted a try like one that refused.
class TokenSessions::GuardedPins final : public envelope::PinProvider, public envelope::PinOutcome {
 public:
  GuardedPins(envelope::PinProvider& inner, PinRefusals refusals)
      : refusals_(std::move(refusals)), inner_(inner) {}

  Result<SecretBytes> AskPin(const envelope::PinRequest& request) override {
    asked_ = request.token_label + "\n" + request.token_serial;
    if (refusals_.tokens.contains(asked_)) {
      return NotTriedAgain(request.token_name.empty() ? request.token_label : request.token_name);
    }
    ASSIGN_OR_RETURN(SecretBytes pin, inner_.AskPin(request));
    is_pending_ = true;
    return pin;
  }
  void OnReader(const envelope::PinRequest& request) override {
    is_pending_ = on_reader_ = true;
    inner_.OnReader(request);
  }
  void Accepted() override { is_pending_ = false; }

  // Begin and Settle enclose one use of a token of `module`; Settle takes its error.
  void Begin() {
    asked_.clear();
    is_pending_ = on_reader_ = false;
  }
  void Settle(const std::string& module, ErrorCode code) {
    if (!is_pending_ && !RefusesLogin(code)) return;
    if (!asked_.empty()) refusals_.tokens.insert(asked_);
    // Which token a reader's pad belongs to is not seen from here: none of this module is tried.
    if (on_reader_) refusals_.readers.insert(module);
  }
  bool ReaderRefused(const std::string& module) const { return refusals_.readers.contains(module); }
  PinRefusals refusals_;

 private:
  envelope::PinProvider& inner_;
  std::string asked_;
  bool on_reader_ = false;
  bool is_pending_ = false;  // a PIN is on its way, and not accepted so far
};

TokenSessions::TokenSessions(TokenSessionOptions options)
    : options_(std::move(options)),
      pins_(std::make_unique<GuardedPins>(*options_.pins, options_.refusals)) {}
TokenSessions::~TokenSessions() = default;

Result<TokenSpec> TokenSessions::SpecOf(const TokenIdentity& identity) {
  TokenSpec spec{*identity.token, options_.module, *identity.uri, *identity.spki,
                 options_.use_last_try};
  if (options_.store != nullptr) {
    // The token's registration names its module; an envelope never does.
    if (!registered_) {
      ASSIGN_OR_RETURN(registered_, options_.store->Tokens());
    }
    for (const store::TokenRecord& record : *registered_) {
      if (record.spki != spec.spki) continue;
      spec.name = record.name;
      spec.uri = record.uri;
      if (spec.module.empty()) spec.module = record.module;
    }
  }
  const bool name_is_taken =
      registered_ && std::ranges::find(*registered_, *identity.token, &store::TokenRecord::name) !=
                         registered_->end();
  if (spec.module.empty() && name_is_taken) {
    return Error(ErrorCode::kTokenNotRegistered, Action::kFixInput,
                 "the key was escrowed to another token " + *identity.token +
                     " than the one that is registered here as " + *identity.token,
                 "register the right one under a name of its own with 'token add NAME URI --module "
                 "SO', or name its module with --module SO");
  }
  if (spec.module.empty()) {
    return Error(ErrorCode::kTokenNotRegistered, Action::kFixInput,
                 "the token " + *identity.token +
                     " is not registered here, so its module is not "
                     "known",
                 "name the module with --module SO, or register it with 'token add " +
                     *identity.token + " URI --module SO'");
  }
  return spec;
}

Result<std::unique_ptr<envelope::TokenFactor>> TokenSessions::StartFactor(const TokenSpec& spec) {
  if (pins_->ReaderRefused(spec.module)) return NotTriedAgain(spec.name);
  return options_.devices->StartToken(spec, *pins_);
}

TokenSessions::Token& TokenSessions::FindOrStart(const envelope::FactorRecord& record) {
  const TokenIdentity identity = *IdentityOf(record);
  for (const auto& token : tokens_) {
    if (token->spec.spki != *identity.spki) continue;
    if (token->spent) {
      token->factor = StartFactor(token->spec);
      token->located.reset();
      token->spent = false;
    }
    return *token;
  }
  auto spec = SpecOf(identity);
  auto started =
      spec ? StartFactor(*spec) : Result<std::unique_ptr<envelope::TokenFactor>>(spec.error());
  TokenSpec kept = spec ? *spec : TokenSpec{*identity.token, "", "", *identity.spki, false};
  tokens_.push_back(
      std::make_unique<Token>(Token{std::move(kept), std::move(started), std::nullopt}));
  return *tokens_.back();
}

Status TokenSessions::Start(const envelope::FactorRecord& record) {
  const Token& token = FindOrStart(record);
  if (!token.factor) return token.factor.error();
  return Ok();
}

Status TokenSessions::Locate(const envelope::FactorRecord& record) {
  Token& token = FindOrStart(record);
  if (!token.factor) return token.factor.error();
  pins_->Begin();
  if (!token.located) token.located = (*token.factor)->Locate();
  if (!*token.located) pins_->Settle(token.spec.module, token.located->error().code());
  return *token.located;
}

const std::string& TokenSessions::NameOf(const envelope::FactorRecord& record) {
  return FindOrStart(record).spec.name;
}

Result<SecretBytes> TokenSessions::Open(const envelope::FactorRecord& record) {
  Token& token = FindOrStart(record);
  if (!token.factor) return token.factor.error();
  if (token.refused) return NotTriedAgain(token.spec.name);
  pins_->Begin();
  const auto* rsa = std::get_if<envelope::Pkcs11RsaRecord>(&record);
  auto secret = rsa != nullptr
                    ? (*token.factor)->UnwrapRsa(*rsa)
                    : (*token.factor)->DeriveEcdh(std::get<envelope::Pkcs11EcdhRecord>(record));
  if (secret) {
    token.worked = true;
    return secret;
  }
  const ErrorCode code = secret.error().code();
  pins_->Settle(token.spec.module, code);
  token.refused = RefusesLogin(code);
  token.spent =
      code == ErrorCode::kTokenDataInvalid || (code == ErrorCode::kModuleFailed && token.worked);
  return secret;
}

const PinRefusals& TokenSessions::refusals() const { return pins_->refusals_; }

void TokenSessions::Learn(const PinRefusals& refusals) {
  pins_->refusals_.tokens.insert(refusals.tokens.begin(), refusals.tokens.end());
  pins_->refusals_.readers.insert(refusals.readers.begin(), refusals.readers.end());
}

void TokenSessions::Finish() {
  for (const auto& token : tokens_) {
    if (token->factor) (*token->factor)->Finish();
  }
}

}  // namespace keyescrow::agent
