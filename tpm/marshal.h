// Marshalling of the few TPM structures in use: big-endian integers and TPM2B (size ‖ bytes).
// Reading is ByteReader's. Source: TPM 2.0 Part 1, 12 and Part 2.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "envelope/base/byte_reader.h"
#include "envelope/base/bytes.h"

namespace keyescrow::tpm {

inline void AppendU16(Bytes& out, std::size_t value) {
  out.push_back(static_cast<std::uint8_t>(value >> 8));
  out.push_back(static_cast<std::uint8_t>(value));
}

inline void AppendU32(Bytes& out, std::uint32_t value) {
  AppendU16(out, value >> 16);
  AppendU16(out, value & 0xffff);
}

inline void AppendBytes(Bytes& out, ByteView bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

// AppendTpm2b appends a TPM2B; at most 65535 bytes.
inline void AppendTpm2b(Bytes& out, ByteView bytes) {
  AppendU16(out, bytes.size());
  AppendBytes(out, bytes);
}

// TakeTpm2b returns the contents of a TPM2B, or nothing if it is cut short.
inline std::optional<ByteView> TakeTpm2b(ByteReader& reader) {
  const auto size = reader.TakeU16();
  if (!size) return std::nullopt;
  return reader.Take(*size);
}

// TakeEcdsaSignature returns R ‖ S of a TPMT_SIGNATURE by ECDSA with SHA-256, or nothing.
inline std::optional<Bytes64> TakeEcdsaSignature(ByteReader& reader) {
  const auto scheme = reader.TakeU16();
  const auto hash = reader.TakeU16();
  const auto r = TakeTpm2b(reader);
  const auto s = TakeTpm2b(reader);
  if (scheme != 0x0018 || hash != 0x000b || !r || !s || r->size() > 32 || s->size() > 32) {
    return std::nullopt;
  }
  Bytes64 signature{};
  std::copy(r->begin(), r->end(), signature.begin() + static_cast<std::ptrdiff_t>(32 - r->size()));
  std::copy(s->begin(), s->end(), signature.begin() + static_cast<std::ptrdiff_t>(64 - s->size()));
  return signature;
}

// The constants of Part 2 that are used, under their own names.
inline constexpr std::uint32_t kRsPw = 0x40000009;
inline constexpr std::uint32_t kRhOwner = 0x40000001;
inline constexpr std::uint32_t kRhNull = 0x40000007;
inline constexpr std::uint32_t kSrkHandle = 0x81000001;

inline constexpr std::uint32_t kCcEvictControl = 0x120;
inline constexpr std::uint32_t kCcNvUndefineSpace = 0x122;
inline constexpr std::uint32_t kCcNvDefineSpace = 0x12a;
inline constexpr std::uint32_t kCcCreatePrimary = 0x131;
inline constexpr std::uint32_t kCcNvIncrement = 0x134;
inline constexpr std::uint32_t kCcNvRead = 0x14e;
inline constexpr std::uint32_t kCcCreate = 0x153;
inline constexpr std::uint32_t kCcImport = 0x156;
inline constexpr std::uint32_t kCcLoad = 0x157;
inline constexpr std::uint32_t kCcSign = 0x15d;
inline constexpr std::uint32_t kCcUnseal = 0x15e;
inline constexpr std::uint32_t kCcFlushContext = 0x165;
inline constexpr std::uint32_t kCcLoadExternal = 0x167;
inline constexpr std::uint32_t kCcNvReadPublic = 0x169;
inline constexpr std::uint32_t kCcPolicyAuthorize = 0x16a;
inline constexpr std::uint32_t kCcPolicyAuthValue = 0x16b;
inline constexpr std::uint32_t kCcReadPublic = 0x173;
inline constexpr std::uint32_t kCcStartAuthSession = 0x176;
inline constexpr std::uint32_t kCcVerifySignature = 0x177;
inline constexpr std::uint32_t kCcGetCapability = 0x17a;
inline constexpr std::uint32_t kCcPcrRead = 0x17e;
inline constexpr std::uint32_t kCcPolicyPcr = 0x17f;
inline constexpr std::uint32_t kCcNvCertify = 0x184;

inline constexpr std::uint8_t kContinueSession = 0x01;  // TPMA_SESSION
inline constexpr std::uint8_t kDecryptCommand = 0x20;
inline constexpr std::uint8_t kEncryptResponse = 0x40;

}  // namespace keyescrow::tpm
