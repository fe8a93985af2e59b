#include "tpm/tpm_factor.h"

#include "tpm/seal.h"

namespace keyescrow::tpm {

Tpm::Tpm(std::shared_ptr<Device> device) : device_(std::move(device)) {}

Tpm::~Tpm() = default;

Result<std::unique_ptr<Tpm>> Tpm::Open(DeviceOptions options) {
  ASSIGN_OR_RETURN(std::shared_ptr<Device> device, Device::Open(std::move(options)));
  return std::make_unique<Tpm>(std::move(device));
}

Result<Bytes> Tpm::StorageParent() { return device_->StorageParent(); }

Result<envelope::Tpm2Record> Tpm::Seal(const envelope::SealRequest& request) {
  return SealObject(device_->impl(), request);
}

Result<SecretBytes> Tpm::Unseal(const envelope::Tpm2Record& record,
                                const envelope::UnsealRequest& request) {
  return UnsealObject(device_->impl(), record, request);
}

Result<envelope::TpmState> Tpm::Inspect() { return device_->Inspect(); }

}  // namespace keyescrow::tpm
