#include "hsm/token_signer.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "envelope/base/p256.h"
#include "hsm/token_client.h"
#include "hsm/token_location.h"
#include "hsm/token_login.h"
#include "hsm/uri.h"

namespace keyescrow::hsm {
namespace {

constexpr std::string_view kMakeOne =
    "'pkcs11-tool --keypairgen --key-type EC:prime256v1 --usage-sign' makes one; '--list-objects' "
    "lists those that are there";

// SigningKey: a public key that could sign, with its point.
struct SigningKey {
  TokenKey key;
  P256Point point;
  std::vector<Bytes> ids;  // of every object that is this key
};

}  // namespace

class TokenSigner::Impl {
 public:
  Impl(TokenSpec spec, envelope::PinProvider& pins, std::unique_ptr<TokenClient> client)
      : spec_(std::move(spec)), pins_(pins), client_(std::move(client)) {}

  Status Find() {
    std::optional<envelope::Pkcs11Uri> uri;
    if (!spec_.uri.empty()) {
      ASSIGN_OR_RETURN(uri, ParseUri(spec_.uri));
    }
    if (spec_.spki.empty()) {
      ASSIGN_OR_RETURN(token_, FindToken(*client_, uri));
      RETURN_IF_ERROR(client_->OpenSession(token_));
    } else {
      ASSIGN_OR_RETURN(const TokenLocation location, LocateToken(*client_, uri, spec_.spki));
      token_ = location.token;
    }
    ASSIGN_OR_RETURN(std::vector<SigningKey> found, Candidates(uri));
    if (found.empty()) {  // hidden before login: look again
      RETURN_IF_ERROR(Login());
      ASSIGN_OR_RETURN(found, Candidates(uri));
    }
    if (found.empty()) {
      RETURN_IF_ERROR(CheckStillThere(*client_, token_));
      return Error(ErrorCode::kTokenKeyNotFound, Action::kFixInput,
                   fmt::format("token {} shows no such P-256 key", DescribeToken(token_)),
                   std::string(kMakeOne));
    }
    if (found.size() > 1) return Ambiguous(found);
    key_ = std::move(found.front());
    return Ok();
  }

  Result<Bytes64> Sign(const Bytes32& digest) {
    if (poison_) return *poison_;
    Result<Bytes64> signature = SignOnce(digest);
    if (!signature) poison_ = signature.error();
    return signature;
  }

  const P256Point& PublicKey() const { return key_->point; }
  const TokenInfo& token() const { return token_; }

 private:
  // Candidates are the P-256 keys that the session shows now and that are meant, once each.
  Result<std::vector<SigningKey>> Candidates(const std::optional<envelope::Pkcs11Uri>& uri) {
    ASSIGN_OR_RETURN(const std::vector<KeyRow> rows, client_->ListKeys(KeyClass::kPublic));
    std::vector<SigningKey> found;
    for (const KeyRow& row : rows) {
      TokenKey key = PublicKeyOf(row);
      const auto point = P256Point::FromSpki(key.spki);
      const bool meant =
          spec_.spki.empty() ? !uri || UriMatchesKey(*uri, key) : key.spki == spec_.spki;
      const bool repeated = std::any_of(found.begin(), found.end(), [&](const SigningKey& other) {
        return other.key.spki == key.spki;
      });
      if (point && meant && !repeated) {
        std::vector<Bytes> ids = IdsOf(rows, key.spki);
        found.push_back({std::move(key), *point, std::move(ids)});
      }
    }
    return found;
  }

  Error Ambiguous(const std::vector<SigningKey>& found) const {
    std::string list;
    for (const SigningKey& one : found) {
      list += fmt::format("{}id={}", list.empty() ? "" : ", ",
                          envelope::PercentEncodePkcs11(AsText(one.key.id)));
    }
    return Error(
        ErrorCode::kTokenKeyAmbiguous, Action::kFixInput,
        fmt::format("{} P-256 keys on token {} match the URI", found.size(), DescribeToken(token_)),
        "add one of these to the URI: " + list);
  }

  Status Login() {
    if (logged_in_) return Ok();
    ASSIGN_OR_RETURN(login_, LogIn(*client_, token_, {spec_.name, spec_.use_last_try}, pins_));
    logged_in_ = true;
    return Ok();
  }

  Result<Bytes64> SignOnce(const Bytes32& digest) {
    if (!private_key_) {
      RETURN_IF_ERROR(Login());
      ASSIGN_OR_RETURN(const std::vector<KeyRow> rows, client_->ListKeys(KeyClass::kPrivate));
      auto row = FindPrivateKey(rows, key_->key.spki, key_->ids, DescribeToken(token_));
      if (!row) {
        RETURN_IF_ERROR(CheckStillThere(*client_, token_));
        return std::move(row).error();
      }
      private_key_ = *std::move(row);
      if (!private_key_->always_authenticate) login_.pin = SecretBytes();
    }
    KeyLogin use;
    if (private_key_->always_authenticate) {
      use = {login_.on_reader ? nullptr : &login_.pin, login_.on_reader};
    }
    ASSIGN_OR_RETURN(const Bytes64 signature,
                     client_->SignEcdsa(private_key_->handle, digest, use));
    if (!VerifyEs256(key_->point, digest, signature)) {
      return Error(ErrorCode::kTokenVendor, Action::kCallOperator,
                   fmt::format("token {} made a signature that its own public key does not verify",
                               DescribeToken(token_)),
                   "its public and private key may not belong together: look at the token with "
                   "the vendor's tool");
    }
    return signature;
  }

  TokenSpec spec_;
  envelope::PinProvider& pins_;
  std::unique_ptr<TokenClient> client_;
  TokenInfo token_;
  std::optional<SigningKey> key_;
  std::optional<KeyRow> private_key_;
  LoginOutcome login_;
  bool logged_in_ = false;
  std::optional<Error> poison_;
};

Result<std::unique_ptr<TokenSigner>> TokenSigner::Open(TokenSpec spec, envelope::PinProvider& pins,
                                                       const TokenWorkerOptions& options) {
  if (!spec.spki.empty() && !P256Point::FromSpki(spec.spki)) {
    return Error(ErrorCode::kTokenKeyUsage, Action::kWrongDevice,
                 fmt::format("the key of the token {} is no P-256 key: it cannot sign", spec.name),
                 "name a P-256 key with CKA_SIGN by its URI; " + std::string(kMakeOne));
  }
  ASSIGN_OR_RETURN(auto client,
                   TokenClient::Start(spec.module_path, spec.module_arguments, options));
  auto impl = std::make_unique<Impl>(std::move(spec), pins, std::move(client));
  RETURN_IF_ERROR(impl->Find());
  return std::unique_ptr<TokenSigner>(new TokenSigner(std::move(impl)));
}

TokenSigner::TokenSigner(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TokenSigner::~TokenSigner() = default;

const P256Point& TokenSigner::PublicKey() const { return impl_->PublicKey(); }
Result<Bytes64> TokenSigner::SignDigest(const Bytes32& digest) { return impl_->Sign(digest); }
const TokenInfo& TokenSigner::token() const { return impl_->token(); }

}  // namespace keyescrow::hsm
