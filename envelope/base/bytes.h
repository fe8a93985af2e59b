// Bytes and ByteView: public (non-secret) byte strings. Secrets live in SecretBytes only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace keyescrow {

using Bytes = std::vector<std::uint8_t>;
using ByteView = std::span<const std::uint8_t>;
using Bytes16 = std::array<std::uint8_t, 16>;
using Bytes32 = std::array<std::uint8_t, 32>;
using Bytes64 = std::array<std::uint8_t, 64>;

// AsBytes views the characters of `text` as bytes; the caller keeps `text` alive.
inline ByteView AsBytes(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

// AsText views `bytes` as characters; the caller keeps `bytes` alive.
inline std::string_view AsText(ByteView bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline Bytes ToBytes(ByteView bytes) { return Bytes(bytes.begin(), bytes.end()); }

// ToHex returns lower-case hexadecimal digits, two a byte.
std::string ToHex(ByteView bytes);

}  // namespace keyescrow
