// ByteReader: a cursor over bytes where each read is bounds-checked; a failed read changes nothing.
#pragma once

#include <cstdint>
#include <optional>

#include "envelope/base/bytes.h"

namespace keyescrow {

class ByteReader {
 public:
  explicit ByteReader(ByteView bytes) : rest_(bytes) {}

  std::size_t remaining() const { return rest_.size(); }
  bool AtEnd() const { return rest_.empty(); }

  // Take returns the next `size` bytes, or nothing if fewer are left.
  std::optional<ByteView> Take(std::size_t size) {
    if (size > rest_.size()) return std::nullopt;
    ByteView taken = rest_.first(size);
    rest_ = rest_.subspan(size);
    return taken;
  }
  // Big-endian integers.
  std::optional<std::uint8_t> TakeU8() {
    auto bytes = Take(1);
    if (!bytes) return std::nullopt;
    return (*bytes)[0];
  }
  std::optional<std::uint16_t> TakeU16() {
    auto bytes = Take(2);
    if (!bytes) return std::nullopt;
    return static_cast<std::uint16_t>((*bytes)[0] << 8 | (*bytes)[1]);
  }
  std::optional<std::uint32_t> TakeU32() {
    auto bytes = Take(4);
    if (!bytes) return std::nullopt;
    return static_cast<std::uint32_t>((*bytes)[0]) << 24 |
           static_cast<std::uint32_t>((*bytes)[1]) << 16 |
           static_cast<std::uint32_t>((*bytes)[2]) << 8 | (*bytes)[3];
  }

 private:
  ByteView rest_;
};

}  // namespace keyescrow
