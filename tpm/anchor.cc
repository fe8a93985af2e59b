#include "tpm/anchor.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "envelope/base/pause_point.h"
#include "tpm/device_impl.h"
#include "tpm/marshal.h"
#include "tpm/seal.h"

namespace keyescrow::tpm {
namespace {

constexpr std::size_t kAuthBytes = 32;
constexpr std::uint16_t kCounterBytes = 8;
constexpr std::uint32_t kNvDefined = 0x14c;  // TPM_RC
constexpr std::uint32_t kCapHandles = 0x01;

Error Malformed(std::string_view command) {
  return ResponseError("the TPM's response to " + std::string(command) + " does not parse");
}

// Counter is the index in use: one HMAC session for all its commands. The session is unsalted: its
// HMAC key is the auth value of 256 random bits, which no listener guesses.
class Counter {
 public:
  Counter(CommandChannel& channel, std::uint32_t index, std::string_view origin, bool written)
      : channel_(channel),
        origin_(origin),
        entity_{index, envelope::AnchorIndexName(index, origin, written)} {}

  // SetWritten: the first count changes the index's Name.
  void SetWritten(bool written) {
    entity_.name = envelope::AnchorIndexName(entity_.handle, origin_, written);
  }

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
  std::string origin_;
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

Status Undefine(CommandChannel& channel, std::uint32_t index) {
  const Command command{.code = kCcNvUndefineSpace,
                        .name = "TPM2_NV_UndefineSpace",
                        .context = Context::kOwner,
                        .handles = {{kRhOwner, {}}, {index, {}}}};
  RETURN_IF_ERROR(channel.Run(command, EmptyPassword()));
  return Ok();
}

// ProbeOrigin is the log's under another name: a probe is never taken for its counter.
std::string ProbeOrigin(std::string_view origin) {
  return std::string(origin) + std::string("\0probe", 6);
}

// HighestCount makes a counter at `index`, counts once, and removes it: the next one that is made
// starts one above what is returned. Nothing where the handle is taken.
Result<std::optional<std::uint64_t>> HighestCount(Device::Impl& device, std::uint32_t index,
                                                  std::string_view origin,
                                                  const SecretBytes& auth) {
  CommandChannel& channel = device.channel();
  const std::string probe = ProbeOrigin(origin);
  ASSIGN_OR_RETURN(bool defined, Define(device, index, probe, auth));
  if (!defined) {
    ASSIGN_OR_RETURN(const Occupant occupant, WhoseIndex(channel, index, probe));
    if (occupant == Occupant::kAnother) return std::optional<std::uint64_t>();
    RETURN_IF_ERROR(Undefine(channel, index));
    ASSIGN_OR_RETURN(defined, Define(device, index, probe, auth));
    if (!defined) return std::optional<std::uint64_t>();
  }
  Counter counter(channel, index, probe, false);
  RETURN_IF_ERROR(counter.Increment(auth));
  counter.SetWritten(true);
  ASSIGN_OR_RETURN(const std::uint64_t value, counter.Read(auth));
  RETURN_IF_ERROR(counter.Close());
  PausePoint("anchor-probed");
  RETURN_IF_ERROR(Undefine(channel, index));
  return std::optional(value);
}

// IndexesInUse lists the handles of the range that are taken. Source: Part 3, TPM2_GetCapability.
Result<std::vector<std::uint32_t>> IndexesInUse(CommandChannel& channel) {
  Command command{.code = kCcGetCapability, .name = "TPM2_GetCapability"};
  AppendU32(command.parameters, kCapHandles);
  AppendU32(command.parameters, kFirstAnchorIndex);
  AppendU32(command.parameters, kNumAnchorIndexes);
  ASSIGN_OR_RETURN(const Reply reply, channel.Run(command));
  ByteReader reader(reply.parameters);
  const auto more = reader.TakeU8();
  const auto capability = reader.TakeU32();
  const auto size = reader.TakeU32();
  if (!more || capability != kCapHandles || !size || reader.remaining() != 4ULL * *size) {
    return Malformed(command.name);
  }
  std::vector<std::uint32_t> handles;
  while (!reader.AtEnd()) {
    const std::uint32_t handle = *reader.TakeU32();
    if (handle >= kFirstAnchorIndex && handle - kFirstAnchorIndex < kNumAnchorIndexes) {
      handles.push_back(handle);
    }
  }
  return handles;
}

}  // namespace

struct TpmAnchor::Impl {
  std::shared_ptr<Device> device;
  AnchorBlob blob;
  SecretBytes auth;
  std::string origin;
  Counter counter;
  std::uint64_t base;   // 0: it has counted
  bool is_new = false;  // it was seen not to have counted
  bool was_read = false;
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
  ASSIGN_OR_RETURN(const std::vector<AnchorIndex> ours, Find(device, origin));
  for (const AnchorIndex& index : ours) {
    if (!index.counted) RETURN_IF_ERROR(Undefine(channel, index.handle));
  }
  for (std::uint32_t offset = 0; offset < kNumAnchorIndexes; ++offset) {
    const std::uint32_t index = kFirstAnchorIndex + offset;
    ASSIGN_OR_RETURN(const auto base, HighestCount(device.impl(), index, origin, auth));
    if (!base) continue;
    ASSIGN_OR_RETURN(const bool defined, Define(device.impl(), index, origin, auth));
    if (!defined) continue;
    PausePoint("anchor-defined");
    return CreatedAnchor{{{key.object_public, index}, key.object_private}, *base};
  }
  return Error(ErrorCode::kAnchorNoIndex, Action::kCheckSystemState,
               "all 16 indexes for a log's counter are taken (0x01804b45 to 0x01804b54)",
               "'tpm2_nvundefine -C o 0x1804b45' removes one of an agent that is gone");
}

Result<std::vector<AnchorIndex>> TpmAnchor::Find(Device& device, std::string_view origin) {
  CommandChannel& channel = device.impl().channel();
  ASSIGN_OR_RETURN(const std::vector<std::uint32_t> handles, IndexesInUse(channel));
  std::vector<AnchorIndex> ours;
  for (const std::uint32_t handle : handles) {
    ASSIGN_OR_RETURN(const Occupant occupant, WhoseIndex(channel, handle, origin));
    if (occupant != Occupant::kAnother) ours.push_back({handle, occupant == Occupant::kOurs});
  }
  return ours;
}

Status TpmAnchor::Remove(Device& device, std::uint32_t handle, std::string_view origin) {
  CommandChannel& channel = device.impl().channel();
  ASSIGN_OR_RETURN(const Occupant occupant, WhoseIndex(channel, handle, origin));
  if (occupant == Occupant::kAnother) {
    return Error(ErrorCode::kAnchorMissing, Action::kCheckSystemState,
                 "the index is not this log's, and is left alone", "run the command again");
  }
  return Undefine(channel, handle);
}

Result<std::unique_ptr<TpmAnchor>> TpmAnchor::Open(std::shared_ptr<Device> device, AnchorBlob blob,
                                                   std::uint64_t base, SecretBytes auth,
                                                   std::string origin) {
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
                                                std::move(origin), std::move(counter), base})));
}

const envelope::AnchorKey& TpmAnchor::Key() const { return impl_->blob.key; }

Result<std::uint64_t> TpmAnchor::Read() {
  if (impl_->is_new) return impl_->base;
  impl_->was_read = true;
  auto value = impl_->counter.Read(impl_->auth);
  if (value || impl_->base == 0 || value.error().code() != ErrorCode::kAnchorMissing) return value;
  // By the Name of a counter that has counted, one that has not refuses every auth value.
  const auto occupant =
      WhoseIndex(impl_->device->impl().channel(), impl_->blob.key.nv_index, impl_->origin);
  if (!occupant || *occupant != Occupant::kOursNew) return value;
  impl_->is_new = true;
  impl_->counter.SetWritten(false);
  return impl_->base;
}

Result<std::uint64_t> TpmAnchor::Increment(std::uint64_t before) {
  if (impl_->base != 0 && !impl_->was_read) RETURN_IF_ERROR(Read());  // it may be new
  const Status counted = impl_->counter.Increment(impl_->auth);
  // The TPM's refusal says that it did nothing. Where its answer was lost or changed it may have
  // counted: it is asked, and never told twice.
  if (!counted && counted.error().code() != ErrorCode::kTpmResponse) return counted.error();
  if (impl_->is_new) {
    impl_->is_new = false;
    impl_->counter.SetWritten(true);
    auto now = Read();  // where it begins is for the TPM to say
    if (impl_->is_new) return counted ? Malformed("TPM2_NV_Increment") : counted.error();
    return now;
  }
  if (counted) return before + 1;
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
