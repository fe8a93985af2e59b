// Drills: the signed statement that a path of an envelope was opened, which discloses nothing.
// envelope/FORMAT.md, section 14, is normative.
//
// A statement is a claim by a holder of D, the path's drill seed: whoever opened the path, and the
// agent that enrolled it. What that proves and what not: agent/docs/THREAT-MODEL.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"
#include "envelope/base/secret_bytes.h"

namespace keyescrow::envelope {

// DrillCheckpoint: the log's newest checkpoint when a drill was signed: the drill is not older.
struct DrillCheckpoint {
  std::string origin;  // 1–192 characters 0x20–0x7E
  std::uint64_t size = 0;
  Bytes32 root{};
  bool operator==(const DrillCheckpoint&) const = default;
};

struct DrillStatement {
  std::string envelope_id;  // b64u of 16 bytes, as in the header
  std::string path_id;      // [A-Za-z0-9._-]{1,16}
  Bytes32 envelope_hash{};
  DrillCheckpoint checkpoint;
  std::optional<Bytes32> challenge;  // an auditor's; none: "-"
  std::int64_t time = 0;             // Unix seconds
  bool operator==(const DrillStatement&) const = default;
};

// FormatDrillStatement returns the text that is signed: nine lines, each with its LF.
// Errors: kLogDamaged where a member is not of the shape above.
Result<std::string> FormatDrillStatement(const DrillStatement& statement);

// ParseDrillStatement takes exactly what FormatDrillStatement writes. Errors: kLogDamaged.
Result<DrillStatement> ParseDrillStatement(std::string_view text);

// SignDrill signs with D. The caller has opened the path to the content's tag:
// OpenedEnvelope::drill_seed() is the only source of D. Errors: kLogDamaged, kCryptoLibrary.
Result<Bytes64> SignDrill(const DrillStatement& statement, const SecretBytes& drill_seed);

// VerifyDrill checks the signature against the path's `drill_key`. Errors: kLogDamaged.
Status VerifyDrill(const DrillStatement& statement, const Bytes64& signature,
                   const Bytes32& drill_key);

}  // namespace keyescrow::envelope
