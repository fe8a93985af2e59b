#include "agent/usecases/pcr_policy_signature.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "envelope/base/p256.h"

namespace keyescrow::agent {
namespace {

constexpr std::size_t kMostDerBytes = 72;  // two integers of 33 bytes, and their headers
constexpr std::string_view kHint =
    "give 64 bytes R||S or DER, as 'openssl dgst -sha256 -sign KEY pcr.policy' makes it";

}  // namespace

Result<std::optional<Bytes64>> ReadPcrPolicySignature(const std::string& file) {
  if (file.empty()) return std::optional<Bytes64>();
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0) {
    return ErrnoError(ErrorCode::kUsage, Action::kFixInput,
                      "cannot read the signature of the PCR policy, " + file,
                      "check that the file is there and that this user may read it", errno);
  }
  std::array<std::uint8_t, kMostDerBytes + 1> bytes{};
  const ssize_t count = read(fd, bytes.data(), bytes.size());
  close(fd);
  const ByteView text(bytes.data(), count > 0 ? static_cast<std::size_t>(count) : 0);
  if (text.size() == Bytes64().size()) {
    Bytes64 signature;
    std::ranges::copy(text, signature.begin());
    return signature;
  }
  if (text.size() <= kMostDerBytes) {
    if (const auto signature = EcdsaSignatureFromDer(text)) return signature;
  }
  return Error(ErrorCode::kUsage, Action::kFixInput, file + " is no ECDSA P-256 signature",
               std::string(kHint));
}

}  // namespace keyescrow::agent
