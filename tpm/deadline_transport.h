// DeadlineTransport: a Transport on a thread of its own, so that a TPM that hangs costs its
// deadline and no more. (tcti-swtpm 3.2.1 ignores timeouts and blocks for ever in connect and
// read.)
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <thread>

#include "tpm/transport.h"

namespace keyescrow::tpm {

using Opener = std::function<Result<std::unique_ptr<Transport>>()>;

class DeadlineTransport {
 public:
  // Open runs `opener` on the new thread. Errors: kTpmTimeout, and the opener's.
  static Result<std::unique_ptr<DeadlineTransport>> Open(Opener opener,
                                                         std::chrono::milliseconds deadline);

  // The destructor ends the thread; one that is stuck is left behind and owns what it uses.
  ~DeadlineTransport();
  DeadlineTransport(const DeadlineTransport&) = delete;
  DeadlineTransport& operator=(const DeadlineTransport&) = delete;

  // Exchange sends a command and waits until `deadline`. After a timeout or an error of the
  // transport the same error is returned at once, for ever. Errors: kTpmTimeout, the transport's.
  Result<Bytes> Exchange(ByteView command, std::chrono::steady_clock::time_point deadline);

 private:
  struct Shared;
  DeadlineTransport() = default;

  std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

}  // namespace keyescrow::tpm
