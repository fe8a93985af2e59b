#include "tpm/anchor.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "tpm/device_impl.h"
#include "tpm/marshal.h"
#include "tpm/seal.h"

namespace keyescrow::tpm {
namespace {

constexpr std::size_t kAuthBytes = 32;
constexpr std::uint16_t kCounterBytes = 8;
constexpr std::uint32_t kNvDefined = 0x14c;  // TPM_RC

Error Malformed(std::string_view command) {
  return ResponseError("the TPM's response to " + std::string(command) + " does not parse");
}

// Counter is the index in use: one HMAC session for all its commands. The session is unsalted: its
// HMAC key is the auth value of 256 random bits, which no listener guesses.
class Counter {
 public:
  Counter(CommandChannel& channel, std::uint32_t index, std::string_view origin, bool written)
      : channel_(channel), entity_{index, envelope::AnchorIndexName(index, origin, written)} {}

  Result<std::uint64_t> Read(const SecretBytes& auth) {
    Command command{.code = kCcNvRead,
                    .name = "TPM2_NV_Read",
                    .context = Context::kAnchor,
                    .handles = {entity_, entity_}};
    AppendU16(command.parameters, kCounterBytes);
    AppendU16(command.parameters, 0);  // offset
    ASSIGN_OR_RETURN(const Reply reply, Run(command, auth, kContinueSession));
    ByteReader reader(reply.parameters);
    const auto data = TakeTpm2b(reader);
    if (!data || data->size() != kCounterBytes || !reader.AtEnd()) return Malformed(command.name);
    std::uint64_t value = 0;
    for (const std::uint8_t byte : *data) value = value << 8 | byte;
    return value;
  }

  Status Increment(const SecretBytes& auth) {
    const Command command{.code = kCcNvIncrement,
                          .name = "TPM2_NV_Increment",
                          .context = Context::kAnchor,
                          .handles = {entity_, entity_}};
    RETURN_IF_ERROR(Run(command, auth, kContinueSession));
    return Ok();
  }

  // Certify authorises `key` by its empty auth, and the index by the session, which ends.
  Result<envelope::AnchorStatement> Certify(const SecretBytes& auth, const Entity& key,
                                            const Bytes32& qualifying_data) {
    Command command{.code = kCcNvCertify,
                    .name = "TPM2_NV_Certify",
                    .context = Context::kAnchor,
                    .handles = {key, entity_, entity_}};
    AppendTpm2b(command.parameters, qualifying_data);
    AppendU16(command.parameters, 0x0010);  // the key's own scheme
    AppendU16(command.parameters, kCounterBytes);
    AppendU16(command.parameters, 0);  // offset
    ASSIGN_OR_RETURN(const Reply reply, Run(command, auth, 0, true));
    ByteReader reader(reply.parameters);
    const auto attest = TakeTpm2b(reader);
    const auto signature = TakeEcdsaSignature(reader);
    if (!attest || !signature || !reader.AtEnd()) return Malformed(command.name);
    return envelope::AnchorStatement{ToBytes(*attest), *signature};
  }

  Status Close() {
    if (!session_) return Ok();
    const std::uint32_t handle = session_->handle();
    session_.reset();
    return channel_.Flush(handle);
  }

 private:
  Result<Reply> Run(const Command& command, const SecretBytes& auth, std::uint8_t attributes,
                    bool key_first = false) {
    if (!session_) {
      ASSIGN_OR_RETURN(AuthSession started,
                       channel_.StartSession(SessionType::kHmac, nullptr, nullptr));
      session_.emplace(std::move(started));
      RETURN_IF_ERROR(session_->SetAuthValue(auth));
    }
    auto reply = channel_.Run(
        command, {.empty_password = key_first, .session = &*session_, .attributes = attributes});
    if (reply && (attributes & kContinueSession) == 0) session_.reset();  // it ended by itself
    if (!reply) {
      // What is not known to have ended is flushed; the next command starts another.
      const Error error = std::move(reply).error();
      if (auto closed = Close(); !closed) return error;
      return error;
    }
    return reply;
  }

  CommandChannel& channel_;
  Entity entity_;
  std::optional<AuthSession> session_;
};

// Define makes the index; false where the handle is taken.
Result<bool> Define(Device::Impl& device, std::uint32_t index, std::string_view origin,
                    const SecretBytes& auth) {
  return device.root().With([&](const Srk& srk) -> Result<bool> {
    CommandChannel& channel = device.channel();
    ASSIGN_OR_RETURN(SecretBytes encrypted, TrimAuthValue(auth));
    ASSIGN_OR_RETURN(AuthSession session,
                     channel.StartSession(SessionType::kHmac, &srk.entity, &srk.point));
    Command command{.code = kCcNvDefineSpace,
                    .name = "TPM2_NV_DefineSpace",
                    .context = Context::kOwner,
                    .handles = {{kRhOwner, {0x40, 0x00, 0x00, 0x01}}},
                    .secret_parameter = &encrypted};
    command.parameters = envelope::AnchorIndexPublic(index, origin, false);
    // No continueSession: the TPM ends the session with this command.
    auto reply = channel.Run(command, {.session = &session, .attributes = kDecryptCommand});
    if (reply) return true;
    channel.FlushQuietly(session.handle());
    if (ResponseCode(reply.error()) == kNvDefined) return false;
    if (ResponseCode(reply.error()) == 0x14b) {
      return ErrorFor(0x14b, Context::kAnchor, command.name);
    }
    return std::move(reply).error();
  });
}

enum class Occupant : std::uint8_t { kAnother, kOursNew, kOurs };

// WhoseIndex compares the public area at a handle with this log's.
Result<Occupant> WhoseIndex(CommandChannel& channel, std::uint32_t index, std::string_view origin) {
  const Command command{
      .code = kCcNvReadPublic, .name = "TPM2_NV_ReadPublic", .handles = {{index, {}}}};
  ASSIGN_OR_RETURN(const Reply reply, channel.Run(command));
  ByteReader reader(reply.parameters);
  const auto area = TakeTpm2b(reader);
  if (!area) return Malformed(command.name);
  Bytes found;
  AppendTpm2b(found, *area);
  if (found == envelope::AnchorIndexPublic(index, origin, true)) return Occupant::kOurs;
  if (found == envelope::AnchorIndexPublic(index, origin, false)) return Occupant::kOursNew;
  return Occupant::kAnother;
}

// CountOnce makes the counter readable and returns it.
Result<std::uint64_t> CountOnce(CommandChannel& channel, std::uint32_t index,
                                std::string_view origin, const SecretBytes& auth) {
  {
    Counter fresh(channel, index, origin, false);
    RETURN_IF_ERROR(fresh.Increment(auth));
    RETURN_IF_ERROR(fresh.Close());
  }
  Counter counter(channel, index, origin, true);
  ASSIGN_OR_RETURN(const std::uint64_t value, counter.Read(auth));
  RETURN_IF_ERROR(counter.Close());
  return value;
}

// TakeOver uses an index of this log that an earlier, killed Create left; nothing where its auth
// value is not ours, for that is a counter of this log's former life.
Result<std::optional<std::uint64_t>> TakeOver(CommandChannel& channel, std::uint32_t index,
                                              std::string_view origin, const SecretBytes& auth) {
  ASSIGN_OR_RETURN(const Occupant occupant, WhoseIndex(channel, index, origin));
  if (occupant == Occupant::kAnother) return std::optional<std::uint64_t>();
  auto value = [&]() -> Result<std::uint64_t> {
    if (occupant == Occupant::kOursNew) return CountOnce(channel, index, origin, auth);
    Counter counter(channel, index, origin, true);
    ASSIGN_OR_RETURN(const std::uint64_t read, counter.Read(auth));
    RETURN_IF_ERROR(counter.Close());
    return read;
  }();
  if (value) return std::optional(*value);
  if (value.error().code() == ErrorCode::kAnchorMissing) return std::optional<std::uint64_t>();
  return std::move(value).error();
}

}  // namespace

struct TpmAnchor::Impl {
  std::shared_ptr<Device> device;
  AnchorBlob blob;
  SecretBytes auth;
  std::string origin;
  Counter counter;
};

TpmAnchor::TpmAnchor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

TpmAnchor::~TpmAnchor() {
  if (auto closed = Close(); !closed) return;  // the TPM is gone: so is what it held
}

Result<CreatedAnchor> TpmAnchor::Create(Device& device, const SecretBytes& auth,
                                        std::string_view origin) {
  if (auth.size() != kAuthBytes) {
    return Error(ErrorCode::kInternal, Action::kReportBug,
                 "a counter's auth value must have 32 bytes", "report this bug");
  }
  CommandChannel& channel = device.impl().channel();
  ASSIGN_OR_RETURN(const CreatedObject key, device.impl().root().With([&](const Srk& srk) {
    return CreateObject(channel, srk, nullptr, nullptr, envelope::AttestationTemplate());
  }));
  if (!envelope::ParseAttestationKey(key.object_public)) {
    return ResponseError("the TPM made another key than the one asked for");
  }
  for (std::uint32_t offset = 0; offset < kNumAnchorIndexes; ++offset) {
    const std::uint32_t index = kFirstAnchorIndex + offset;
    CreatedAnchor created{{{key.object_public, index}, key.object_private}, 0};
    ASSIGN_OR_RETURN(const bool defined, Define(device.impl(), index, origin, auth));
    if (defined) {
      ASSIGN_OR_RETURN(created.base, CountOnce(channel, index, origin, auth));
      return created;
    }
    ASSIGN_OR_RETURN(const auto taken_over, TakeOver(channel, index, origin, auth));
    if (taken_over) {
      created.base = *taken_over;
      return created;
    }
  }
  return Error(ErrorCode::kAnchorNoIndex, Action::kCheckSystemState,
               "all 16 indexes for a log's counter are taken (0x01804b45 to 0x01804b54)",
               "'tpm2_nvundefine -C o 0x1804b45' removes one of an agent that is gone");
}

Result<std::unique_ptr<TpmAnchor>> TpmAnchor::Open(std::shared_ptr<Device> device, AnchorBlob blob,
                                                   SecretBytes auth, std::string origin) {
  const bool in_range = blob.key.nv_index >= kFirstAnchorIndex &&
                        blob.key.nv_index < kFirstAnchorIndex + kNumAnchorIndexes;
  if (!envelope::ParseAttestationKey(blob.key.attestation_public) || !in_range ||
      auth.size() != kAuthBytes || blob.attestation_private.size() < 3) {
    return Error(ErrorCode::kAnchorMissing, Action::kCheckSystemState,
                 "the stored anchor is not one of the expected kind",
                 "restore the agent's state from its backup");
  }
  Counter counter(device->impl().channel(), blob.key.nv_index, origin, true);
  return std::unique_ptr<TpmAnchor>(
      new TpmAnchor(std::make_unique<Impl>(Impl{std::move(device), std::move(blob), std::move(auth),
                                                std::move(origin), std::move(counter)})));
}

const envelope::AnchorKey& TpmAnchor::Key() const { return impl_->blob.key; }

Result<std::uint64_t> TpmAnchor::Read() { return impl_->counter.Read(impl_->auth); }

Result<std::uint64_t> TpmAnchor::Increment(std::uint64_t before) {
  const Status counted = impl_->counter.Increment(impl_->auth);
  if (counted) return before + 1;
  // The TPM's refusal says that it did nothing. Where its answer was lost or changed it may have
  // counted: it is asked, and never told twice.
  if (counted.error().code() != ErrorCode::kTpmResponse) return counted.error();
  ASSIGN_OR_RETURN(const std::uint64_t now, Read());
  if (now != before + 1) return counted.error();
  return now;
}

Result<envelope::AnchorStatement> TpmAnchor::Certify(const Bytes32& checkpoint_hash) {
  CommandChannel& channel = impl_->device->impl().channel();
  ASSIGN_OR_RETURN(const Entity key, impl_->device->impl().root().With([&](const Srk& srk) {
    return LoadObject(channel, srk, impl_->blob.key.attestation_public,
                      impl_->blob.attestation_private, Context::kAnchor);
  }));
  auto statement = impl_->counter.Certify(impl_->auth, key, checkpoint_hash);
  channel.FlushQuietly(key.handle);
  if (!statement) return statement;
  ASSIGN_OR_RETURN(const envelope::AnchorFacts facts,
                   envelope::CheckAnchorStatement(impl_->blob.key, impl_->origin, *statement));
  if (facts.checkpoint_hash != checkpoint_hash) {
    return ResponseError("the TPM certified another checkpoint than the one given");
  }
  return statement;
}

Status TpmAnchor::Close() { return impl_->counter.Close(); }

}  // namespace keyescrow::tpm
