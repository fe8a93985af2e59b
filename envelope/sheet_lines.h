// Sheet lines: an envelope as lines of text for paper, one line a QR code (envelope/FORMAT.md, 18).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "envelope/base/bytes.h"
#include "envelope/base/result.h"

namespace keyescrow::envelope {

inline constexpr std::size_t kMaxSheetLines = 4096;
// The first line of the text form; after it, only lines with a mark count.
inline constexpr std::string_view kSheetTitle = "KEYESCROW RECOVERY SHEET";
// What stands before a line's data, at most: "KE1/4096/4096/0123ABCD/0123/".
inline constexpr std::size_t kMaxSheetLineHeaderChars = 28;

// PackForSheet returns a whole envelope, which SealedEnvelope::Read took, as base32 text. A line
// feed at its end is left out: no signature and no hash covers it.
// Errors: Failure::kFormat where the file is no such envelope.
Result<std::string> PackForSheet(ByteView envelope);

// CutSheetLines returns `num_lines` lines, in order, whose data differ by one character at most.
// There are 1 to kMaxSheetLines, and no more than `packed` has characters.
std::vector<std::string> CutSheetLines(std::string_view packed, std::size_t num_lines);

// LooksLikeSheet tells lines of a sheet from other files, by the first line that is not blank.
bool LooksLikeSheet(ByteView file);

// JoinSheetLines returns the envelope whose lines stand in `text`, in any order and repeated; what
// scanners put around a line is left out, and whatever else is in the sheet's text form. Nothing is
// verified but that it is what was printed.
// Errors: kEnvelopeUnreadable, naming the lines that are missing; Failure::kFormat.
Result<Bytes> JoinSheetLines(std::string_view text);

}  // namespace keyescrow::envelope
