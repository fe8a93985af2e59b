#include "agent/report/pack_manifest.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <set>

#include "agent/report/ustar.h"
#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent::report {
namespace {

constexpr std::string_view kSchema = "keyescrow-pack/1";
constexpr std::size_t kHexDigits = 64;

bool IsHex(std::string_view text) {
  return text.size() == kHexDigits && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

// TakeLine takes a line and its LF off `text`; nothing where there is no LF.
bool TakeLine(std::string_view& text, std::string_view& line) {
  const std::size_t end = text.find('\n');
  if (end == std::string_view::npos) return false;
  line = text.substr(0, end);
  text.remove_prefix(end + 1);
  return true;
}

Error NotAStatement() { return PackDamaged("MANIFEST.sig does not sign a pack's MANIFEST"); }

}  // namespace

std::string FormatManifestLine(std::string_view name, std::string_view bytes) {
  return fmt::format("{}  {}\n", ToHex(Sha256(AsBytes(bytes))), name);
}

Result<std::vector<ManifestLine>> ParseManifest(std::string_view text) {
  std::vector<ManifestLine> lines;
  std::set<std::string_view> names;
  while (!text.empty()) {
    std::string_view line;
    if (!TakeLine(text, line) || line.size() <= kHexDigits + 2 ||
        line.substr(kHexDigits, 2) != "  ") {
      return PackDamaged("MANIFEST has a line that is none");
    }
    const ManifestLine item{line.substr(0, kHexDigits), line.substr(kHexDigits + 2)};
    if (!IsHex(item.sha256_hex) || !IsMemberName(item.name)) {
      return PackDamaged("MANIFEST has a line that is none");
    }
    // Else a small file would have a large member hashed as often as it likes.
    if (!names.insert(item.name).second) {
      return PackDamaged(fmt::format("MANIFEST names {} twice", item.name));
    }
    lines.push_back(item);
  }
  return lines;
}

std::string FormatPackStatement(const PackStatement& statement) {
  return fmt::format("{}\n{}\n{}\n{}\n{}\n", kSchema, statement.origin, statement.log_size,
                     EncodeBase64(statement.manifest_sha256), FormatUtc(statement.time));
}

Result<PackStatement> ParsePackStatement(std::string_view text) {
  std::string_view rest = text;
  std::string_view schema, origin, size, digest, time;
  for (std::string_view* line : {&schema, &origin, &size, &digest, &time}) {
    if (!TakeLine(rest, *line)) return NotAStatement();
  }
  PackStatement statement;
  statement.origin = origin;
  const auto [end, error] =
      std::from_chars(size.data(), size.data() + size.size(), statement.log_size);
  const auto hash = DecodeBase64(digest);
  const auto seconds = ParseUtc(time);
  if (error != std::errc() || end != size.data() + size.size() || !hash ||
      hash->size() != statement.manifest_sha256.size() || !seconds || *seconds < 0) {
    return NotAStatement();
  }
  std::copy(hash->begin(), hash->end(), statement.manifest_sha256.begin());
  statement.time = *seconds;
  if (FormatPackStatement(statement) != text) return NotAStatement();
  return statement;
}

}  // namespace keyescrow::agent::report
