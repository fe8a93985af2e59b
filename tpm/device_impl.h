// Device::Impl: what the room's own files see of a device.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "tpm/command_channel.h"
#include "tpm/device.h"
#include "tpm/srk.h"

namespace keyescrow::tpm {

class Device::Impl {
 public:
  Impl(std::unique_ptr<DeadlineTransport> transport, const DeviceOptions& options)
      : channel_(std::move(transport), std::chrono::milliseconds(options.command_deadline_ms),
                 *options.random),
        root_(channel_, options.pinned_srk) {}

  CommandChannel& channel() { return channel_; }
  StorageRoot& root() { return root_; }

  // ReadDaState: one GetCapability(TPM_PROPERTIES, PT_VAR). Source: Part 3, TPM2_GetCapability.
  Result<DaState> ReadDaState();

  // PcrDigest returns SHA-256 over the values of the selected PCRs, ascending, SHA-256 bank. One
  // command for up to 8 PCRs. Source: Part 3, TPM2_PCR_Read, TPM2_PolicyPCR.
  Result<Bytes32> PcrDigest(const std::vector<std::uint8_t>& pcrs);

  Result<envelope::TpmState> Inspect();

 private:
  struct Property {
    std::uint32_t property = 0;
    std::uint32_t value = 0;
  };
  Result<std::vector<Property>> ReadProperties(std::uint32_t first, std::uint32_t count);

  CommandChannel channel_;
  StorageRoot root_;
};

}  // namespace keyescrow::tpm
