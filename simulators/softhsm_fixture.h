// SoftHsmFixture: SoftHSM tokens in a folder of their own, for integration tests. It refuses any
// module that does not identify itself as SoftHSM before it writes to a token.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "envelope/base/bytes.h"
#include "envelope/factor.h"
#include "hsm/worker_options.h"

namespace keyescrow::simulators {

class SoftHsmFixture {
 public:
  // Makes a temporary folder with a configuration and sets SOFTHSM2_CONF in this process; the
  // worker inherits it. One at a time in a process. Aborts, with a message, on any failure.
  SoftHsmFixture();
  ~SoftHsmFixture();  // removes the folder, restores the environment
  SoftHsmFixture(const SoftHsmFixture&) = delete;
  SoftHsmFixture& operator=(const SoftHsmFixture&) = delete;

  // ModulePath returns SoftHSM's library on this machine.
  static std::string ModulePath();
  const std::string& folder() const { return folder_; }

  // AddToken initialises a token in a new slot; labels may repeat. 4 ms.
  void AddToken(const std::string& label, const std::string& pin,
                const std::string& so_pin = "so-pin-12345678");

  // GenerateRsa and GenerateP256 make a key pair on the token of that label and return the public
  // key's SPKI. RSA-2048 takes 0.2 s, RSA-3072 0.6 s, P-256 10 ms. `bits` is 2048 or 3072.
  Bytes GenerateRsa(const std::string& token_label, const std::string& pin, std::uint8_t id,
                    unsigned bits = 2048, const std::string& label = "escrow");
  Bytes GenerateP256(const std::string& token_label, const std::string& pin, std::uint8_t id,
                     const std::string& label = "escrow");

  // GenerateSigningP256 is GenerateP256 with CKA_SIGN: keyescrow's own keys may not sign.
  Bytes GenerateSigningP256(const std::string& token_label, const std::string& pin, std::uint8_t id,
                            const std::string& label = "policy");

  // GenerateAlwaysAuthenticating makes a key pair whose private half asks for the PIN at each use
  // (CKA_ALWAYS_AUTHENTICATE): RSA-2048 that decrypts, or P-256 that signs and derives.
  // SoftHSM 2.6.1 holds C_Decrypt and C_Sign to it, and C_DeriveKey not.
  Bytes GenerateAlwaysAuthenticating(const std::string& token_label, const std::string& pin,
                                     std::uint8_t id, bool p256);

  // CopyPublicKey makes a copy of the public key of one id under another, on its token.
  void CopyPublicKey(const std::string& token_label, const std::string& pin, std::uint8_t id,
                     std::uint8_t copys_id);

  // CopyTokens copies the tokens of `other_folder` (a fixture's folder() of an earlier run) here.
  void CopyTokens(const std::string& other_folder);

  // WorkerOptions names a program that is a worker and nothing else, so that a test program needs
  // no main() of its own.
  static hsm::TokenWorkerOptions WorkerOptions();

  // FaultyModulePath is a module that forwards to SoftHSM and misbehaves (faulty_pkcs11.cc).
  static std::string FaultyModulePath();

 private:
  Bytes Generate(const std::string& token_label, const std::string& pin, std::uint8_t id,
                 std::uint8_t kind, const std::string& label);

  std::string folder_;
  std::optional<std::string> previous_conf_;
};

// FixedPin is a PinProvider that answers with one PIN and counts what it was asked.
class FixedPin final : public envelope::PinProvider {
 public:
  explicit FixedPin(std::string pin) : pin_(std::move(pin)) {}
  Result<SecretBytes> AskPin(const envelope::PinRequest& request) override;
  void OnReader(const envelope::PinRequest& request) override;

  int num_asked = 0;
  int num_on_reader = 0;
  envelope::PinRequest last;

 private:
  std::string pin_;
};

}  // namespace keyescrow::simulators
