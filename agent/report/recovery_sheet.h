// The page for the safe: an envelope on paper, with what a stranger needs to restore from it. One
// HTML file that prints on A4 and on Letter, or text. It holds no secret.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "envelope/base/result.h"

namespace keyescrow::agent::report {

struct SheetPath {
  std::string id;
  std::string expression;          // "token:ops & password"
  std::vector<std::string> needs;  // one text a factor: what to bring
  bool portable = false;           // opens on any machine
  bool has_password = false;
  bool has_token = false;
  std::string module = {};  // of its tokens on this host, a shell's word; "": unknown, or several
};

struct RecoverySheet {
  std::string program_version;
  std::string key_name;
  std::uint32_t key_version = 0;
  std::uint32_t revision = 0;
  std::string envelope_id;
  std::string envelope_hash;  // base64url
  std::string agent;          // thumbprint
  std::string host;
  std::string created;
  std::string updated;
  std::string printed;  // UTC
  std::string note;
  std::vector<SheetPath> paths;
  std::string packed;  // envelope::PackForSheet's
};

struct SheetDocument {
  std::string text;
  std::size_t num_codes = 0;  // QR codes, or lines of the text form
  std::size_t num_pages = 0;  // of A4 or Letter; the text form: of 60 lines
};

// A usual envelope's six codes are on the one page; where there are more, or where the paths and
// the note need the room, they are on pages of their own, twelve a page.
inline constexpr std::size_t kSheetCodesOnFirstPage = 6;
inline constexpr std::size_t kSheetCodesPerPage = 12;
// A code of version 21 and its quiet zone at 54.5 mm have modules of 0.5 mm, which a copier and a
// telephone tell apart; at level Q it holds 742 characters.
inline constexpr std::size_t kSheetCodeChars = 742;

// RecoverySheetHtml: no script, nothing fetched, everything from outside escaped.
// Errors: kUsage where the library is missing.
Result<SheetDocument> RecoverySheetHtml(const RecoverySheet& sheet);

// RecoverySheetText: at most 78 columns of ASCII, for a printer of text and for eyes.
SheetDocument RecoverySheetText(const RecoverySheet& sheet);

}  // namespace keyescrow::agent::report
