#include "agent/usecases/open_path.h"

#include <algorithm>

#include "agent/usecases/ceremony.h"
#include "agent/usecases/registered_recovery_key.h"
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

TokenSessionOptions SessionOptions(const PathOpenOptions& options) {
  return {options.devices, &options.secrets->Pins(), options.store, options.module,
          options.use_last_try};
}

// MayTypeAgain: officers gave their shares, the password was refused, and a person wants to type it
// again: what the officers did is not done twice for a slip of one's finger.
bool MayTypeAgain(const PathOpenOptions& options, const envelope::PathRecord& path,
                  const Error& error) {
  if (error.code() != ErrorCode::kWrongPassword) return false;
  const bool has_shares = std::ranges::any_of(path.factors, [](const auto& factor) {
    return std::holds_alternative<envelope::SharesRecord>(factor);
  });
  CeremonyDesk* const desk = has_shares ? options.secrets->Desk() : nullptr;
  return desk != nullptr && desk->PasswordAgain(error, false);
}

std::string StretchKey(const envelope::PasswordRecord& record) {
  return KdfCost(record.kdf) + "|" + record.salt;
}

// AskPassword asks for a path's password and stretches it; `kept` gets it where refusals are
// remembered.
Result<const SecretBytes*> AskPassword(const PathOpenOptions& options,
                                       StretchedPasswords& passwords,
                                       const envelope::PathRecord& path,
                                       const envelope::PasswordRecord& record, SecretBytes& kept) {
  options.progress->Pause();
  auto typed = options.secrets->Password(path.id, options.purpose);
  if (!typed) return AsFactor(std::move(typed).error());
  PausePoint("password-read");
  if (options.refused_passwords != nullptr) {
    if (options.refused_passwords->Refuses(*typed, path)) {
      return AsFactor(Error(ErrorCode::kFactorMissing, Action::kReauthenticate,
                            "the password was refused before, and is not tried again",
                            "run the command for this key alone, with its password"));
    }
    ASSIGN_OR_RETURN(kept, SecretBytes::CopyOf(typed->Expose()));
  }
  options.progress->Step("stretching the password");
  ASSIGN_OR_RETURN(const SecretBytes* const stretched, passwords.Stretch(*typed, record));
  PausePoint("password-stretched");
  return stretched;
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

bool RefusedPasswords::Refuses(const SecretBytes& typed, const envelope::PathRecord& path) const {
  for (const Entry& entry : entries_) {
    if (!entry.typed.EqualsConstantTime(typed)) continue;
    for (const envelope::FactorRecord& factor : path.factors) {
      const auto* tpm = std::get_if<envelope::Tpm2Record>(&factor);
      if (tpm != nullptr && tpm->auth) return true;
      const auto identity = IdentityOf(factor);
      if (identity && std::ranges::count(entry.tokens, *identity->spki) > 0) return true;
    }
  }
  return false;
}

void RefusedPasswords::Add(SecretBytes typed, const envelope::PathRecord& path) {
  Entry entry;
  entry.typed = std::move(typed);
  for (const envelope::FactorRecord& factor : path.factors) {
    if (const auto identity = IdentityOf(factor)) entry.tokens.push_back(*identity->spki);
  }
  entries_.push_back(std::move(entry));
}

PathOpener::PathOpener(const envelope::SealedEnvelope& envelope, PathOpenOptions options,
                       StretchedPasswords& passwords)
    : PathOpener(std::move(options), passwords) {
  envelope_ = &envelope;
}

PathOpener::PathOpener(PathOpenOptions options, StretchedPasswords& passwords)
    : options_(std::move(options)), passwords_(passwords) {
  tokens_ = options_.tokens;
  if (tokens_ != nullptr) return;
  own_tokens_ = std::make_unique<TokenSessions>(
      TokenSessionOptions{options_.devices, &options_.secrets->Pins(), options_.store,
                          options_.module, options_.use_last_try});
  tokens_ = own_tokens_.get();
}

PathOpener::~PathOpener() = default;

Status PathOpener::TpmPresent(const envelope::Tpm2Record& record) {
  if (!record.signer.empty() && !options_.pcr_policy_signature) {
    return AsFactor(Error(ErrorCode::kTpmPolicySignature, Action::kFixInput,
                          "the path needs a signed PCR policy, and none was given",
                          "give --pcr-policy-signature FILE: what the policy's signer made for the "
                          "present PCRs, or use another path"));
  }
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

Result<const envelope::PathRecord*> PathOpener::Factors(std::size_t path_index) {
  const envelope::PathRecord& path = envelope_->header().paths.at(path_index);
  if (!path.recovery_key || options_.store == nullptr) return &path;
  auto known = registered_.find(path_index);
  if (known == registered_.end()) {
    ASSIGN_OR_RETURN(auto key, RegisteredRecoveryKey(*options_.store, path));
    known = registered_.emplace(path_index, std::nullopt).first;
    if (key) {
      Registered& registered = known->second.emplace();
      registered.path = path;
      registered.path.factors = key->factors;
      registered.key = std::move(*key);
    }
  }
  return known->second ? &known->second->path : &path;
}

Status PathOpener::Begin(std::size_t path_index) {
  ASSIGN_OR_RETURN(const envelope::PathRecord* const path, Factors(path_index));
  return BeginFactors(*path);
}

Status PathOpener::BeginFactors(const envelope::PathRecord& path) {
  for (const envelope::FactorRecord& factor : path.factors) {
    const auto* shares = std::get_if<envelope::SharesRecord>(&factor);
    // Officers who are waited for get sessions of their own, when they come.
    if (shares != nullptr && !WaitsForOfficers(*options_.secrets)) {
      RETURN_IF_ERROR(StartShares(*shares, *tokens_));
    }
    if (!IdentityOf(factor)) continue;
    if (Status started = tokens_->Start(factor); !started) return AsFactor(started.error());
  }
  for (const envelope::FactorRecord& factor : path.factors) {
    if (const auto* tpm = std::get_if<envelope::Tpm2Record>(&factor)) {
      RETURN_IF_ERROR(TpmPresent(*tpm));
    }
  }
  return Ok();
}

Status PathOpener::Present(std::size_t path_index) {
  ASSIGN_OR_RETURN(const envelope::PathRecord* const path, Factors(path_index));
  return FactorsPresent(*path);
}

Status PathOpener::FactorsPresent(const envelope::PathRecord& path) {
  RETURN_IF_ERROR(BeginFactors(path));
  for (const envelope::FactorRecord& factor : path.factors) {
    const auto* shares = std::get_if<envelope::SharesRecord>(&factor);
    if (shares != nullptr && !WaitsForOfficers(*options_.secrets)) {
      RETURN_IF_ERROR(SharesPresent(*shares, *tokens_));
    }
    if (!IdentityOf(factor)) continue;
    if (Status located = tokens_->Locate(factor); !located) return AsFactor(located.error());
  }
  return Ok();
}

void PathOpener::Finish() { tokens_->Finish(); }

Result<SecretBytes> PathOpener::OpenToken(const envelope::FactorRecord& record) {
  auto secret = tokens_->Open(record);
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
  if (options_.pcr_policy_signature) {
    request.pcr_policy_signature = &*options_.pcr_policy_signature;
  }
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
  SecretBytes typed_password;
  auto opened = OpenWith(path_index, typed_password);
  if (!opened && options_.refused_passwords != nullptr && !typed_password.empty() &&
      (opened.error().code() == ErrorCode::kWrongPassword ||
       opened.error().code() == ErrorCode::kTpmWrongAuth)) {
    ASSIGN_OR_RETURN(const envelope::PathRecord* const path, Factors(path_index));
    options_.refused_passwords->Add(std::move(typed_password), *path);
  }
  return opened;
}

Result<envelope::OpenedEnvelope> PathOpener::OpenWith(std::size_t path_index,
                                                      SecretBytes& typed_password) {
  ASSIGN_OR_RETURN(const envelope::PathRecord* const path, Factors(path_index));
  ASSIGN_OR_RETURN(
      FactorSecrets secrets,
      CollectSecrets(*path, envelope::PathBinding(envelope_->header(), *path), typed_password));
  const auto registered = registered_.find(path_index);
  const bool is_registered = registered != registered_.end() && registered->second;
  while (true) {
    auto opened = envelope_->Open(path_index, secrets.in_order,
                                  is_registered ? &registered->second->key : nullptr);
    if (opened || !MayTypeAgain(options_, *path, opened.error())) return opened;
    for (std::size_t i = 0; i < path->factors.size(); ++i) {
      const auto* password = std::get_if<envelope::PasswordRecord>(&path->factors[i]);
      if (password == nullptr) continue;
      ASSIGN_OR_RETURN(secrets.in_order[i],
                       AskPassword(options_, passwords_, *path, *password, typed_password));
    }
  }
}

Result<PathOpener::FactorSecrets> PathOpener::CollectSecrets(const envelope::PathRecord& path,
                                                             std::string_view binding,
                                                             SecretBytes& typed_password) {
  RETURN_IF_ERROR(FactorsPresent(path));

  // The password is asked for before any device is used, and stretched before the TPM, whose auth
  // value comes of it.
  const SecretBytes* password_secret = nullptr;
  if (const envelope::PasswordRecord* record = FindPassword(path)) {
    ASSIGN_OR_RETURN(password_secret,
                     AskPassword(options_, passwords_, path, *record, typed_password));
  }
  FactorSecrets secrets;
  for (const envelope::FactorRecord& factor : path.factors) {
    if (std::holds_alternative<envelope::PasswordRecord>(factor)) {
      secrets.in_order.push_back(password_secret);
      continue;
    }
    const auto* tpm = std::get_if<envelope::Tpm2Record>(&factor);
    const auto* shares = std::get_if<envelope::SharesRecord>(&factor);
    options_.progress->Step(tpm != nullptr ? "waiting for the tpm" : "waiting for the token");
    auto secret = shares != nullptr
                      ? OpenShares(*shares, {tokens_, SessionOptions(options_), options_.secrets,
                                             options_.progress, std::string(binding), path.id,
                                             options_.purpose})
                  : tpm != nullptr ? OpenTpm(*tpm, binding, password_secret)
                                   : OpenToken(factor);
    if (!secret) return std::move(secret).error();
    secrets.in_order.push_back(&secrets.opened.emplace_back(std::move(*secret)));
  }
  return secrets;
}

Status PathOpener::RecoveryKeyPresent(const envelope::RecoveryKey& key) {
  return FactorsPresent(RecoveryKeyPath(key));
}

Result<envelope::OpenedRecoveryKey> PathOpener::OpenRecoveryKey(const envelope::RecoveryKey& key) {
  SecretBytes typed_password;
  ASSIGN_OR_RETURN(
      const FactorSecrets secrets,
      CollectSecrets(RecoveryKeyPath(key),
                     envelope::RecoveryKeyBinding(key.record.name, key.Public()), typed_password));
  return envelope::OpenRecoveryKey(key, secrets.in_order);
}

}  // namespace keyescrow::agent
