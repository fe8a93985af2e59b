#include "tpm/command_channel.h"

#include <fmt/format.h>

#include <algorithm>

#include "envelope/base/hash.h"
#include "tpm/back_off.h"
#include "tpm/marshal.h"

namespace keyescrow::tpm {
namespace {

using std::chrono::steady_clock;

constexpr std::uint16_t kNoSessions = 0x8001;  // TPM_ST
constexpr std::uint16_t kSessions = 0x8002;
constexpr std::size_t kHeaderBytes = 10;

std::uint32_t HeaderResponseCode(ByteView response) {
  ByteReader reader(response);
  reader.Take(6);
  return reader.TakeU32().value_or(0);
}

Error Malformed(std::string_view name) {
  return ResponseError(fmt::format("the TPM's response to {} does not parse", name));
}

Bytes32 CommandHash(const Command& command, ByteView parameters) {
  Bytes prefix;
  AppendU32(prefix, command.code);
  for (const Entity& entity : command.handles) AppendBytes(prefix, entity.name);
  return Sha256({prefix, parameters});
}

// AuthorizationArea: TPMS_AUTH_COMMAND (Part 2, 10.13.2).
Result<Bytes> AuthorizationArea(const Authorization& authorization, const Bytes32& cp_hash) {
  Bytes area;
  if (authorization.empty_password) {
    AppendU32(area, kRsPw);
    AppendTpm2b(area, {});
    area.push_back(0);
    AppendTpm2b(area, {});
  }
  if (authorization.session == nullptr) return area;
  const AuthSession& session = *authorization.session;
  ASSIGN_OR_RETURN(const Bytes32 hmac, session.CommandHmac(cp_hash, authorization.attributes));
  AppendU32(area, session.handle());
  AppendTpm2b(area, session.nonce_caller());
  area.push_back(authorization.attributes);
  AppendTpm2b(area, hmac);
  return area;
}

}  // namespace

std::uint32_t ResponseCode(const Error& error) {
  if (error.native_domain() != "TPM_RC") return 0;
  return StripFormatBits(static_cast<std::uint32_t>(error.native_code()));
}

Result<Bytes> CommandChannel::Transact(ByteView command) {
  const auto deadline = steady_clock::now() + deadline_;
  ByteReader header(command);
  header.Take(6);
  const bool repeats = header.TakeU32() != kCcUnseal;
  BackOff back_off(deadline);
  while (true) {
    ASSIGN_OR_RETURN(Bytes response, transport_->Exchange(command, deadline));
    ByteReader reader(response);
    const auto tag = reader.TakeU16();
    const auto size = reader.TakeU32();
    if (!tag || !size || *size != response.size() || response.size() < kHeaderBytes) {
      return ResponseError("the TPM's response has no valid header");
    }
    const bool busy = IsBusy(StripFormatBits(HeaderResponseCode(response)));
    if (!repeats || !busy || !back_off.Wait()) return response;
  }
}

Result<Reply> CommandChannel::Run(const Command& command, const Authorization& authorization) {
  AuthSession* const session = authorization.session;
  const bool authorized = session != nullptr || authorization.empty_password;
  if (session != nullptr) RETURN_IF_ERROR(session->BeginCommand(random_));

  Bytes parameters;
  if (command.secret_parameter != nullptr) {
    RETURN_IF_ERROR(session->EncryptFirstParameter(*command.secret_parameter));
    AppendTpm2b(parameters, command.secret_parameter->Expose());  // ciphertext by now
  }
  AppendBytes(parameters, command.parameters);

  Bytes body;
  for (const Entity& entity : command.handles) AppendU32(body, entity.handle);
  if (authorized) {
    const Bytes32 cp_hash = CommandHash(command, parameters);
    ASSIGN_OR_RETURN(const Bytes area, AuthorizationArea(authorization, cp_hash));
    AppendU32(body, static_cast<std::uint32_t>(area.size()));
    AppendBytes(body, area);
  }
  AppendBytes(body, parameters);

  Bytes bytes;
  AppendU16(bytes, authorized ? kSessions : kNoSessions);
  AppendU32(bytes, static_cast<std::uint32_t>(kHeaderBytes + body.size()));
  AppendU32(bytes, command.code);
  AppendBytes(bytes, body);
  ASSIGN_OR_RETURN(const Bytes response, Transact(bytes));

  const std::uint32_t response_code = HeaderResponseCode(response);
  if (response_code != 0) return ErrorFor(response_code, command.context, command.name);

  ByteReader reader(response);
  const auto tag = reader.TakeU16();
  reader.Take(kHeaderBytes - 2);
  Reply reply;
  if (command.returns_handle) {
    const auto handle = reader.TakeU32();
    if (!handle) return Malformed(command.name);
    reply.handle = *handle;
  }
  // What the command made is not left in the TPM because the rest of the response is no use.
  const auto malformed = [&] {
    if (command.returns_handle) FlushQuietly(reply.handle);
    return Malformed(command.name);
  };
  if (tag != (authorized ? kSessions : kNoSessions)) return malformed();
  if (!authorized) {
    reply.parameters = ToBytes(*reader.Take(reader.remaining()));
    return reply;
  }
  const auto parameters_size = reader.TakeU32();
  if (!parameters_size) return malformed();
  const auto reply_parameters = reader.Take(*parameters_size);
  if (session != nullptr && authorization.empty_password) {
    // What answers the password: an empty nonce, the attributes, an empty HMAC.
    const auto nothing = reader.Take(5);
    constexpr std::uint8_t kAnswer[] = {0, 0, kContinueSession, 0, 0};
    if (!nothing || !std::equal(nothing->begin(), nothing->end(), std::begin(kAnswer))) {
      return malformed();
    }
  }
  const auto nonce = TakeTpm2b(reader);
  const auto attributes = reader.TakeU8();
  const auto hmac = TakeTpm2b(reader);
  if (!reply_parameters || !nonce || !attributes || !hmac || !reader.AtEnd()) return malformed();
  reply.parameters = ToBytes(*reply_parameters);
  if (session != nullptr) {
    Bytes prefix;
    AppendU32(prefix, response_code);
    AppendU32(prefix, command.code);
    RETURN_IF_ERROR(
        session->AcceptResponse(Sha256({prefix, reply.parameters}), *nonce, *attributes, *hmac));
  }
  return reply;
}

Result<AuthSession> CommandChannel::StartSession(SessionType type, const Entity* salt_key,
                                                 const P256Point* salt_point) {
  Bytes32 nonce_caller{};
  RETURN_IF_ERROR(random_.Fill(nonce_caller));
  EccSecret salt;
  if (salt_key != nullptr) {
    ASSIGN_OR_RETURN(salt, MakeEccSecret(*salt_point, "SECRET"));
  } else {
    AppendTpm2b(salt.encrypted, {});
  }
  Command command{.code = kCcStartAuthSession,
                  .name = "TPM2_StartAuthSession",
                  .context = salt_key != nullptr ? Context::kSrk : Context::kAny,
                  .returns_handle = true};
  command.handles = {{salt_key != nullptr ? salt_key->handle : kRhNull, {}}, {kRhNull, {}}};
  AppendTpm2b(command.parameters, nonce_caller);
  AppendBytes(command.parameters, salt.encrypted);
  command.parameters.push_back(static_cast<std::uint8_t>(type));
  constexpr std::uint8_t kAes128Cfb[] = {0x00, 0x06, 0x00, 0x80, 0x00, 0x43};
  constexpr std::uint8_t kSha256[] = {0x00, 0x0b};
  AppendBytes(command.parameters, kAes128Cfb);
  AppendBytes(command.parameters, kSha256);
  ASSIGN_OR_RETURN(const Reply reply, Run(command));
  ByteReader reader(reply.parameters);
  const auto nonce_tpm = TakeTpm2b(reader);
  if (!nonce_tpm || nonce_tpm->size() < 16 || !reader.AtEnd()) {
    FlushQuietly(reply.handle);
    return Malformed(command.name);
  }
  auto session = AuthSession::Make(reply.handle, salt.seed, nonce_caller, ToBytes(*nonce_tpm));
  if (!session) FlushQuietly(reply.handle);
  return session;
}

Status CommandChannel::Flush(std::uint32_t handle) {
  Command command{.code = kCcFlushContext, .name = "TPM2_FlushContext"};
  AppendU32(command.parameters, handle);  // a parameter, not a handle: Part 3, 28.4
  RETURN_IF_ERROR(Run(command));
  return Ok();
}

void CommandChannel::FlushQuietly(std::uint32_t handle) {
  // The caller already has an error to report, or what it came for.
  if (auto flushed = Flush(handle); !flushed) return;
}

}  // namespace keyescrow::tpm
