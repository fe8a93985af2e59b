// What headers and recovery keys' records are made of: factors, points and compact JWEs as JSON.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/header.h"
#include "envelope/json_strict.h"

namespace keyescrow::envelope {

// ReadFactors reads 1 to 4 factors with every rule of one path: their order, their ranges, distinct
// public keys. Errors: Failure::kFormat, Failure::kLimit.
Result<std::vector<FactorRecord>> ReadFactors(const std::vector<JsonValue>& values,
                                              const std::string& what);
// WriteFactors returns them as a JSON array.
std::string WriteFactors(const std::vector<FactorRecord>& factors);

// ReadPoint takes a P-256 JWK of exactly crv, kty, x and y; a fault is left with the reader.
std::optional<P256Point> ReadPoint(ObjectReader& reader, const std::string& what);
// WriteJwk returns {"crv":"P-256","kty":"EC","x":…,"y":…}.
std::string WriteJwk(const P256Point& point);

// ParseCompactJwe splits header..iv.ciphertext.tag; `ciphertext_size` of 0 means any whole blocks.
Result<CompactJwe> ParseCompactJwe(std::string_view text, std::string& header,
                                   std::size_t ciphertext_size, const std::string& what);

// ReadRecoveryKeyRecord reads name, public and private of an object whose other members the caller
// has read. Errors: Failure::kFormat.
Result<RecoveryKeyRecord> ReadRecoveryKeyRecord(ObjectReader& reader, const std::string& what);

Bytes32 ToBytes32(const Bytes& bytes);

}  // namespace keyescrow::envelope
