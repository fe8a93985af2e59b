// UnsealObject: DA state → [Import] → Load → StartAuthSession → policy → Unseal → FlushContext.
#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "envelope/base/hash.h"
#include "tpm/back_off.h"
#include "tpm/marshal.h"
#include "tpm/seal.h"

namespace keyescrow::tpm {
namespace {

constexpr int kMaxPcrRaces = 30;
constexpr std::chrono::seconds kBusyPatience{5};
constexpr std::uint32_t kPcrChanged = 0x128;
constexpr std::uint32_t kRetry = 0x922;  // TPM_RC_RETRY
constexpr std::uint8_t kEcdsaSha256[] = {0x00, 0x18, 0x00, 0x0b};

// Guard flushes what is still in the TPM when the scope is left.
class Guard {
 public:
  Guard(CommandChannel& channel, std::uint32_t handle) : channel_(channel), handle_(handle) {}
  ~Guard() {
    if (armed_) channel_.FlushQuietly(handle_);
  }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  void Disarm() { armed_ = false; }

 private:
  CommandChannel& channel_;
  std::uint32_t handle_;
  bool armed_ = true;
};

// SignedPolicy: what PolicyAuthorize needs.
struct SignedPolicy {
  Bytes approved;  // 32 bytes
  Bytes key_name;
  Bytes ticket;  // TPMT_TK_VERIFIED
};

struct Pcrs {
  std::vector<std::uint8_t> numbers;
  Bytes expected_digest;  // what PolicyPCR compares with; empty for a signed policy
};

Error Damaged(std::string message) {
  return Error(ErrorCode::kFactorBad, Action::kFixInput, std::move(message),
               "the envelope is damaged or was edited: use another copy of it");
}

Status CheckRecord(const envelope::Tpm2Record& record, const envelope::UnsealRequest& request,
                   const std::optional<std::vector<std::uint8_t>>& pcrs) {
  const bool shape = record.object_public.size() == 80 && record.object_private.size() >= 3 &&
                     (record.seed.empty() || record.seed.size() == 70) &&
                     (record.pcrs.empty() || pcrs.has_value()) &&
                     (record.signer.empty() || (record.signer.size() == 91 && pcrs.has_value()));
  if (!shape) return Damaged("the TPM factor's record has a wrong shape");
  const Bytes32 policy = envelope::Tpm2AuthPolicy(pcrs.value_or(std::vector<std::uint8_t>()),
                                                  record.pcr_digest, record.signer);
  const Bytes expected = SealedArea(!record.seed.empty(), record.auth, policy,
                                    ByteView(record.object_public).last(32));
  if (expected != record.object_public) {
    return Damaged("the TPM factor's object is not the one that its record describes");
  }
  if (record.auth != (request.auth_value != nullptr)) {
    return Error(ErrorCode::kFactorMissing, Action::kFixInput,
                 record.auth ? "the path needs a password" : "the path takes no password",
                 "give the factors that the path names");
  }
  return Ok();
}

// ImportObject turns a duplicate wrapped offline into a blob of this SRK's.
// Source: Part 3, TPM2_Import.
Result<Bytes> ImportObject(CommandChannel& channel, const Srk& srk,
                           const envelope::Tpm2Record& record) {
  Command command{
      .code = kCcImport, .name = "TPM2_Import", .context = Context::kSrk, .handles = {srk.entity}};
  AppendTpm2b(command.parameters, {});  // no inner wrapping key
  AppendBytes(command.parameters, record.object_public);
  AppendBytes(command.parameters, record.object_private);
  AppendBytes(command.parameters, record.seed);
  AppendU16(command.parameters, 0x0010);  // no inner symmetric algorithm
  ASSIGN_OR_RETURN(const Reply reply, channel.Run(command, EmptyPassword()));
  ByteReader reader(reply.parameters);
  const auto object_private = TakeTpm2b(reader);
  if (!object_private) {
    return ResponseError("the TPM's response to TPM2_Import does not parse");
  }
  Bytes tpm2b;
  AppendTpm2b(tpm2b, *object_private);
  return tpm2b;
}

// VerifyPolicySignature has the TPM check the signature over the policy of the present PCRs:
// PCR_Read, LoadExternal, VerifySignature, FlushContext. Under the owner hierarchy: a NULL ticket
// is useless.
Result<SignedPolicy> VerifyPolicySignature(Device::Impl& device,
                                           const std::vector<std::uint8_t>& pcrs,
                                           const Bytes& signer_spki, const Bytes64& signature) {
  CommandChannel& channel = device.channel();
  ASSIGN_OR_RETURN(const Bytes32 pcr_digest, device.PcrDigest(pcrs));
  Bytes code;
  AppendU32(code, kCcPolicyPcr);
  SignedPolicy result;
  result.approved =
      ToBytes(Sha256({Bytes32{}, code, envelope::MarshalPcrSelection(pcrs), pcr_digest}));

  constexpr std::uint8_t kArea[] = {0x00, 0x23, 0x00, 0x0b, 0x00, 0x06, 0x00, 0x40, 0x00,
                                    0x00, 0x00, 0x10, 0x00, 0x10, 0x00, 0x03, 0x00, 0x10};
  Bytes area = ToBytes(kArea);
  AppendTpm2b(area, ByteView(signer_spki).subspan(27, 32));
  AppendTpm2b(area, ByteView(signer_spki).subspan(59, 32));
  Bytes signer_public;
  AppendTpm2b(signer_public, area);
  result.key_name = envelope::Tpm2Name(signer_public);

  Command load{.code = kCcLoadExternal, .name = "TPM2_LoadExternal", .returns_handle = true};
  AppendTpm2b(load.parameters, {});
  AppendBytes(load.parameters, signer_public);
  AppendU32(load.parameters, kRhOwner);
  ASSIGN_OR_RETURN(const Reply loaded, channel.Run(load));
  const Guard guard(channel, loaded.handle);

  Command verify{.code = kCcVerifySignature,
                 .name = "TPM2_VerifySignature",
                 .handles = {{loaded.handle, result.key_name}}};
  AppendTpm2b(verify.parameters, Sha256(result.approved));  // aHash, policyRef empty
  AppendBytes(verify.parameters, kEcdsaSha256);
  AppendTpm2b(verify.parameters, ByteView(signature).first(32));
  AppendTpm2b(verify.parameters, ByteView(signature).last(32));
  ASSIGN_OR_RETURN(const Reply verified, channel.Run(verify));
  result.ticket = verified.parameters;
  return result;
}

Status RunPolicy(CommandChannel& channel, std::uint32_t session, const Pcrs& pcrs,
                 const std::optional<SignedPolicy>& signed_policy) {
  if (!pcrs.numbers.empty()) {
    // With the expected digest a stale PCR fails here, before any authorisation.
    Command command{.code = kCcPolicyPcr,
                    .name = "TPM2_PolicyPCR",
                    .context = Context::kPcrPolicy,
                    .handles = {{session, {}}}};
    AppendTpm2b(command.parameters, pcrs.expected_digest);
    AppendBytes(command.parameters, envelope::MarshalPcrSelection(pcrs.numbers));
    RETURN_IF_ERROR(channel.Run(command));
  }
  if (signed_policy) {
    Command command{.code = kCcPolicyAuthorize,
                    .name = "TPM2_PolicyAuthorize",
                    .context = Context::kPcrPolicy,
                    .handles = {{session, {}}}};
    AppendTpm2b(command.parameters, signed_policy->approved);
    AppendTpm2b(command.parameters, {});  // policyRef
    AppendTpm2b(command.parameters, signed_policy->key_name);
    AppendBytes(command.parameters, signed_policy->ticket);
    RETURN_IF_ERROR(channel.Run(command));
  }
  const Command command{
      .code = kCcPolicyAuthValue, .name = "TPM2_PolicyAuthValue", .handles = {{session, {}}}};
  RETURN_IF_ERROR(channel.Run(command));
  return Ok();
}

// TryGuard stands before every repetition of a TPM2_Unseal. That the TPM did not begin it is what
// its answer says, which anybody on the bus can have written; whether it counted a try is asked.
class TryGuard {
 public:
  // `before` is null where no try is counted.
  TryGuard(Device::Impl& device, const DaState* before) : device_(device), before_(before) {}

  // Call it before each TPM2_Unseal. `answer` is that of the one before it in this session, or 0.
  // 0x922 is what every TPM says at the first use after a boot: it is believed once.
  Status CheckNoneCounted(std::uint32_t answer = 0) {
    if (before_ == nullptr || !std::exchange(was_sent_, true)) return Ok();
    if (StripFormatBits(answer) == kRetry && !std::exchange(believed_, true)) return Ok();
    ASSIGN_OR_RETURN(const DaState now, device_.ReadDaState());
    if (!now.in_lockout && now.counter <= before_->counter) return Ok();
    return ResponseError(
        "the TPM counted a wrong password, though it answered that the command was not begun");
  }

 private:
  Device::Impl& device_;
  const DaState* before_;
  bool was_sent_ = false;
  bool believed_ = false;
};

// UnsealOnce: one salted policy session. It is not bound to the object: the auth value belongs into
// the HMAC key, once.
Result<SecretBytes> UnsealOnce(CommandChannel& channel, const Srk& srk, const Entity& object,
                               const SecretBytes* auth_value, const Pcrs& pcrs,
                               const std::optional<SignedPolicy>& signed_policy, TryGuard& tries) {
  ASSIGN_OR_RETURN(AuthSession session,
                   channel.StartSession(SessionType::kPolicy, &srk.entity, &srk.point));
  Guard guard(channel, session.handle());
  RETURN_IF_ERROR(RunPolicy(channel, session.handle(), pcrs, signed_policy));
  if (auth_value != nullptr) RETURN_IF_ERROR(session.SetAuthValue(*auth_value));
  const Command command{.code = kCcUnseal,
                        .name = "TPM2_Unseal",
                        .context = auth_value != nullptr ? Context::kPassword : Context::kAny,
                        .handles = {object}};
  BackOff back_off(std::chrono::steady_clock::now() + kBusyPatience);
  RETURN_IF_ERROR(tries.CheckNoneCounted());
  auto unsealed = channel.Run(command, {.session = &session, .attributes = kEncryptResponse});
  while (!unsealed && IsBusy(ResponseCode(unsealed.error())) && back_off.Wait()) {
    RETURN_IF_ERROR(tries.CheckNoneCounted(ResponseCode(unsealed.error())));
    unsealed = channel.Run(command, {.session = &session, .attributes = kEncryptResponse});
  }
  ASSIGN_OR_RETURN(const Reply reply, std::move(unsealed));
  guard.Disarm();  // no continueSession: the TPM has ended it
  ByteReader reader(reply.parameters);
  const auto contents = TakeTpm2b(reader);
  if (!contents || !reader.AtEnd()) {
    return ResponseError("the TPM's response to TPM2_Unseal does not parse");
  }
  return session.DecryptFirstParameter(*contents);
}

// ExplainPcrMismatch says what the PCRs are now; a digest alone cannot tell which of them differs.
Error ExplainPcrMismatch(Device::Impl& device, const envelope::Tpm2Record& record,
                         const std::vector<std::uint8_t>& pcrs, Error error) {
  if (!record.pcr_digest || pcrs.empty()) return error;
  const auto now = device.PcrDigest(pcrs);
  if (!now) return error;
  const std::string sealed = ToHex(*record.pcr_digest);
  const std::string text =
      *now == *record.pcr_digest
          ? fmt::format("the object's policy is not met although {} has the sealed value",
                        record.pcrs)
          : fmt::format("the PCR digest of {} is {} now, sealed to {}", record.pcrs, ToHex(*now),
                        sealed);
  return Error(error.code(), error.action(), text, error.hint())
      .WithNative(error.native_domain(), error.native_code());
}

// RefuseIfLocked: no try is spent on a locked TPM, and the last one not unasked.
Status RefuseIfLocked(const DaState& state, bool use_last_try) {
  if (state.in_lockout || state.counter >= state.max_tries) return LockoutError(state);
  if (state.counter + 1 >= state.max_tries && !use_last_try) return LastTryError(state);
  return Ok();
}

}  // namespace

Result<SecretBytes> UnsealObject(Device::Impl& device, const envelope::Tpm2Record& record,
                                 const envelope::UnsealRequest& request) {
  CommandChannel& channel = device.channel();
  const auto parsed = envelope::ParsePcrSelection(record.pcrs);
  RETURN_IF_ERROR(CheckRecord(record, request, parsed));
  Pcrs pcrs;
  if (parsed) pcrs.numbers = *parsed;
  if (record.signer.empty() && record.pcr_digest) {
    pcrs.expected_digest = ToBytes(*record.pcr_digest);
  }
  {
    ASSIGN_OR_RETURN(const Srk* srk, device.root().Get());
    if (srk->tpm2b_public != record.parent_public) {
      return Error(ErrorCode::kTpmWrongDevice, Action::kWrongDevice,
                   fmt::format("the path was made for the TPM of host '{}', which is not this one, "
                               "or this one was cleared",
                               record.host),
                   "use a portable path (one without tpm)");
    }
  }
  DaState da;
  if (record.auth) {
    ASSIGN_OR_RETURN(da, device.ReadDaState());
    RETURN_IF_ERROR(RefuseIfLocked(da, request.use_last_try));
  }
  std::optional<SignedPolicy> signed_policy;
  if (!record.signer.empty()) {
    if (request.pcr_policy_signature == nullptr) {
      return Error(ErrorCode::kTpmPolicySignature, Action::kFixInput,
                   "the path needs a signed PCR policy, and none was given",
                   "give --pcr-policy-signature FILE: what its signer made for the present PCRs");
    }
    ASSIGN_OR_RETURN(signed_policy, VerifyPolicySignature(device, pcrs.numbers, record.signer,
                                                          *request.pcr_policy_signature));
  }
  TryGuard tries(device, record.auth ? &da : nullptr);
  auto secret = device.root().With([&](const Srk& srk) -> Result<SecretBytes> {
    Bytes object_private = record.object_private;
    if (!record.seed.empty()) {
      ASSIGN_OR_RETURN(object_private, ImportObject(channel, srk, record));
    }
    ASSIGN_OR_RETURN(const Entity object,
                     LoadObject(channel, srk, record.object_public, object_private, Context::kSrk));
    const Guard guard(channel, object.handle);
    const int max_races = pcrs.numbers.empty() ? 0 : kMaxPcrRaces;
    for (int race = 0;; ++race) {
      auto result =
          UnsealOnce(channel, srk, object, request.auth_value, pcrs, signed_policy, tries);
      if (result || race == max_races || ResponseCode(result.error()) != kPcrChanged) {
        return result;
      }
    }
  });
  if (secret) return secret;
  Error error = std::move(secret).error();
  if (error.code() == ErrorCode::kTpmPcrMismatch) {
    return ExplainPcrMismatch(device, record, pcrs.numbers, std::move(error));
  }
  if (error.code() == ErrorCode::kTpmWrongAuth && record.auth) {
    return WrongAuthError(da, static_cast<std::uint32_t>(error.native_code()));
  }
  return error;
}

}  // namespace keyescrow::tpm
