// What libcrypto takes for itself is wiped when it gives it back.
#pragma once

#include <cstddef>
#include <cstdlib>

namespace keyescrow {

// LibraryMemory is where its blocks come from and go to; tests look at them there.
struct LibraryMemory {
  void* (*allocate)(std::size_t size_bytes) = std::malloc;
  void (*give_back)(void* block) = std::free;
};

// WipeLibraryMemory has libcrypto wipe every block before it gives it back. It leaves parts of a
// private key in some: OpenSSL 3.0 where it reads a PEM file (der2key_decode) and where it
// multiplies on P-256 (ecp_nistz256_points_mul). Comes before all else of the library: false where
// it has a block already, and nothing is wiped then.
[[nodiscard]] bool WipeLibraryMemory(const LibraryMemory& memory = {});

}  // namespace keyescrow
