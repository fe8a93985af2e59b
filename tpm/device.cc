#include "tpm/device.h"

#include <unistd.h>

#include "tpm/device_impl.h"

namespace keyescrow::tpm {
namespace {

constexpr char kDefaultDevice[] = "/dev/tpmrm0";

Result<std::string> ResolveTcti(const std::string& tcti) {
  if (tcti == "none") {
    return Error(ErrorCode::kTpmUnavailable, Action::kFixInput, "the TPM is configured as 'none'",
                 "set the TPM's TCTI string in the configuration, or use a path without tpm");
  }
  if (!tcti.empty()) return tcti;
  if (access(kDefaultDevice, F_OK) != 0) {
    return Error(ErrorCode::kTpmUnavailable, Action::kCheckSystemState,
                 "this machine has no /dev/tpmrm0",
                 "enable the TPM in the firmware's settings, or use a path without tpm");
  }
  return std::string("device:") + kDefaultDevice;
}

}  // namespace

Device::Device(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Device::~Device() {
  if (auto closed = Close(); !closed) return;  // the TPM is gone: so is what it held
}

Result<std::shared_ptr<Device>> Device::Open(DeviceOptions options) {
  ASSIGN_OR_RETURN(const std::string tcti, ResolveTcti(options.tcti));
  const Opener opener = [tcti,
                         decorate = options.decorate]() -> Result<std::unique_ptr<Transport>> {
    ASSIGN_OR_RETURN(std::unique_ptr<Transport> transport, OpenTctiTransport(tcti));
    if (decorate) transport = decorate(std::move(transport));
    return transport;
  };
  ASSIGN_OR_RETURN(
      std::unique_ptr<DeadlineTransport> transport,
      DeadlineTransport::Open(opener, std::chrono::milliseconds(options.command_deadline_ms)));
  return std::shared_ptr<Device>(new Device(std::make_unique<Impl>(std::move(transport), options)));
}

Result<Bytes> Device::StorageParent() {
  ASSIGN_OR_RETURN(const Srk* srk, impl_->root().Get());
  return srk->tpm2b_public;
}

Status Device::PersistSrk() { return impl_->root().Persist(); }

Result<envelope::TpmState> Device::Inspect() { return impl_->Inspect(); }

Status Device::Close() { return impl_->root().Close(); }

}  // namespace keyescrow::tpm
