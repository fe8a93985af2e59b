// Public keys out of PKCS#11 attributes. Two modules leave CKA_PUBLIC_KEY_INFO empty, so the
// SubjectPublicKeyInfo is always built from the numbers themselves.
#pragma once

#include <cstdint>
#include <optional>

#include "envelope/base/bytes.h"

namespace keyescrow::hsm {

// RsaSpki returns the canonical DER of rsaEncryption with NULL parameters (RFC 8017, A.1; RFC 5280)
// from big-endian numbers; leading zeros are dropped. Nothing unless the modulus has 2048–8192 bits
// and the exponent is odd and above 1.
std::optional<Bytes> RsaSpki(ByteView modulus, ByteView exponent);

// EcP256Spki returns the 91 bytes of a P-256 key from CKA_EC_PARAMS (the named curve's OID) and
// CKA_EC_POINT: a DER OCTET STRING, or 65 raw bytes as some modules give. That the point is on the
// curve is not checked here. Nothing for another curve or form.
std::optional<Bytes> EcP256Spki(ByteView ec_params, ByteView ec_point);

std::uint32_t ModulusBits(ByteView modulus);

}  // namespace keyescrow::hsm
