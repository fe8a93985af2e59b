// TokenClient: the requests of token_protocol.h as typed calls. All that comes back is checked for
// size and shape; what it says is a claim of the module.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/result.h"
#include "envelope/base/rsa.h"
#include "envelope/base/secret_bytes.h"
#include "hsm/module_session.h"
#include "hsm/token_info.h"
#include "hsm/worker_process.h"

namespace keyescrow::hsm {

enum class KeyClass : std::uint8_t { kPublic, kPrivate };

// KeyLogin: how a key with CKA_ALWAYS_AUTHENTICATE gets its PIN for one use.
struct KeyLogin {
  const SecretBytes* pin = nullptr;
  bool on_reader = false;
};

class TokenClient {
 public:
  // Start spawns a worker and sends the first two requests, load and list, without waiting. With
  // `worker`, one that is on its way already is taken instead.
  static Result<std::unique_ptr<TokenClient>> Start(
      std::string module_path, std::string_view module_arguments, const TokenWorkerOptions& options,
      std::unique_ptr<WorkerProcess> worker = nullptr);

  // Report waits for the module to be loaded and its tokens to be listed; later calls return the
  // same. Errors: kModuleMissing, kModuleInvalid, kModuleFailed, kTokenTimeout, by CKR.
  Result<ModuleReport> Report();
  // LookAgain ends the worker and starts another, whose Report says what there is now: a module may
  // go on listing what it saw when it was loaded. Any session is gone. Errors: kModuleFailed.
  Status LookAgain();
  // ReadToken reads one token's info again: flags change. Errors: by CKR, kModuleFailed,
  // kTokenTimeout.
  Result<TokenInfo> ReadToken(std::uint64_t slot_id);
  // ReadTokenLately is ReadToken, or `reported`, of Report, where the worker started less than
  // kFresh ago: what was read then is as good as what would be read now, and costs no call.
  static constexpr std::chrono::milliseconds kFresh{100};
  Result<TokenInfo> ReadTokenLately(const TokenInfo& reported);
  // ReadMechanisms asks what the slot's token can do for an envelope. Costs no try.
  Result<TokenMechanisms> ReadMechanisms(std::uint64_t slot_id);
  // OpenSession replaces the session; the calls below use it. The public keys are asked for in the
  // same breath, and the private ones with Login: whoever lists them next waits half as often.
  Status OpenSession(const TokenInfo& token, bool read_write = false);
  Result<std::vector<KeyRow>> ListKeys(KeyClass key_class);
  // Login is one C_Login; `pin` is null at a PIN pad. Never called twice for one PIN.
  Status Login(const SecretBytes* pin);
  // DecryptRsa returns the OAEP plaintext; un-pads here where the token did raw RSA.
  Result<SecretBytes> DecryptRsa(std::uint64_t key, OaepHash hash, ByteView ciphertext,
                                 const KeyLogin& login);
  // DeriveEcdh returns Z, or S where the token applied the KDF itself (`is_s`); 32 bytes.
  Result<SecretBytes> DeriveEcdh(std::uint64_t key, ByteView point, std::string_view shared_info,
                                 const KeyLogin& login, bool& is_s);
  // SignEcdsa returns what the token calls its signature, R‖S; it is not verified here.
  Result<Bytes64> SignEcdsa(std::uint64_t key, const Bytes32& digest, const KeyLogin& login);
  // ReadEvidence returns kNumEvidenceBooleans values: 0, 1 or 2 (absent).
  Result<Bytes> ReadEvidence(std::uint64_t key);
  Status GenerateKeyPair(std::uint8_t kind, ByteView id, std::string_view label);

  void Leave() { worker_->Leave(); }
  pid_t worker_pid() const { return worker_->pid(); }

 private:
  TokenClient(std::unique_ptr<WorkerProcess> worker, std::string module_path,
              std::string module_arguments, const TokenWorkerOptions& options);
  // AskForTokens sends the first two requests. A worker that died at once is reported by Report,
  // which waits for their replies.
  void AskForTokens();
  Result<Bytes> CallForSlot(TokenRequest request, std::uint64_t slot_id);
  Result<Bytes> Call(TokenRequest request, const Bytes& message, const SecretBytes* secret,
                     std::chrono::milliseconds deadline);
  Result<SecretBytes> CallForSecret(TokenRequest request, const Bytes& message,
                                    const KeyLogin& login, bool& flag);
  // SendForOneUse sends an operation's request with the PIN for one use, or an empty one; WithTry
  // tells of a failure before any answer that such a PIN may have used a try.
  Status SendForOneUse(const Bytes& message, const KeyLogin& login);
  Error WithTry(Error error, const KeyLogin& login) const;
  std::chrono::milliseconds DeadlineOf(const KeyLogin& login) const {
    return login.on_reader ? options_.reader_deadline : options_.operation_deadline;
  }
  Result<Bytes> TakeReply(TokenRequest request, std::chrono::milliseconds deadline);
  Status CheckReply(TokenRequest request, ByteReader& reader);
  Result<ModuleReport> ReadReport();
  // AskAhead sends the request for the first keys without waiting; ListKeys takes the reply, any
  // other call drops it.
  void AskAhead(KeyClass key_class);
  Status DropAhead();

  std::unique_ptr<WorkerProcess> worker_;
  std::string module_path_;
  std::string module_arguments_;
  TokenWorkerOptions options_;
  std::string token_;  // DescribeToken of the open session's token, for messages
  std::optional<Result<ModuleReport>> report_;
  std::chrono::steady_clock::time_point loaded_at_;  // when the module was asked for, no later
  std::optional<KeyClass> asked_ahead_;              // its reply is still to come
};

// ModuleHint names the Debian package of a well-known module that is not there.
std::string ModuleHint(std::string_view module_path);

}  // namespace keyescrow::hsm
