// recovery-sheet: an escrowed key's envelope on paper, as far as the policy lets it out.
#pragma once

#include <string>

#include "agent/report/recovery_sheet.h"
#include "agent/usecases/agent.h"

namespace keyescrow::agent {

// An envelope that is larger than this fills a folder and not a sheet.
inline constexpr std::size_t kMaxSheetEnvelopeBytes = 64U << 10;

struct RecoverySheetRequest {
  std::string key_name;
  bool as_text = false;
  std::string program_version;
};
struct RecoverySheetResult {
  std::string key_name;
  std::uint32_t key_version = 0;
  Bytes32 envelope_hash{};
  std::string agent;  // thumbprint
  report::SheetDocument document;
};

// MakeRecoverySheet makes the sheet of the key's newest version. It is a copy of the envelope: the
// policy is asked as for an export, and the log has it before it is returned.
// Errors: kInvalidName, kKeyNotFound, RefusedBy's, kUsage where the library is missing;
// Failure::kLimit over kMaxSheetEnvelopeBytes.
Result<RecoverySheetResult> MakeRecoverySheet(Agent& agent, const RecoverySheetRequest& request);

}  // namespace keyescrow::agent
