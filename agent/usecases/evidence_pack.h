// audit export: the evidence pack. agent/report/FORMAT.md says what is in it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "agent/usecases/agent.h"

namespace keyescrow::agent {

struct PackResult {
  std::uint64_t num_files = 0;
  std::uint64_t size_bytes = 0;
  std::uint64_t log_size = 0;
  bool agent_key_signed = false;
  bool complies = false;
};

// ExportEvidence logs audit.exported, and only then writes the pack, piece by piece; the log's
// entries are never in memory together. The pack ends with its own export. Envelopes are not in
// it: on those of a password alone anybody could guess. Errors: as BuildReport; those of `write`.
using WriteBytes = std::function<Status(ByteView)>;
Result<PackResult> ExportEvidence(Agent& agent, const WriteBytes& write);

// ExportEvidenceFile writes it to `path`, mode 0600; the name holds the whole pack or what it held
// before. Errors: as ExportEvidence; kDestination*.
Result<PackResult> ExportEvidenceFile(Agent& agent, const std::string& path);

}  // namespace keyescrow::agent
