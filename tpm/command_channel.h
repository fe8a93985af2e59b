// CommandChannel: TPM commands as bytes over a DeadlineTransport, with their authorisation.
//
// Commands are built and responses parsed here, bounds-checked, and not by tpm2-tss: no secret is
// ever copied into a foreign structure (agent/docs/decisions/0002). Source: TPM 2.0 Part 1, 18.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/random.h"
#include "envelope/base/result.h"
#include "tpm/deadline_transport.h"
#include "tpm/errors.h"
#include "tpm/session.h"

namespace keyescrow::tpm {

// Entity: a handle with its Name, which the command's HMAC covers.
struct Entity {
  std::uint32_t handle = 0;
  Bytes name;  // may be empty where no HMAC session authorises the command
};

struct Command {
  std::uint32_t code = 0;
  std::string_view name;  // Part 3's, for messages
  Context context = Context::kAny;
  std::vector<Entity> handles{};
  // Contents of the first TPM2B parameter where it is secret; encrypted in place. Needs a session
  // with kDecryptCommand. `parameters` then holds what follows.
  SecretBytes* secret_parameter = nullptr;
  Bytes parameters{};
  bool returns_handle = false;
};

// Authorization of a command's first handle; none by default. With both, the empty password is the
// first handle's and the session the second one's.
struct Authorization {
  bool empty_password = false;     // TPM_RS_PW with no auth value: nothing secret crosses the bus
  AuthSession* session = nullptr;  // an HMAC or policy session
  std::uint8_t attributes = 0;     // TPMA_SESSION
};
inline Authorization EmptyPassword() { return {.empty_password = true}; }

struct Reply {
  std::uint32_t handle = 0;  // where the command returns one
  Bytes parameters{};
};

enum class SessionType : std::uint8_t { kHmac = 0x00, kPolicy = 0x01 };  // TPM_SE

class CommandChannel {
 public:
  CommandChannel(std::unique_ptr<DeadlineTransport> transport, std::chrono::milliseconds deadline,
                 RandomSource& random)
      : transport_(std::move(transport)), deadline_(deadline), random_(random) {}

  RandomSource& random() { return random_; }

  // Run sends a command and checks the response's shape and, under a session, its HMAC. A TPM that
  // is busy (back_off.h: it did not start the command) is asked again until the deadline; nothing
  // else is, and no TPM2_Unseal. Errors: errors.h's table, kTpmResponse, kTpmTimeout.
  Result<Reply> Run(const Command& command, const Authorization& authorization = {});

  // StartSession: SHA-256, AES-128-CFB, unbound; salted to `salt_key`, a P-256 key in the TPM of
  // public point `salt_point`, unless null. Source: Part 3, TPM2_StartAuthSession.
  Result<AuthSession> StartSession(SessionType type, const Entity* salt_key,
                                   const P256Point* salt_point);

  // Flush: Part 3, TPM2_FlushContext. FlushQuietly is for cleaning up after another error.
  Status Flush(std::uint32_t handle);
  void FlushQuietly(std::uint32_t handle);

 private:
  Result<Bytes> Transact(ByteView command);

  std::unique_ptr<DeadlineTransport> transport_;
  std::chrono::milliseconds deadline_;
  RandomSource& random_;
};

// ResponseCode returns the stripped TPM_RC of an error, or 0 where no TPM_RC is its cause.
std::uint32_t ResponseCode(const Error& error);

}  // namespace keyescrow::tpm
