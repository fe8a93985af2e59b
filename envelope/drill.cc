#include "envelope/drill.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "envelope/base/base64url.h"
#include "envelope/base/clock.h"
#include "envelope/base/ed25519.h"
#include "envelope/header.h"

namespace keyescrow::envelope {
namespace {

constexpr std::string_view kTitle = "keyescrow-drill/1";
constexpr std::string_view kNoChallenge = "-";
constexpr std::size_t kNumLines = 9;
constexpr std::size_t kMaxPathIdSize = 16;
constexpr std::size_t kMaxOriginSize = 192;
constexpr std::size_t kMaxStatementBytes = 1024;

Error Invalid(std::string what) {
  return Error(ErrorCode::kLogDamaged, Action::kCallOperator,
               "the drill's proof does not hold: " + std::move(what),
               "run 'keyescrow drill' again, and compare the log with a copy");
}

bool IsOrigin(std::string_view text) {
  return !text.empty() && text.size() <= kMaxOriginSize &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c <= 0x7E; });
}

std::optional<Bytes32> AsBytes32(const std::optional<Bytes>& bytes) {
  if (!bytes || bytes->size() != 32) return std::nullopt;
  Bytes32 out;
  std::copy(bytes->begin(), bytes->end(), out.begin());
  return out;
}

}  // namespace

Result<std::string> FormatDrillStatement(const DrillStatement& statement) {
  const auto id = DecodeBase64Url(statement.envelope_id);
  if (!id || id->size() != 16) return Invalid("its envelope id is not 16 bytes");
  if (!IsName(statement.path_id, kMaxPathIdSize)) return Invalid("its path id is not one");
  if (!IsOrigin(statement.checkpoint.origin)) return Invalid("its checkpoint's origin is not one");
  const std::string time = FormatUtc(statement.time);
  if (!ParseUtc(time)) return Invalid("its time is not one");
  std::string text;
  for (const std::string_view line :
       {kTitle, std::string_view(statement.envelope_id), std::string_view(statement.path_id)}) {
    text.append(line).append("\n");
  }
  text += EncodeBase64Url(statement.envelope_hash) + "\n";
  text += statement.checkpoint.origin + "\n";
  text += std::to_string(statement.checkpoint.size) + "\n";
  text += EncodeBase64(statement.checkpoint.root) + "\n";
  text += statement.challenge ? EncodeBase64Url(*statement.challenge) : std::string(kNoChallenge);
  text += "\n" + time + "\n";
  return text;
}

Result<DrillStatement> ParseDrillStatement(std::string_view text) {
  if (text.size() > kMaxStatementBytes) return Invalid("it is too long");
  std::array<std::string_view, kNumLines> lines;
  std::string_view rest = text;
  for (std::string_view& line : lines) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) return Invalid("it has too few lines");
    line = rest.substr(0, end);
    rest.remove_prefix(end + 1);
  }
  if (!rest.empty() || lines[0] != kTitle) return Invalid("it is not a statement of keyescrow/1");
  const auto hash = AsBytes32(DecodeBase64Url(lines[3]));
  const auto root = AsBytes32(DecodeBase64(lines[6]));
  const auto time = ParseUtc(lines[8]);
  if (!hash || !root || !time) return Invalid("its hash, root or time is not one");
  DrillStatement statement;
  statement.envelope_id = lines[1];
  statement.path_id = lines[2];
  statement.envelope_hash = *hash;
  statement.checkpoint.origin = lines[4];
  const char* end = lines[5].data() + lines[5].size();
  const auto [stopped, error] = std::from_chars(lines[5].data(), end, statement.checkpoint.size);
  if (error != std::errc() || stopped != end) return Invalid("its checkpoint's size is not one");
  statement.checkpoint.root = *root;
  if (lines[7] != kNoChallenge) {
    statement.challenge = AsBytes32(DecodeBase64Url(lines[7]));
    if (!statement.challenge) return Invalid("its challenge is not 32 bytes");
  }
  statement.time = *time;
  // What another way of writing would have hidden (leading zeros, names) shows here.
  ASSIGN_OR_RETURN(const std::string again, FormatDrillStatement(statement));
  if (again != text) return Invalid("it is not written canonically");
  return statement;
}

Result<Bytes64> SignDrill(const DrillStatement& statement, const SecretBytes& drill_seed) {
  ASSIGN_OR_RETURN(const std::string text, FormatDrillStatement(statement));
  return Ed25519Sign(drill_seed, AsBytes(text));
}

Status VerifyDrill(const DrillStatement& statement, const Bytes64& signature,
                   const Bytes32& drill_key) {
  ASSIGN_OR_RETURN(const std::string text, FormatDrillStatement(statement));
  if (!Ed25519Verify(drill_key, AsBytes(text), signature)) {
    return Invalid("the path's drill key did not sign it");
  }
  return Ok();
}

}  // namespace keyescrow::envelope
