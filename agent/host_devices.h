// HostDevices: the TPM and the PKCS#11 modules of this host behind agent/usecases/devices.h.
// The only code of agent/ that knows tpm/ and hsm/; main.cc hands it to the command line.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "agent/usecases/anchor_counters.h"
#include "agent/usecases/devices.h"
#include "agent/usecases/token_signing.h"
#include "hsm/token_factor.h"
#include "tpm/agent_key.h"
#include "tpm/anchor.h"
#include "tpm/device.h"
#include "tpm/tpm_factor.h"

namespace keyescrow::agent {

class HostDevices final : public Devices, public TokenSigning, public AnchorCounters {
 public:
  HostDevices() = default;
  ~HostDevices() override = default;

  void UseTpm(const std::string& tcti, const Bytes& pinned_srk) override;
  Result<envelope::TpmFactor*> Tpm() override;
  Status PersistSrk() override;
  Result<TpmAgentKeyBlob> CreateAgentKey(const SecretBytes& auth) override;
  Result<std::unique_ptr<envelope::Signer>> OpenAgentKey(const TpmAgentKeyBlob& blob,
                                                         SecretBytes auth) override;
  void LastSignature() override;
  Result<TpmAnchorBlob> CreateAnchor(const SecretBytes& auth, const std::string& origin) override;
  Result<std::unique_ptr<envelope::Anchor>> OpenAnchor(const TpmAnchorBlob& blob, SecretBytes auth,
                                                       const std::string& origin) override;
  Result<std::vector<FoundCounter>> FindCounters(const std::string& origin) override;
  Status RemoveCounter(std::uint32_t index, const std::string& origin) override;

  Result<TokenUri> ParseTokenUri(const std::string& uri) override;
  void PrepareToken() override;
  void PrepareModule(const std::string& module) override;
  Result<std::unique_ptr<envelope::TokenFactor>> StartToken(const TokenSpec& spec,
                                                            envelope::PinProvider& pins) override;
  Result<TokenSigner> OpenTokenSigner(const TokenSpec& spec, envelope::PinProvider& pins) override;
  Result<ModuleFacts> InspectModule(const std::string& module) override;
  Result<TokenKeyFacts> FindTokenKey(const std::string& module, const std::string& uri,
                                     envelope::PinProvider* pins) override;
  Result<std::string> ReadTokenEvidence(const TokenSpec& spec,
                                        envelope::PinProvider& pins) override;
  Result<TokenKeyFacts> GenerateTokenKey(const KeyPairRequest& request,
                                         envelope::PinProvider& pins) override;

 private:
  Result<std::shared_ptr<tpm::Device>> OpenDevice();

  std::string tcti_;
  Bytes pinned_srk_;
  std::optional<Result<std::shared_ptr<tpm::Device>>> device_;
  std::unique_ptr<tpm::Tpm> tpm_;
  std::optional<hsm::PreparedWorker> worker_;
  std::string prepared_path_;
  std::optional<hsm::PreparedModule> prepared_;
  tpm::TpmAgentKey* agent_key_ = nullptr;  // owned by who opened it; used by LastSignature alone
};

}  // namespace keyescrow::agent
