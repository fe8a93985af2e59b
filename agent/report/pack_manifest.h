// MANIFEST of an evidence pack, and the text that is signed over it. FORMAT.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::agent::report {

// The last two members, which MANIFEST does not list.
inline constexpr std::string_view kManifest = "MANIFEST";
inline constexpr std::string_view kManifestSignature = "MANIFEST.sig";

// FormatManifestLine returns a member's line, as sha256sum writes it.
std::string FormatManifestLine(std::string_view name, std::string_view bytes);

// The most that a line has: the digits, two spaces, a member's name (ustar.h), a line feed.
inline constexpr std::size_t kMaxManifestLineBytes = 64 + 2 + 100 + 1;

struct ManifestLine {
  std::string_view sha256_hex;  // 64 lower-case digits
  std::string_view name;
};
// ParseManifest takes lines of FormatManifestLine, each of another name; they borrow from `text`.
// Errors: kLogDamaged.
Result<std::vector<ManifestLine>> ParseManifest(std::string_view text);

// PackStatement: what the log key and the agent key sign.
struct PackStatement {
  std::string origin;  // of the log
  std::uint64_t log_size = 0;
  Bytes32 manifest_sha256{};
  std::int64_t time = 0;  // Unix seconds
};
std::string FormatPackStatement(const PackStatement& statement);
// ParsePackStatement takes exactly what FormatPackStatement writes. Errors: kLogDamaged.
Result<PackStatement> ParsePackStatement(std::string_view text);

}  // namespace keyescrow::agent::report
