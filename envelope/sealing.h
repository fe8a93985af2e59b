// Sealing in two steps, for Seal (sealed_envelope.h) and Reseal (edit.h): each path wraps the file
// key, then the header is closed over the content and signed.
#pragma once

#include "envelope/base/random.h"
#include "envelope/header.h"
#include "envelope/sealed_envelope.h"
#include "envelope/signer.h"

namespace keyescrow::envelope {

// WrapPath wraps `file_key` to the path's factors, bound to the names in `header`.
// Errors: kCryptoLibrary, kEntropyUnavailable.
Result<PathRecord> WrapPath(const Header& header, const EnrolledPath& enrolled,
                            const SecretBytes& file_key, RandomSource& random);

// SealHeader encrypts `content` under `file_key` with a fresh IV, `header` as its AAD, and has
// `signer`, whose thumbprint stands in `header`, sign the whole.
// Errors: Failure::kFormat or kLimit where no reader would take the header; the signer's.
Result<SealedBytes> SealHeader(const Header& header, const SecretBytes& file_key,
                               const SecretBytes& content, Signer& signer, RandomSource& random);

}  // namespace keyescrow::envelope
