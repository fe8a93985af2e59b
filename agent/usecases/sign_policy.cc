#include "agent/usecases/sign_policy.h"

#include "agent/key_locations/crash_safe_file.h"
#include "agent/key_locations/key_location.h"
#include "agent/key_locations/secret_file.h"
#include "agent/policy/signature.h"
#include "agent/usecases/set_policy.h"
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

// Pen: whoever signs, with the public half.
class Pen {
 public:
  static Result<Pen> Open(Agent* agent, const SignPolicyRequest& request) {
    if (request.key.starts_with(kTokenPrefix)) {
      return Error(ErrorCode::kUnsupportedHere, Action::kFixInput,
                   "this version signs no policy with a key on a token",
                   "sign with a file's key, or with 'agent' on the signer's host: there the key is "
                   "in the TPM");
    }
    if (request.key == kAgentWord) {
      if (agent == nullptr) {
        return Error(ErrorCode::kNotInitialized, Action::kFixInput,
                     "there is no agent key here: no state", "run keyescrow init");
      }
      ASSIGN_OR_RETURN(std::string name, NameOf(request.name, agent->identity().host + ".key"));
      return Pen(agent, std::nullopt,
                 envelope::NoteKey::P256(std::move(name), agent->identity().p256));
    }
    RETURN_IF_ERROR(CheckSecretFile(request.key));
    ASSIGN_OR_RETURN(const auto location, ParseLocation("file:" + request.key));
    ASSIGN_OR_RETURN(const SecretBytes pem, location->Read());
    ASSIGN_OR_RETURN(std::string name, NameOf(request.name, request.key));
    ASSIGN_OR_RETURN(envelope::SigningKey key, envelope::SigningKey::FromPem(pem, std::move(name)));
    envelope::NoteKey public_key = key.Public();
    return Pen(nullptr, std::move(key), std::move(public_key));
  }

  const envelope::NoteKey& Public() const { return public_; }
  Result<std::string> SignLine(std::string_view text) const {
    if (key_) return key_->SignLine(text);
    return envelope::SignLineP256(public_, agent_->signer(), text);
  }

 private:
  Pen(Agent* agent, std::optional<envelope::SigningKey> key, envelope::NoteKey public_key)
      : agent_(agent), key_(std::move(key)), public_(std::move(public_key)) {}

  Agent* agent_;
  std::optional<envelope::SigningKey> key_;
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
