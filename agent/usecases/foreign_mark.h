// ForeignMark: by what the log knows the row of a foreign escrow, which the words of its entry, cut
// as they are, do not tell.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "agent/store/escrow_store.h"

namespace keyescrow::agent {

// ForeignMark: b64u SHA-256 of the row's place and item, and of all else in it but when it was
// found: FORMAT.md, "Entries".
struct ForeignMark {
  std::string name;
  std::string content;
};
ForeignMark MarkForeign(const store::ForeignEscrowRecord& row);

// ForeignChange: the last inventory.found or .gone of one.
struct ForeignChange {
  std::uint64_t seq = 0;
  std::int64_t time = 0;
  bool found = false;
  std::string content;
};

// ForeignReason is the reason of the entry that tells of a row: its mark, where it is, and `what`.
std::string ForeignReason(const store::ForeignEscrowRecord& row, std::string_view what);
// ReadForeignMark finds the mark again, whatever the length of the rest; none in entries of before.
std::optional<ForeignMark> ReadForeignMark(std::string_view reason);
// IsUnmarkedFor: a reason of before marks were written, that may be of `row`.
bool IsUnmarkedFor(std::string_view reason, const store::ForeignEscrowRecord& row);

}  // namespace keyescrow::agent
