#include "hsm/token_factor.h"

#include <fmt/format.h>

#include <optional>
#include <utility>

#include "envelope/base/p256.h"
#include "hsm/token_client.h"
#include "hsm/token_location.h"
#include "hsm/token_login.h"
#include "hsm/uri.h"

namespace keyescrow::hsm {

class TokenFactor::Impl {
 public:
  Impl(TokenSpec spec, std::optional<envelope::Pkcs11Uri> uri, envelope::PinProvider& pins,
       std::unique_ptr<TokenClient> client)
      : spec_(std::move(spec)), uri_(std::move(uri)), pins_(pins), client_(std::move(client)) {}

  Status Locate() {
    if (poison_) return *poison_;
    if (location_) return Ok();
    auto location = LocateToken(*client_, uri_, spec_.spki);
    if (!location) return Poison(std::move(location).error());
    location_ = *std::move(location);
    return Ok();
  }

  // Unlock logs in and finds the private key, once.
  Status Unlock() {
    RETURN_IF_ERROR(Locate());
    if (key_) return Ok();
    auto login = LogIn(*client_, location_->token, {spec_.name, spec_.use_last_try}, pins_);
    if (!login) return Poison(std::move(login).error());
    login_ = *std::move(login);
    auto key = FindKey();
    if (!key) return Poison(std::move(key).error());
    key_ = *std::move(key);
    if (!key_->always_authenticate) login_.pin = SecretBytes();
    return Ok();
  }

  Result<SecretBytes> UnwrapRsa(const envelope::Pkcs11RsaRecord& record) {
    if (record.spki != spec_.spki) return OtherKey();
    RETURN_IF_ERROR(Unlock());
    auto secret = client_->DecryptRsa(key_->handle, record.hash, record.wrapped, ForOneUse());
    return Checked(std::move(secret));
  }

  Result<SecretBytes> DeriveEcdh(const envelope::Pkcs11EcdhRecord& record) {
    if (record.spki != spec_.spki) return OtherKey();
    // The point is checked before a token sees it: an invalid one can reveal bits of a bad token's
    // key.
    if (!P256Point::FromUncompressed(record.epk)) {
      return Error(ErrorCode::kFactorBad, Action::kWrongDevice,
                   "the envelope's ephemeral key is no point of P-256",
                   "the envelope is damaged: restore from another copy")
          .WithFailure(Failure::kFactor);
    }
    RETURN_IF_ERROR(Unlock());
    bool is_s = false;
    auto secret = client_->DeriveEcdh(key_->handle, record.epk, envelope::EcdhSharedInfo(record),
                                      ForOneUse(), is_s);
    auto checked = Checked(std::move(secret));
    if (!checked || is_s) return checked;
    return envelope::EcdhSecret(*checked, record);
  }

  void Finish() { client_->Leave(); }

  const TokenInfo& token() const {
    static const TokenInfo kNone;
    return location_ ? location_->token : kNone;
  }

 private:
  Result<KeyRow> FindKey() {
    std::vector<Bytes> ids = location_->ids;
    if (ids.empty()) {  // hidden before login: look again
      ASSIGN_OR_RETURN(const std::vector<KeyRow> rows, client_->ListKeys(KeyClass::kPublic));
      ids = IdsOf(rows, spec_.spki);
    }
    if (ids.empty() && uri_ && uri_->id) ids.push_back(ToBytes(AsBytes(*uri_->id)));
    ASSIGN_OR_RETURN(const std::vector<KeyRow> keys, client_->ListKeys(KeyClass::kPrivate));
    auto key = FindPrivateKey(keys, spec_.spki, ids, DescribeToken(location_->token));
    if (!key) RETURN_IF_ERROR(CheckStillThere(*client_, location_->token));
    return key;
  }

  KeyLogin ForOneUse() const {
    if (!key_->always_authenticate) return {};
    return {login_.on_reader ? nullptr : &login_.pin, login_.on_reader};
  }

  // Checked lets 32 bytes pass and poisons the session after any failure.
  Result<SecretBytes> Checked(Result<SecretBytes> secret) {
    if (!secret) {
      Error error = std::move(secret).error();
      if (error.code() == ErrorCode::kTokenKeyNotFound) {
        // The key's handle is no longer valid: so it is with SoftHSM 2.6 when its token was pulled.
        if (auto there = CheckStillThere(*client_, location_->token); !there) {
          error = std::move(there).error();
        }
      }
      error.SetFailure(Failure::kFactor);
      return Poison(std::move(error));
    }
    if (secret->size() != 32) {
      return Error(ErrorCode::kFactorBad, Action::kWrongDevice,
                   fmt::format("token {} yielded {} bytes where 32 are needed",
                               DescribeToken(location_->token), secret->size()),
                   "the envelope was not made for this key: restore by another path or copy")
          .WithFailure(Failure::kFactor);
    }
    return secret;
  }

  // Poison keeps the first error: a session with a failed operation is not used again, and a login
  // is never retried.
  Error Poison(Error error) {
    poison_ = std::move(error);
    return *poison_;
  }

  static Error OtherKey() {
    return Error(ErrorCode::kInternal, Action::kReportBug,
                 "a token was asked for another key than it was started for", "report this");
  }

  TokenSpec spec_;
  std::optional<envelope::Pkcs11Uri> uri_;
  envelope::PinProvider& pins_;
  std::unique_ptr<TokenClient> client_;
  std::optional<TokenLocation> location_;
  std::optional<KeyRow> key_;
  LoginOutcome login_;
  std::optional<Error> poison_;
};

Result<PreparedWorker> PreparedWorker::Start(const TokenWorkerOptions& options) {
  ASSIGN_OR_RETURN(auto worker, WorkerProcess::Spawn(options));
  return PreparedWorker(std::move(worker));
}

PreparedWorker::PreparedWorker(std::unique_ptr<WorkerProcess> worker)
    : worker_(std::move(worker)) {}
PreparedWorker::PreparedWorker(PreparedWorker&&) noexcept = default;
PreparedWorker& PreparedWorker::operator=(PreparedWorker&&) noexcept = default;
PreparedWorker::~PreparedWorker() = default;

Result<PreparedModule> PreparedModule::Start(const std::string& module_path,
                                             const std::string& module_arguments,
                                             const TokenWorkerOptions& options) {
  ASSIGN_OR_RETURN(auto client, TokenClient::Start(module_path, module_arguments, options));
  return PreparedModule(std::move(client));
}

Result<PreparedModule> PreparedModule::Start(const std::string& module_path,
                                             PreparedWorker worker) {
  ASSIGN_OR_RETURN(auto client, TokenClient::Start(module_path, {}, {}, std::move(worker.worker_)));
  return PreparedModule(std::move(client));
}

PreparedModule::PreparedModule(std::unique_ptr<TokenClient> client) : client_(std::move(client)) {}
PreparedModule::PreparedModule(PreparedModule&&) noexcept = default;
PreparedModule& PreparedModule::operator=(PreparedModule&&) noexcept = default;
PreparedModule::~PreparedModule() = default;

Result<std::unique_ptr<TokenFactor>> TokenFactor::Start(TokenSpec spec, envelope::PinProvider& pins,
                                                        TokenWorkerOptions options) {
  ASSIGN_OR_RETURN(PreparedModule module,
                   PreparedModule::Start(spec.module_path, spec.module_arguments, options));
  return Start(std::move(spec), pins, std::move(module));
}

Result<std::unique_ptr<TokenFactor>> TokenFactor::Start(TokenSpec spec, envelope::PinProvider& pins,
                                                        PreparedModule module) {
  std::optional<envelope::Pkcs11Uri> uri;
  if (!spec.uri.empty()) {
    // An envelope's hint may have any `type`; ParseUri is for what a person writes, and explains.
    uri = envelope::Pkcs11Uri::Parse(spec.uri);
    if (!uri) {
      ASSIGN_OR_RETURN(uri, ParseUri(spec.uri));
    }
  }
  return std::unique_ptr<TokenFactor>(new TokenFactor(
      std::make_unique<Impl>(std::move(spec), std::move(uri), pins, std::move(module.client_))));
}

TokenFactor::TokenFactor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TokenFactor::~TokenFactor() = default;

Status TokenFactor::Locate() { return impl_->Locate(); }
Result<SecretBytes> TokenFactor::UnwrapRsa(const envelope::Pkcs11RsaRecord& record) {
  return impl_->UnwrapRsa(record);
}
Result<SecretBytes> TokenFactor::DeriveEcdh(const envelope::Pkcs11EcdhRecord& record) {
  return impl_->DeriveEcdh(record);
}
void TokenFactor::Finish() { impl_->Finish(); }
const TokenInfo& TokenFactor::token() const { return impl_->token(); }

}  // namespace keyescrow::hsm
