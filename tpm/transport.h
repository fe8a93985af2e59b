// Transport: the seam at which bytes go to a TPM and come back. The device runs it on a thread of
// its own under a deadline; simulators/ decorates it to count, record and misbehave.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::tpm {

// Transport: one connection to one TPM. Used from one thread; may block for ever.
class Transport {
 public:
  virtual ~Transport() = default;
  // Exchange sends one whole command and returns the whole response (TPM 2.0 Part 1, 18).
  // Errors: kTpmUnavailable.
  virtual Result<Bytes> Exchange(ByteView command) = 0;
};

// TransportDecorator wraps the connection that was opened; it must not return null.
using TransportDecorator = std::function<std::unique_ptr<Transport>(std::unique_ptr<Transport>)>;

// OpenTctiTransport connects by a loader string such as "device:/dev/tpmrm0", "swtpm:path=…" or
// "tabrmd:". May block for ever (a stopped swtpm): call it under a deadline.
// Errors: kTpmUnavailable. Source: TCG TSS 2.0 TCTI, 3.4.
Result<std::unique_ptr<Transport>> OpenTctiTransport(const std::string& tcti);

}  // namespace keyescrow::tpm
