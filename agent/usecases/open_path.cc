#include "agent/usecases/open_path.h"

#include <algorithm>

#include "envelope/base/hash.h"
#include "envelope/base/pause_point.h"
#include "envelope/kdf.h"
#include "envelope/password.h"

namespace keyescrow::agent {
namespace {

Error AsFactor(Error error) {
  if (error.failure() == Failure::kNone) error.SetFailure(Failure::kFactor);
  return error;
}

const envelope::PasswordRecord* FindPassword(const envelope::PathRecord& path) {
  for (const envelope::FactorRecord& factor : path.factors) {
    if (const auto* password = std::get_if<envelope::PasswordRecord>(&factor)) return password;
  }
  return nullptr;
}

// TokenIdentity: what both kinds of token records share.
struct TokenIdentity {
  const std::string* token;
  const Bytes* spki;
  const std::string* uri;
};

std::optional<TokenIdentity> IdentityOf(const envelope::FactorRecord& factor) {
  if (const auto* rsa = std::get_if<envelope::Pkcs11RsaRecord>(&factor)) {
    return TokenIdentity{&rsa->token, &rsa->spki, &rsa->uri};
  }
  if (const auto* ecdh = std::get_if<envelope::Pkcs11EcdhRecord>(&factor)) {
    return TokenIdentity{&ecdh->token, &ecdh->spki, &ecdh->uri};
  }
  return std::nullopt;
}

std::string StretchKey(const envelope::PasswordRecord& record) {
  return KdfCost(record.kdf) + "|" + record.salt;
}

}  // namespace

Result<const SecretBytes*> StretchedPasswords::Stretch(const SecretBytes& typed,
                                                       const envelope::PasswordRecord& record) {
  ASSIGN_OR_RETURN(SecretBytes password, envelope::NormalizePassword(typed));
  const std::string key = StretchKey(record);
  for (const Entry& entry : entries_) {
    if (entry.key == key && entry.password.EqualsConstantTime(password)) return &entry.stretched;
  }
  ASSIGN_OR_RETURN(SecretBytes stretched, envelope::StretchPassword(password, record));
  entries_.push_back({key, std::move(password), std::move(stretched)});
  return &entries_.back().stretched;
}

Status StretchedPasswords::Remember(const SecretBytes& nfc, const envelope::PasswordRecord& record,
                                    const SecretBytes& stretched) {
  ASSIGN_OR_RETURN(SecretBytes password, SecretBytes::CopyOf(nfc.Expose()));
  ASSIGN_OR_RETURN(SecretBytes secret, SecretBytes::CopyOf(stretched.Expose()));
  entries_.push_back({StretchKey(record), std::move(password), std::move(secret)});
  return Ok();
}

PathOpener::PathOpener(const envelope::SealedEnvelope& envelope, PathOpenOptions options,
                       StretchedPasswords& passwords)
    : envelope_(envelope), options_(std::move(options)), passwords_(passwords) {}

PathOpener::~PathOpener() = default;

PathOpener::Token& PathOpener::FindOrStartToken(const std::string& name, const Bytes& spki,
                                                const std::string& uri) {
  for (const auto& token : tokens_) {
    if (token->spki == spki) return *token;
  }
  TokenSpec spec{name, options_.module, uri, spki, options_.use_last_try};
  std::optional<Error> unknown;
  if (options_.store != nullptr) {
    // The token's registration names its module; an envelope never does.
    auto records = options_.store->Tokens();
    if (!records) unknown = records.error();
    for (std::size_t index = 0; records && index < records->size(); ++index) {
      const store::TokenRecord& record = (*records)[index];
      if (record.spki != spki) continue;
      spec.name = record.name;
      spec.uri = record.uri;
      if (spec.module.empty()) spec.module = record.module;
    }
  }
  if (!unknown && spec.module.empty()) {
    unknown = Error(ErrorCode::kTokenNotRegistered, Action::kFixInput,
                    "the token " + name + " is not registered here, so its module is not known",
                    "name the module with --module SO, or register it with 'token add " + name +
                        " URI --module SO'");
  }
  auto started = unknown ? Result<std::unique_ptr<envelope::TokenFactor>>(*unknown)
                         : options_.devices->StartToken(spec, options_.secrets->Pins());
  tokens_.push_back(std::make_unique<Token>(Token{spki, std::move(started), std::nullopt}));
  return *tokens_.back();
}

Status PathOpener::LocateToken(const envelope::FactorRecord& record) {
  const TokenIdentity identity = *IdentityOf(record);
  Token& token = FindOrStartToken(*identity.token, *identity.spki, *identity.uri);
  if (!token.factor) return AsFactor(token.factor.error());
  if (!token.located) token.located = (*token.factor)->Locate();
  if (!*token.located) return AsFactor(token.located->error());
  return Ok();
}

Status PathOpener::TpmPresent(const envelope::Tpm2Record& record) {
  auto tpm = options_.devices->Tpm();
  if (!tpm) return AsFactor(tpm.error());
  auto parent = (*tpm)->StorageParent();
  if (!parent) return AsFactor(parent.error());
  if (*parent != record.parent_public) {
    return AsFactor(Error(ErrorCode::kTpmWrongDevice, Action::kWrongDevice,
                          "the path was sealed to another TPM, that of the host " + record.host +
                              ", or this TPM was cleared since",
                          "use a portable path, or restore on " + record.host));
  }
  return Ok();
}

Status PathOpener::Begin(std::size_t path_index) {
  const envelope::PathRecord& path = envelope_.header().paths.at(path_index);
  RETURN_IF_ERROR(envelope::RequireOpenable(path));
  for (const envelope::FactorRecord& factor : path.factors) {
    const auto identity = IdentityOf(factor);
    if (!identity) continue;
    const Token& token = FindOrStartToken(*identity->token, *identity->spki, *identity->uri);
    if (!token.factor) return AsFactor(token.factor.error());
  }
  for (const envelope::FactorRecord& factor : path.factors) {
    if (const auto* tpm = std::get_if<envelope::Tpm2Record>(&factor)) {
      RETURN_IF_ERROR(TpmPresent(*tpm));
    }
  }
  return Ok();
}

Status PathOpener::Present(std::size_t path_index) {
  RETURN_IF_ERROR(Begin(path_index));
  for (const envelope::FactorRecord& factor : envelope_.header().paths.at(path_index).factors) {
    if (IdentityOf(factor)) RETURN_IF_ERROR(LocateToken(factor));
  }
  return Ok();
}

void PathOpener::Finish() {
  for (const auto& token : tokens_) {
    if (token->factor) (*token->factor)->Finish();
  }
}

Result<SecretBytes> PathOpener::OpenToken(const envelope::FactorRecord& record) {
  const TokenIdentity identity = *IdentityOf(record);
  Token& token = FindOrStartToken(*identity.token, *identity.spki, *identity.uri);
  if (!token.factor) return AsFactor(token.factor.error());
  const auto* rsa = std::get_if<envelope::Pkcs11RsaRecord>(&record);
  auto secret = rsa != nullptr
                    ? (*token.factor)->UnwrapRsa(*rsa)
                    : (*token.factor)->DeriveEcdh(std::get<envelope::Pkcs11EcdhRecord>(record));
  if (!secret) return AsFactor(std::move(secret).error());
  PausePoint("token-opened");
  return secret;
}

Result<SecretBytes> PathOpener::OpenTpm(const envelope::Tpm2Record& record,
                                        std::string_view binding,
                                        const SecretBytes* password_secret) {
  auto tpm = options_.devices->Tpm();
  if (!tpm) return AsFactor(tpm.error());
  SecretBytes auth_value;
  envelope::UnsealRequest request;
  request.use_last_try = options_.use_last_try;
  if (record.auth) {
    ASSIGN_OR_RETURN(auth_value, envelope::DeriveTpmAuth(*password_secret, binding));
    request.auth_value = &auth_value;
  }
  auto secret = (*tpm)->Unseal(record, request);
  if (!secret) return AsFactor(std::move(secret).error());
  PausePoint("tpm-unsealed");
  return secret;
}

Result<envelope::OpenedEnvelope> PathOpener::Open(std::size_t path_index) {
  const envelope::PathRecord& path = envelope_.header().paths.at(path_index);
  RETURN_IF_ERROR(Present(path_index));

  // The password is asked for before any device is used, and stretched before the TPM, whose auth
  // value comes of it.
  const SecretBytes* password_secret = nullptr;
  if (const envelope::PasswordRecord* record = FindPassword(path)) {
    options_.progress->Pause();
    auto typed = options_.secrets->Password(path.id, options_.purpose);
    if (!typed) return AsFactor(std::move(typed).error());
    PausePoint("password-read");
    options_.progress->Step("stretching the password");
    ASSIGN_OR_RETURN(password_secret, passwords_.Stretch(*typed, *record));
    PausePoint("password-stretched");
  }
  std::vector<SecretBytes> opened;
  opened.reserve(path.factors.size());
  std::vector<const SecretBytes*> secrets;
  const std::string binding = envelope::PathBinding(envelope_.header(), path);
  for (const envelope::FactorRecord& factor : path.factors) {
    if (std::holds_alternative<envelope::PasswordRecord>(factor)) {
      secrets.push_back(password_secret);
      continue;
    }
    const auto* tpm = std::get_if<envelope::Tpm2Record>(&factor);
    options_.progress->Step(tpm != nullptr ? "waiting for the tpm" : "waiting for the token");
    auto secret = tpm != nullptr ? OpenTpm(*tpm, binding, password_secret) : OpenToken(factor);
    if (!secret) return std::move(secret).error();
    opened.push_back(std::move(*secret));
    secrets.push_back(&opened.back());
  }
  return envelope_.Open(path_index, secrets);
}

}  // namespace keyescrow::agent
