#include "envelope/base/random.h"

#include <sys/random.h>

#include <cerrno>

namespace keyescrow {
namespace {

class KernelRandom final : public RandomSource {
 public:
  Status Fill(std::span<std::uint8_t> bytes) override {
    while (!bytes.empty()) {
      const ssize_t count = getrandom(bytes.data(), bytes.size(), 0);
      if (count < 0) {
        if (errno == EINTR) continue;
        return ErrnoError(ErrorCode::kEntropyUnavailable, Action::kCheckSystemState,
                          "the kernel gave no random bytes", "check that getrandom(2) is allowed",
                          errno);
      }
      bytes = bytes.subspan(static_cast<std::size_t>(count));
    }
    return Ok();
  }
};

}  // namespace

RandomSource& SystemRandom() {
  static KernelRandom random;
  return random;
}

Result<SecretBytes> RandomSecret(RandomSource& random, std::size_t size_bytes) {
  ASSIGN_OR_RETURN(SecretBytes secret, SecretBytes::Allocate(size_bytes));
  RETURN_IF_ERROR(random.Fill(secret.ExposeMutable()));
  return secret;
}

}  // namespace keyescrow
