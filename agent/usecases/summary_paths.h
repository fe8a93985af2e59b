// The paths of an envelope as a pack's summary tells them: enough to say what losses and thefts do.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "envelope/header.h"

namespace keyescrow::agent {

// SummaryHeader returns the header's names, host and paths. A factor's key is the SHA-256 that the
// summary has of it, which tells keys apart as the key does; salts and blobs are missing, so
// nothing is opened by it. Errors: kLogDamaged where the line is no summary.
Result<envelope::Header> SummaryHeader(std::string_view line);

}  // namespace keyescrow::agent
