#include "tpm/device_impl.h"

#include <fmt/format.h>

#include "envelope/base/hash.h"
#include "envelope/factor.h"
#include "tpm/marshal.h"

namespace keyescrow::tpm {
namespace {

constexpr std::uint32_t kCapTpmProperties = 6;
constexpr std::uint32_t kPtManufacturer = 0x105;
constexpr std::uint32_t kPtVendorString1 = 0x106;
constexpr std::uint32_t kPtVendorString4 = 0x109;
constexpr std::uint32_t kPtPermanent = 0x200;
constexpr std::uint32_t kPtLockoutCounter = 0x20e;
constexpr std::uint32_t kPtMaxAuthFail = 0x20f;
constexpr std::uint32_t kPtLockoutInterval = 0x210;
constexpr std::uint32_t kPtLockoutRecovery = 0x211;
constexpr std::uint32_t kOwnerAuthSet = 1U << 0;  // TPMA_PERMANENT
constexpr std::uint32_t kLockoutAuthSet = 1U << 2;
constexpr std::uint32_t kInLockout = 1U << 9;

Error MalformedCapability() {
  return ResponseError("the TPM's response to TPM2_GetCapability does not parse");
}

Error MalformedPcrs() {
  return ResponseError("the TPM's response to TPM2_PCR_Read does not parse");
}

void AppendText(std::string& text, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    const char character = static_cast<char>(value >> shift & 0xff);
    if (character >= 0x20 && character <= 0x7e) text += character;
  }
}

std::string Trimmed(std::string text) {
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

}  // namespace

Result<std::vector<Device::Impl::Property>> Device::Impl::ReadProperties(std::uint32_t first,
                                                                         std::uint32_t count) {
  Command command{.code = kCcGetCapability, .name = "TPM2_GetCapability"};
  AppendU32(command.parameters, kCapTpmProperties);
  AppendU32(command.parameters, first);
  AppendU32(command.parameters, count);
  ASSIGN_OR_RETURN(const Reply reply, channel_.Run(command));
  ByteReader reader(reply.parameters);
  const auto more = reader.TakeU8();
  const auto capability = reader.TakeU32();
  const auto size = reader.TakeU32();
  if (!more || capability != kCapTpmProperties || !size || reader.remaining() != 8ULL * *size) {
    return MalformedCapability();
  }
  std::vector<Property> properties;
  while (!reader.AtEnd()) {
    const std::uint32_t property = *reader.TakeU32();
    properties.push_back({property, *reader.TakeU32()});
  }
  return properties;
}

Result<DaState> Device::Impl::ReadDaState() {
  ASSIGN_OR_RETURN(const std::vector<Property> properties, ReadProperties(kPtPermanent, 32));
  DaState state;
  int found = 0;
  for (const Property& entry : properties) {
    switch (entry.property) {
      case kPtPermanent:
        state.owner_auth_set = (entry.value & kOwnerAuthSet) != 0;
        state.lockout_auth_set = (entry.value & kLockoutAuthSet) != 0;
        state.in_lockout = (entry.value & kInLockout) != 0;
        ++found;
        break;
      case kPtLockoutCounter:
        state.counter = entry.value;
        ++found;
        break;
      case kPtMaxAuthFail:
        state.max_tries = entry.value;
        ++found;
        break;
      case kPtLockoutInterval:
        state.interval_s = entry.value;
        ++found;
        break;
      case kPtLockoutRecovery:
        state.recovery_s = entry.value;
        ++found;
        break;
      default: break;
    }
  }
  if (found != 5) return MalformedCapability();
  return state;
}

Result<Bytes32> Device::Impl::PcrDigest(const std::vector<std::uint8_t>& pcrs) {
  std::vector<std::uint8_t> missing = pcrs;
  Bytes values;
  while (!missing.empty()) {
    Command command{.code = kCcPcrRead, .name = "TPM2_PCR_Read"};
    command.parameters = envelope::MarshalPcrSelection(missing);
    ASSIGN_OR_RETURN(const Reply reply, channel_.Run(command));
    ByteReader reader(reply.parameters);
    reader.TakeU32();  // pcrUpdateCounter: a change shows when the policy is used
    const auto selection = reader.Take(command.parameters.size());
    const auto num_digests = reader.TakeU32();
    if (!selection || !num_digests) return MalformedPcrs();
    // The TPM answers with the lowest PCRs that fit, and says which.
    if (*num_digests == 0) {
      return Error(
          ErrorCode::kTpmFailure, Action::kCheckSystemState,
          fmt::format("the TPM has no SHA-256 bank for {}", envelope::FormatPcrSelection(missing)),
          "switch the SHA-256 bank on in the firmware's settings, or bind to no PCRs");
    }
    if (*num_digests > missing.size()) return MalformedPcrs();
    const std::vector<std::uint8_t> answered(missing.begin(), missing.begin() + *num_digests);
    const Bytes expected = envelope::MarshalPcrSelection(answered);
    if (!std::equal(expected.begin(), expected.end(), selection->begin(), selection->end())) {
      return MalformedPcrs();
    }
    for (std::uint32_t index = 0; index < *num_digests; ++index) {
      const auto digest = TakeTpm2b(reader);
      if (!digest || digest->size() != 32) return MalformedPcrs();
      AppendBytes(values, *digest);
    }
    missing.erase(missing.begin(), missing.begin() + *num_digests);
  }
  return Sha256(values);
}

Result<envelope::TpmState> Device::Impl::Inspect() {
  ASSIGN_OR_RETURN(const std::vector<Property> properties, ReadProperties(kPtManufacturer, 16));
  ASSIGN_OR_RETURN(const DaState da, ReadDaState());
  ASSIGN_OR_RETURN(const std::optional<Bytes> at_handle, root_.ReadHandle());
  envelope::TpmState state;
  for (const Property& entry : properties) {
    if (entry.property == kPtManufacturer) AppendText(state.manufacturer, entry.value);
    if (entry.property >= kPtVendorString1 && entry.property <= kPtVendorString4) {
      AppendText(state.vendor, entry.value);
    }
  }
  state.manufacturer = Trimmed(state.manufacturer);
  state.vendor = Trimmed(state.vendor);
  state.simulator = state.manufacturer == "IBM" && state.vendor.starts_with("SW");
  state.lockout_auth_set = da.lockout_auth_set;
  state.owner_auth_set = da.owner_auth_set;
  state.in_lockout = da.in_lockout;
  state.lockout_counter = da.counter;
  state.max_auth_fail = da.max_tries;
  state.lockout_interval_s = da.interval_s;
  state.lockout_recovery_s = da.recovery_s;
  state.srk_persistent = at_handle && ParseSrkPublic(*at_handle).has_value();
  state.srk_handle_occupied = at_handle && !state.srk_persistent;
  return state;
}

}  // namespace keyescrow::tpm
