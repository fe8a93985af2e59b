#include "agent/usecases/sign_policy.h"

#include "agent/key_locations/crash_safe_file.h"
#include "agent/key_locations/key_location.h"
#include "agent/key_locations/secret_file.h"
#include "agent/policy/signature.h"
#include "agent/usecases/set_policy.h"
#include "envelope/base/pause_point.h"
#include "envelope/header.h"
#include "envelope/signing_key.h"

namespace keyescrow::agent {
namespace {

constexpr std::string_view kAgentWord = "agent";
constexpr std::string_view kTokenPrefix = "token:";

// NameOf returns the signer's name: given, or the file's without folder and ending.
Result<std::string> NameOf(const std::string& given, const std::string& file) {
  std::string name = given;
  if (name.empty()) {
    name = file.substr(file.rfind('/') + 1);
    name = name.substr(0, name.rfind('.'));
  }
  if (envelope::IsName(name)) return name;
  return Error(ErrorCode::kInvalidName, Action::kFixInput, "\"" + name + "\" names no signer",
               "give 1 to 64 letters, digits, '.', '_' and '-' with --name");
}

Error NeedsState(std::string_view what) {
  return Error(ErrorCode::kNotInitialized, Action::kFixInput,
               "there is no " + std::string(what) + " here: no state", "run keyescrow init");
}

// Pen: whoever signs, with the public half.
class Pen {
 public:
  static Result<Pen> Open(Agent* agent, const SignPolicyRequest& request) {
    if (request.token) return OpenToken(*request.token, request);
    if (request.key.starts_with(kTokenPrefix)) {
      if (agent == nullptr) return NeedsState("registered token");
      ASSIGN_OR_RETURN(const store::TokenRecord record,
                       agent->store().FindToken(request.key.substr(kTokenPrefix.size())));
      return OpenToken({record.name, record.module, record.uri, record.spki, request.use_last_try},
                       request);
    }
    if (request.key == kAgentWord) {
      if (agent == nullptr) return NeedsState("agent key");
      ASSIGN_OR_RETURN(std::string name, NameOf(request.name, agent->identity().host + ".key"));
      Pen pen(envelope::NoteKey::P256(std::move(name), agent->identity().p256));
      pen.agent_ = agent;
      return pen;
    }
    RETURN_IF_ERROR(CheckSecretFile(request.key));
    ASSIGN_OR_RETURN(const auto location, ParseLocation("file:" + request.key));
    ASSIGN_OR_RETURN(const SecretBytes pem, location->Read());
    ASSIGN_OR_RETURN(std::string name, NameOf(request.name, request.key));
    ASSIGN_OR_RETURN(envelope::SigningKey key, envelope::SigningKey::FromPem(pem, std::move(name)));
    PausePoint("signer-read");
    Pen pen(key.Public());
    pen.key_ = std::move(key);
    return pen;
  }

  const envelope::NoteKey& Public() const { return public_; }
  bool IsSoftwareToken() const { return token_.signer != nullptr && token_.token.software; }
  Result<std::string> SignLine(std::string_view text) const {
    if (key_) return key_->SignLine(text);
    envelope::Signer& signer = token_.signer != nullptr ? *token_.signer : agent_->signer();
    return envelope::SignLineP256(public_, signer, text);
  }

 private:
  explicit Pen(envelope::NoteKey public_key) : public_(std::move(public_key)) {}

  static Result<Pen> OpenToken(const TokenSpec& spec, const SignPolicyRequest& request) {
    ASSIGN_OR_RETURN(std::string name, NameOf(request.name, spec.name + ".key"));
    if (request.tokens == nullptr) {
      return Error(ErrorCode::kUnsupportedHere, Action::kFixInput,
                   "no key on a token can sign here", "sign with a file's key");
    }
    ASSIGN_OR_RETURN(TokenSigner token, request.tokens->OpenTokenSigner(spec, *request.pins));
    Pen pen(envelope::NoteKey::P256(std::move(name), token.signer->PublicKey()));
    pen.token_ = std::move(token);
    return pen;
  }

  Agent* agent_ = nullptr;
  std::optional<envelope::SigningKey> key_;
  TokenSigner token_;
  envelope::NoteKey public_;
};

}  // namespace

Result<SignPolicyResult> SignPolicy(Agent* agent, const SignPolicyRequest& request) {
  SignPolicyResult result;
  PolicyCandidate candidate;
  if (!request.file.empty()) {
    ASSIGN_OR_RETURN(candidate, ReadCandidate(request.file));
  }
  ASSIGN_OR_RETURN(const Pen pen, Pen::Open(agent, request));
  result.vkey = pen.Public().Vkey();
  result.software_token = pen.IsSoftwareToken();
  if (request.file.empty()) return result;
  ASSIGN_OR_RETURN(const std::string line, pen.SignLine(policy::SignedText(candidate.policy)));
  const std::string note = policy::AddSignature(candidate.policy, candidate.note, line);
  result.policy_name = candidate.policy.name;
  result.serial = candidate.policy.serial;
  result.signature_file = SignatureFile(request.file);
  RETURN_IF_ERROR(WriteFileDurably(result.signature_file, AsBytes(note), {}));
  result.signers = policy::SignerNames(candidate.policy, note);
  return result;
}

Result<std::string> MakeSigningKey(RandomSource& random, const std::string& file,
                                   const std::string& name) {
  ASSIGN_OR_RETURN(std::string signer, NameOf(name, file));
  ASSIGN_OR_RETURN(const auto key,
                   envelope::SigningKey::GenerateEd25519(random, std::move(signer)));
  ASSIGN_OR_RETURN(const SecretBytes pem, key.Pem());
  DurableWriteOptions options;
  options.mode = 0600;
  options.exclusive = true;
  RETURN_IF_ERROR(WriteFileDurably(file, pem.Expose(), options));
  return key.Public().Vkey();
}

}  // namespace keyescrow::agent
