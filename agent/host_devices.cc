#include "agent/host_devices.h"

#include <nlohmann/json.hpp>

#include "envelope/base/base64url.h"
#include "hsm/probe.h"
#include "hsm/token_factor.h"
#include "hsm/token_signer.h"
#include "hsm/uri.h"

namespace keyescrow::agent {
namespace {

TokenFacts Facts(const hsm::TokenInfo& token) {
  TokenFacts facts;
  facts.label = token.label;
  facts.manufacturer = token.manufacturer;
  facts.model = token.model;
  facts.serial = token.serial;
  facts.firmware = token.firmware;
  facts.software = token.software();
  facts.pin_count_low = token.pin_count_low();
  facts.final_try = token.final_try();
  facts.locked = token.locked();
  facts.protected_path = token.protected_path();
  if (token.mechanisms) {
    facts.unwraps_rsa = token.mechanisms->rsa_oaep || token.mechanisms->rsa_raw;
    facts.derives_ecdh = token.mechanisms->ecdh;
  }
  return facts;
}

TokenKeyFacts Facts(const hsm::FoundKey& found) {
  TokenKeyFacts facts;
  facts.token = Facts(found.token);
  facts.kind = hsm::KeyKindName(found.key.kind);
  facts.bits = found.key.bits;
  facts.label = found.key.label;
  facts.id = found.key.id;
  facts.spki = found.key.spki;
  facts.uri = hsm::TokenUri(found.token, found.key);
  return facts;
}

// EvidenceText is what the registration keeps of a private key's attributes: claims of the module.
std::string EvidenceText(const hsm::KeyEvidence& evidence) {
  nlohmann::ordered_json json;
  json["source"] = "token-asserted";
  json["module"] = evidence.module_description;
  json["library_version"] = evidence.library_version;
  json["token"] = {
      {"label", evidence.token.label},       {"manufacturer", evidence.token.manufacturer},
      {"model", evidence.token.model},       {"serial", evidence.token.serial},
      {"firmware", evidence.token.firmware}, {"software", evidence.token.software()}};
  const auto add = [&](const char* name, const std::optional<bool>& value) {
    if (value) json["attributes"][name] = *value;
  };
  add("sensitive", evidence.sensitive);
  add("extractable", evidence.extractable);
  add("always_sensitive", evidence.always_sensitive);
  add("never_extractable", evidence.never_extractable);
  add("local", evidence.local);
  add("wrap_with_trusted", evidence.wrap_with_trusted);
  add("always_authenticate", evidence.always_authenticate);
  add("decrypt", evidence.decrypt);
  add("derive", evidence.derive);
  add("sign", evidence.sign);
  add("unwrap", evidence.unwrap);
  return json.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

hsm::TokenSpec Spec(const TokenSpec& spec) {
  hsm::TokenSpec result;
  result.name = spec.name;
  result.module_path = spec.module;
  result.uri = spec.uri;
  result.spki = spec.spki;
  result.use_last_try = spec.use_last_try;
  return result;
}

// TrackedAgentKey lets LastSignature know whether the key is still there.
class TrackedAgentKey final : public envelope::Signer {
 public:
  TrackedAgentKey(std::unique_ptr<tpm::TpmAgentKey> key, tpm::TpmAgentKey** tracker)
      : key_(std::move(key)), tracker_(tracker) {
    *tracker_ = key_.get();
  }
  ~TrackedAgentKey() override { *tracker_ = nullptr; }
  const P256Point& PublicKey() const override { return key_->PublicKey(); }
  Result<Bytes64> SignDigest(const Bytes32& digest) override { return key_->SignDigest(digest); }

 private:
  std::unique_ptr<tpm::TpmAgentKey> key_;
  tpm::TpmAgentKey** tracker_;
};

}  // namespace

void HostDevices::UseTpm(const std::string& tcti, const Bytes& pinned_srk) {
  if (tcti == tcti_ && pinned_srk == pinned_srk_) return;
  // Another TPM, or another pin: what was opened before was asked for under other terms.
  if (device_ && !*device_ && tcti == tcti_) return;  // it is dead, and stays so
  tcti_ = tcti;
  pinned_srk_ = pinned_srk;
  tpm_.reset();
  device_.reset();
}

Result<std::shared_ptr<tpm::Device>> HostDevices::OpenDevice() {
  if (!device_) {
    tpm::DeviceOptions options;
    options.tcti = tcti_;
    options.pinned_srk = pinned_srk_;
    device_ = tpm::Device::Open(std::move(options));
  }
  return *device_;
}

Result<envelope::TpmFactor*> HostDevices::Tpm() {
  ASSIGN_OR_RETURN(const auto device, OpenDevice());
  if (tpm_ == nullptr) tpm_ = std::make_unique<tpm::Tpm>(device);
  return static_cast<envelope::TpmFactor*>(tpm_.get());
}

Status HostDevices::PersistSrk() {
  ASSIGN_OR_RETURN(const auto device, OpenDevice());
  return device->PersistSrk();
}

Result<TpmAgentKeyBlob> HostDevices::CreateAgentKey(const SecretBytes& auth) {
  ASSIGN_OR_RETURN(const auto device, OpenDevice());
  ASSIGN_OR_RETURN(tpm::AgentKeyBlob blob, tpm::TpmAgentKey::Create(*device, auth));
  return TpmAgentKeyBlob{std::move(blob.object_public), std::move(blob.object_private)};
}

Result<std::unique_ptr<envelope::Signer>> HostDevices::OpenAgentKey(const TpmAgentKeyBlob& blob,
                                                                    SecretBytes auth) {
  ASSIGN_OR_RETURN(const auto device, OpenDevice());
  ASSIGN_OR_RETURN(
      auto key,
      tpm::TpmAgentKey::Open(device, {blob.object_public, blob.object_private}, std::move(auth)));
  return std::unique_ptr<envelope::Signer>(
      std::make_unique<TrackedAgentKey>(std::move(key), &agent_key_));
}

void HostDevices::LastSignature() {
  if (agent_key_ != nullptr) agent_key_->NextIsLast();
}

Result<TpmAnchorBlob> HostDevices::CreateAnchor(const SecretBytes& auth,
                                                const std::string& origin) {
  ASSIGN_OR_RETURN(const auto device, OpenDevice());
  ASSIGN_OR_RETURN(tpm::CreatedAnchor created, tpm::TpmAnchor::Create(*device, auth, origin));
  return TpmAnchorBlob{std::move(created.blob.key), std::move(created.blob.attestation_private),
                       created.base};
}

Result<std::unique_ptr<envelope::Anchor>> HostDevices::OpenAnchor(const TpmAnchorBlob& blob,
                                                                  SecretBytes auth,
                                                                  const std::string& origin) {
  ASSIGN_OR_RETURN(const auto device, OpenDevice());
  ASSIGN_OR_RETURN(auto anchor, tpm::TpmAnchor::Open(device, {blob.key, blob.attestation_private},
                                                     blob.base, std::move(auth), origin));
  return std::unique_ptr<envelope::Anchor>(std::move(anchor));
}

Result<std::vector<FoundCounter>> HostDevices::FindCounters(const std::string& origin) {
  ASSIGN_OR_RETURN(const auto device, OpenDevice());
  ASSIGN_OR_RETURN(const auto indexes, tpm::TpmAnchor::Find(*device, origin));
  std::vector<FoundCounter> counters;
  for (const tpm::AnchorIndex& index : indexes) counters.push_back({index.handle, index.counted});
  return counters;
}

Status HostDevices::RemoveCounter(std::uint32_t index, const std::string& origin) {
  ASSIGN_OR_RETURN(const auto device, OpenDevice());
  return tpm::TpmAnchor::Remove(*device, index, origin);
}

Result<TokenUri> HostDevices::ParseTokenUri(const std::string& uri) {
  ASSIGN_OR_RETURN(hsm::CommandLineUri parsed, hsm::ParseCommandLineUri(uri));
  return TokenUri{std::move(parsed.path), parsed.module_path.value_or(""),
                  parsed.pin_source.value_or("")};
}

void HostDevices::PrepareToken() {
  auto worker = hsm::PreparedWorker::Start();
  if (worker) worker_.emplace(std::move(*worker));  // else StartToken meets the same fault
}

void HostDevices::PrepareModule(const std::string& module) {
  auto prepared = worker_ ? hsm::PreparedModule::Start(module, std::move(*worker_))
                          : hsm::PreparedModule::Start(module, "");
  worker_.reset();
  if (!prepared) return;  // StartToken meets the same fault, and tells it
  prepared_path_ = module;
  prepared_.emplace(std::move(*prepared));
}

Result<std::unique_ptr<envelope::TokenFactor>> HostDevices::StartToken(
    const TokenSpec& spec, envelope::PinProvider& pins) {
  if (worker_) PrepareModule(spec.module);
  if (prepared_ && prepared_path_ == spec.module) {
    hsm::PreparedModule prepared = std::move(*prepared_);
    prepared_.reset();
    ASSIGN_OR_RETURN(auto started, hsm::TokenFactor::Start(Spec(spec), pins, std::move(prepared)));
    return std::unique_ptr<envelope::TokenFactor>(std::move(started));
  }
  ASSIGN_OR_RETURN(auto factor, hsm::TokenFactor::Start(Spec(spec), pins));
  return std::unique_ptr<envelope::TokenFactor>(std::move(factor));
}

Result<TokenSigner> HostDevices::OpenTokenSigner(const TokenSpec& spec,
                                                 envelope::PinProvider& pins) {
  ASSIGN_OR_RETURN(auto opened, hsm::TokenSigner::Open(Spec(spec), pins));
  TokenSigner signer;
  signer.token = Facts(opened->token());
  signer.signer = std::move(opened);
  return signer;
}

Result<ModuleFacts> HostDevices::InspectModule(const std::string& module) {
  hsm::ProbeSpec spec;
  spec.module_path = module;
  ASSIGN_OR_RETURN(const hsm::ModuleReport report, hsm::InspectModule(spec));
  ModuleFacts facts{report.description, report.manufacturer, report.library_version, {}};
  for (const hsm::TokenInfo& token : report.tokens) facts.tokens.push_back(Facts(token));
  return facts;
}

Result<TokenKeyFacts> HostDevices::FindTokenKey(const std::string& module, const std::string& uri,
                                                envelope::PinProvider* pins) {
  hsm::ProbeSpec spec;
  spec.module_path = module;
  spec.uri = uri;
  ASSIGN_OR_RETURN(const hsm::FoundKey found, hsm::FindPublicKey(spec, pins));
  return Facts(found);
}

Result<std::string> HostDevices::ReadTokenEvidence(const TokenSpec& spec,
                                                   envelope::PinProvider& pins) {
  ASSIGN_OR_RETURN(const hsm::KeyEvidence evidence, hsm::ReadKeyEvidence(Spec(spec), pins));
  return EvidenceText(evidence);
}

Result<TokenKeyFacts> HostDevices::GenerateTokenKey(const KeyPairRequest& request,
                                                    envelope::PinProvider& pins) {
  hsm::GenerateSpec spec;
  spec.where.module_path = request.module;
  spec.where.uri = request.uri;
  spec.where.use_last_try = request.use_last_try;
  spec.kind = request.p256 ? hsm::GeneratedKey::kP256 : hsm::GeneratedKey::kRsa3072;
  // What the URI names of a key is what the new one is called.
  ASSIGN_OR_RETURN(const envelope::Pkcs11Uri uri, hsm::ParseUri(request.uri));
  spec.own_label = uri.object.has_value();
  spec.label = uri.object.value_or(request.label);
  if (uri.id) {
    spec.id.assign(uri.id->begin(), uri.id->end());
  } else {
    spec.id.resize(8);
    RETURN_IF_ERROR(SystemRandom().Fill(spec.id));
  }
  ASSIGN_OR_RETURN(const hsm::KeyEvidence made, hsm::GenerateKeyPair(spec, pins));
  TokenKeyFacts facts = Facts({made.token, made.key});
  facts.evidence = EvidenceText(made);
  return facts;
}

}  // namespace keyescrow::agent
