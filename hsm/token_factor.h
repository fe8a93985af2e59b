// TokenFactor: a factor's secret S out of a private key that stays inside a PKCS#11 token.
#pragma once

#include <memory>
#include <string>

#include "envelope/base/result.h"
#include "envelope/factor.h"
#include "hsm/token_info.h"
#include "hsm/worker_options.h"

namespace keyescrow::hsm {

// TokenSpec: which private key. The public key is the identity; the URI's attributes are hints.
struct TokenSpec {
  std::string name;              // the name it was registered under, for PIN requests and messages
  std::string module_path;       // absolute, or as dlopen finds it; never from an envelope
  std::string module_arguments;  // CK_C_INITIALIZE_ARGS.pReserved (NSS, YubiHSM); usually empty
  std::string uri;               // RFC 7512 path attributes; may be empty
  Bytes spki;                    // canonical DER of the public key
  bool use_last_try = false;     // spend the last PIN try before the token locks
};

class TokenClient;
class WorkerProcess;

// PreparedWorker is a worker that starts in the background (1 ms) before it is known which module
// it is to load: while the store, which names the module, is opened.
class PreparedWorker {
 public:
  // Start returns at once. Errors: kModuleFailed (no process).
  static Result<PreparedWorker> Start(const TokenWorkerOptions& options = {});
  PreparedWorker(PreparedWorker&&) noexcept;
  PreparedWorker& operator=(PreparedWorker&&) noexcept;
  ~PreparedWorker();  // ends and reaps an unused worker

 private:
  friend class PreparedModule;
  explicit PreparedWorker(std::unique_ptr<WorkerProcess> worker);
  std::unique_ptr<WorkerProcess> worker_;
};

// PreparedModule is a worker whose module loads in the background (4–5 ms for SoftHSM), started
// before it is known which key is wanted: as the first thing a restore does.
class PreparedModule {
 public:
  // Start spawns the worker and returns at once. Errors: kModuleMissing (no path), kModuleFailed.
  static Result<PreparedModule> Start(const std::string& module_path,
                                      const std::string& module_arguments = {},
                                      const TokenWorkerOptions& options = {});
  // Start, in a worker that is on its way already.
  static Result<PreparedModule> Start(const std::string& module_path, PreparedWorker worker);
  PreparedModule(PreparedModule&&) noexcept;
  PreparedModule& operator=(PreparedModule&&) noexcept;
  ~PreparedModule();  // ends and reaps an unused worker

 private:
  friend class TokenFactor;
  explicit PreparedModule(std::unique_ptr<TokenClient> client);
  std::unique_ptr<TokenClient> client_;
};

// One worker process, one login. Blocking up to the options' deadlines; used from the thread that
// called Start (the worker ends when that thread does).
class TokenFactor final : public envelope::TokenFactor {
 public:
  // Start spawns the worker and returns at once; the module loads while the caller goes on. `pins`
  // outlives the factor. Errors: kInvalidUri, kOutOfMemory, kModuleFailed (no process).
  static Result<std::unique_ptr<TokenFactor>> Start(TokenSpec spec, envelope::PinProvider& pins,
                                                    TokenWorkerOptions options = {});
  // Start, with a worker that is on its way already; the spec's module is then not looked at.
  static Result<std::unique_ptr<TokenFactor>> Start(TokenSpec spec, envelope::PinProvider& pins,
                                                    PreparedModule module);
  ~TokenFactor() override;  // logs out, ends and reaps the worker; blocks for at most a second

  Status Locate() override;
  Result<SecretBytes> UnwrapRsa(const envelope::Pkcs11RsaRecord& record) override;
  Result<SecretBytes> DeriveEcdh(const envelope::Pkcs11EcdhRecord& record) override;

  // Finish lets the worker log out and leave while the caller goes on; nothing may follow but the
  // destructor, which then finds the process gone.
  void Finish() override;

  // token returns what Locate found.
  const TokenInfo& token() const;

 private:
  class Impl;
  explicit TokenFactor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace keyescrow::hsm
