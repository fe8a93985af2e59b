// Base64: unpadded base64url as in RFC 7515, canonical; and padded standard base64 (RFC 4648).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "envelope/base/bytes.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow {

std::string EncodeBase64Url(ByteView bytes);

// DecodeBase64Url returns the bytes, or nothing unless re-encoding gives exactly `text`.
std::optional<Bytes> DecodeBase64Url(std::string_view text);

std::string EncodeBase64(ByteView bytes);

// DecodeBase64 takes padded standard base64; nothing unless re-encoding gives exactly `text`.
std::optional<Bytes> DecodeBase64(std::string_view text);

}  // namespace keyescrow
