// RandomSource: the seam for entropy. Known-answer tests put a fixed stream in its place.
#pragma once

#include <span>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow {

class RandomSource {
 public:
  virtual ~RandomSource() = default;
  // Fill writes uniform random bytes over all of `bytes`. Errors: kEntropyUnavailable.
  virtual Status Fill(std::span<std::uint8_t> bytes) = 0;
};

// SystemRandom is the kernel's generator, getrandom(2); thread-safe; lives for the whole process.
RandomSource& SystemRandom();

// RandomSecret returns `size_bytes` fresh secret bytes.
Result<SecretBytes> RandomSecret(RandomSource& random, std::size_t size_bytes);

}  // namespace keyescrow
