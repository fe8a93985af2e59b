// Opening a path of an envelope: choosing it by what is present, collecting its factors' secrets.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/usecases/agent.h"
#include "agent/usecases/devices.h"
#include "agent/usecases/secrets.h"
#include "agent/usecases/token_sessions.h"
#include "envelope/sealed_envelope.h"

namespace keyescrow::agent {

// RefusedPasswords keeps the passwords that a path refused in this command. A TPM counts wrong
// tries, and a token's session is not spent on them: such a password is not tried again with any
// TPM, nor with the same token.
class RefusedPasswords {
 public:
  bool Refuses(const SecretBytes& typed, const envelope::PathRecord& path) const;
  void Add(SecretBytes typed, const envelope::PathRecord& path);

 private:
  struct Entry {
    SecretBytes typed;
    std::vector<Bytes> tokens;  // SPKIs of the path that refused it
  };
  std::vector<Entry> entries_;
};

// PathOpenOptions: what opens an envelope. `agent` is null on a machine without state.
struct PathOpenOptions {
  Devices* devices = nullptr;
  Secrets* secrets = nullptr;
  Progress* progress = nullptr;
  store::EscrowStore* store = nullptr;  // registered tokens, recovery keys; null without state
  std::string module;                   // --module: for tokens that are not registered
  std::string tcti_host;                // this host's name, for messages
  std::string purpose;                  // completes the question for a password
  bool use_last_try = false;
  // Of a tpm2 factor that names a signer: ReadPcrPolicySignature.
  std::optional<Bytes64> pcr_policy_signature = {};
  // For commands that open many envelopes: sessions that are shared, passwords that were refused.
  TokenSessions* tokens = nullptr;  // null: the opener's own
  RefusedPasswords* refused_passwords = nullptr;
};

// StretchedPasswords keeps S of a password by salt and parameters, so that a KDF runs once for each
// distinct password, salt and parameters of one command.
class StretchedPasswords {
 public:
  // Stretch normalises `typed` and returns S. Errors: kPasswordInvalid, StretchPassword's.
  Result<const SecretBytes*> Stretch(const SecretBytes& typed,
                                     const envelope::PasswordRecord& record);
  // Remember keeps S for a password that is normalised already.
  Status Remember(const SecretBytes& nfc, const envelope::PasswordRecord& record,
                  const SecretBytes& stretched);

 private:
  struct Entry {
    std::string key;
    SecretBytes password;
    SecretBytes stretched;
  };
  std::deque<Entry> entries_;  // what Stretch returned stays where it is
};

// PathOpener opens the paths of one envelope, or recovery keys. Tokens start to load when it is
// made. A path to a recovery key that is registered here is opened by the registered record, whose
// password may be newer than that of the envelope's copy.
class PathOpener {
 public:
  PathOpener(const envelope::SealedEnvelope& envelope, PathOpenOptions options,
             StretchedPasswords& passwords);
  // Without an envelope it opens recovery keys alone.
  PathOpener(PathOpenOptions options, StretchedPasswords& passwords);
  ~PathOpener();

  // Begin starts the path's tokens without waiting for them, and refuses what can be refused at
  // once: a kind of path that this version does not open, another TPM.
  // Errors: kUnsupportedHere, kTpm*, kTokenNotRegistered.
  Status Begin(std::size_t path_index);

  // Present tells whether a path's hardware is here, without any authorisation and without a KDF.
  // Errors: why not (kToken*, kModule*, kTpm*, kUnsupportedHere).
  Status Present(std::size_t path_index);

  // Open collects the factors' secrets and opens the envelope. One authorisation a device at most.
  // Errors: of the factors (Failure::kFactor), kWrongPassword, kEnvelopeUnwrap, kEnvelopeMac,
  // kFactorMissing.
  Result<envelope::OpenedEnvelope> Open(std::size_t path_index);

  // RecoveryKeyPresent and OpenRecoveryKey are Present and Open for a recovery key by itself.
  Status RecoveryKeyPresent(const envelope::RecoveryKey& key);
  Result<envelope::OpenedRecoveryKey> OpenRecoveryKey(const envelope::RecoveryKey& key);

  // Finish lets the tokens log out while the caller goes on. No path is opened after it.
  void Finish();

 private:
  Status TpmPresent(const envelope::Tpm2Record& record);
  Result<envelope::OpenedEnvelope> OpenWith(std::size_t path_index, SecretBytes& typed_password);
  // Factors returns the path with the factors that open it: its own, or the registered record's.
  Result<const envelope::PathRecord*> Factors(std::size_t path_index);
  Status BeginFactors(const envelope::PathRecord& path);
  Status FactorsPresent(const envelope::PathRecord& path);
  // FactorSecrets: S of each factor, in their order.
  struct FactorSecrets {
    std::deque<SecretBytes> opened;
    std::vector<const SecretBytes*> in_order;
  };
  Result<FactorSecrets> CollectSecrets(const envelope::PathRecord& path, std::string_view binding,
                                       SecretBytes& typed_password);
  Result<SecretBytes> OpenToken(const envelope::FactorRecord& record);
  Result<SecretBytes> OpenTpm(const envelope::Tpm2Record& record, std::string_view binding,
                              const SecretBytes* password_secret);

  const envelope::SealedEnvelope* envelope_ = nullptr;  // null: recovery keys alone
  PathOpenOptions options_;
  StretchedPasswords& passwords_;
  std::unique_ptr<TokenSessions> own_tokens_;
  TokenSessions* tokens_ = nullptr;
  struct Registered {
    envelope::RecoveryKey key;
    envelope::PathRecord path;  // the envelope's, with the record's factors
  };
  std::map<std::size_t, std::optional<Registered>> registered_;  // by path; none: not registered
};

}  // namespace keyescrow::agent
