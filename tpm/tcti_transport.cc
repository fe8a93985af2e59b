#include <fmt/format.h>

#include "tpm/errors.h"
#include "tpm/transport.h"
#include "tpm/tss.h"

namespace keyescrow::tpm {
namespace {

constexpr std::size_t kMaxResponseBytes = 4096;  // TPM2_MAX_RESPONSE_SIZE

class TctiTransport : public Transport {
 public:
  TctiTransport(const TssLoader& loader, TSS2_TCTI_CONTEXT* context)
      : loader_(loader), context_(context) {}
  ~TctiTransport() override { loader_.finalize(&context_); }
  TctiTransport(const TctiTransport&) = delete;
  TctiTransport& operator=(const TctiTransport&) = delete;

  Result<Bytes> Exchange(ByteView command) override {
    auto* common = reinterpret_cast<TSS2_TCTI_CONTEXT_COMMON_V1*>(context_);
    TSS2_RC rc = common->transmit(context_, command.size(), command.data());
    if (rc != TSS2_RC_SUCCESS) return ConnectionError("sending a command to the TPM", rc);
    Bytes response(kMaxResponseBytes);
    std::size_t size = response.size();
    do {
      rc = common->receive(context_, &size, response.data(), TSS2_TCTI_TIMEOUT_BLOCK);
    } while (rc == TSS2_TCTI_RC_TRY_AGAIN);
    if (rc != TSS2_RC_SUCCESS) return ConnectionError("receiving the TPM's response", rc);
    response.resize(size <= response.size() ? size : 0);
    return response;
  }

 private:
  static Error ConnectionError(std::string_view doing, TSS2_RC rc) {
    return Error(ErrorCode::kTpmUnavailable, Action::kReconnect,
                 fmt::format("{} failed (0x{:x})", doing, rc),
                 "check that the TPM or its resource manager still runs, then try again; or use "
                 "a path without tpm")
        .WithNative("TPM_RC", rc);
  }

  const TssLoader& loader_;
  TSS2_TCTI_CONTEXT* context_;
};

}  // namespace

Result<std::unique_ptr<Transport>> OpenTctiTransport(const std::string& tcti) {
  ASSIGN_OR_RETURN(const TssLoader* loader, LoadTss());
  TSS2_TCTI_CONTEXT* context = nullptr;
  const TSS2_RC rc = loader->initialize(tcti.c_str(), &context);
  if (rc != TSS2_RC_SUCCESS || context == nullptr) {
    return Error(ErrorCode::kTpmUnavailable, Action::kCheckSystemState,
                 fmt::format("no TPM answers at '{}' (0x{:x})", tcti, rc),
                 "check that the TPM is enabled, that the TCTI string is right, that its module "
                 "(e.g. libtss2-tcti-device0) is installed, and that this user may open the "
                 "device (group 'tss'); or use a path without tpm")
        .WithNative("TPM_RC", rc);
  }
  return std::make_unique<TctiTransport>(*loader, context);
}

}  // namespace keyescrow::tpm
