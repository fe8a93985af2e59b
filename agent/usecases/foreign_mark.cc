#include "agent/usecases/foreign_mark.h"

#include <fmt/format.h>

#include <initializer_list>

#include "agent/audit/event.h"
#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"
#include "envelope/base/utf8.h"

namespace keyescrow::agent {
namespace {

constexpr std::string_view kForeign = "foreign escrow, not held and not proven";
constexpr std::string_view kMark = " (";
constexpr std::size_t kHashChars = 43;

// Each text with its length before it: what stands in one cannot be taken for another's.
std::string HashOf(std::initializer_list<std::string_view> texts) {
  std::string bytes;
  for (const std::string_view text : texts) bytes += fmt::format("{}:{}", text.size(), text);
  return EncodeBase64Url(Sha256(AsBytes(bytes)));
}

std::string Where(const store::ForeignEscrowRecord& row) {
  return fmt::format(": {} in {} of {}{}; ", row.kind, row.item, row.place,
                     row.volume.empty() ? "" : " (LUKS " + row.volume + ")");
}

}  // namespace

ForeignMark MarkForeign(const store::ForeignEscrowRecord& row) {
  return {HashOf({row.place, row.item}),
          HashOf({row.kind, row.volume, row.opens_by, EncodeBase64Url(row.sha256)})};
}

// The mark first, within the 128 bytes that are kept of any reason, and then where it is.
std::string ForeignReason(const store::ForeignEscrowRecord& row, std::string_view what) {
  const ForeignMark mark = MarkForeign(row);
  return fmt::format("{}{}{} {}){}{}", kForeign, kMark, mark.name, mark.content, Where(row), what);
}

std::optional<ForeignMark> ReadForeignMark(std::string_view reason) {
  if (!reason.starts_with(kForeign)) return std::nullopt;
  reason.remove_prefix(kForeign.size());
  if (!reason.starts_with(kMark) || reason.size() < kMark.size() + 2 * kHashChars + 1) {
    return std::nullopt;
  }
  reason.remove_prefix(kMark.size());
  if (reason[kHashChars] != ' ') return std::nullopt;
  return ForeignMark{std::string(reason.substr(0, kHashChars)),
                     std::string(reason.substr(kHashChars + 1, kHashChars))};
}

bool IsUnmarkedFor(std::string_view reason, const store::ForeignEscrowRecord& row) {
  const std::string begin = CutUtf8(std::string(kForeign) + Where(row), audit::kMaxReasonBytes);
  return reason.starts_with(begin) || (reason.starts_with(kForeign) && begin.starts_with(reason));
}

}  // namespace keyescrow::agent
