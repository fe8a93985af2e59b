#include "envelope/sheet_lines.h"

#include <fmt/core.h>
#define ZLIB_CONST  // its input is const
#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <new>
#include <optional>

#include "envelope/base/base64url.h"
#include "envelope/base/hash.h"
#include "envelope/header.h"
#include "envelope/json_strict.h"

namespace keyescrow::envelope {
namespace {

constexpr std::string_view kMark = "KE1/";
constexpr std::string_view kScannerPrefix = "QR-Code:";  // of zbarimg without --raw
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
constexpr std::string_view kWhiteSpace = " \t\r";
constexpr std::size_t kSetDigits = 8;
constexpr std::size_t kCheckDigits = 4;
constexpr std::size_t kMaxMissingShown = 8;
constexpr int kGzip = 16 + MAX_WBITS;  // zlib's window bits for RFC 1952

// ---- base32 (RFC 4648, 6) without padding

std::string EncodeBase32(ByteView bytes) {
  std::string text;
  std::uint32_t bits = 0;
  unsigned num_bits = 0;
  for (const std::uint8_t byte : bytes) {
    bits = (bits << 8) | byte;
    for (num_bits += 8; num_bits >= 5; num_bits -= 5) {
      text.push_back(kAlphabet[(bits >> (num_bits - 5)) & 31]);
    }
  }
  if (num_bits != 0) text.push_back(kAlphabet[(bits << (5 - num_bits)) & 31]);
  return text;
}

std::optional<Bytes> DecodeBase32(std::string_view text) {
  Bytes bytes;
  std::uint32_t bits = 0;
  unsigned num_bits = 0;
  for (const char c : text) {
    const std::size_t value = kAlphabet.find(c);
    if (value == std::string_view::npos) return std::nullopt;
    bits = (bits << 5) | static_cast<std::uint32_t>(value);
    num_bits += 5;
    if (num_bits >= 8) {
      num_bits -= 8;
      bytes.push_back(static_cast<std::uint8_t>(bits >> num_bits));
    }
  }
  // Another length, or bits that are left over and not zero, are of no encoder.
  if (num_bits >= 5 || (bits & ((1U << num_bits) - 1)) != 0) return std::nullopt;
  return bytes;
}

std::string HashDigits(std::string_view text, std::size_t num_digits) {
  std::string digits;
  for (const std::uint8_t byte : Sha256(AsBytes(text))) digits += fmt::format("{:02X}", byte);
  return digits.substr(0, num_digits);
}

// ---- gzip (RFC 1952)

Bytes Gzip(std::string_view text) {
  z_stream stream{};
  // Only a want of memory can fail here, and that ends the process as it does everywhere.
  if (deflateInit2(&stream, Z_BEST_COMPRESSION, Z_DEFLATED, kGzip, MAX_MEM_LEVEL,
                   Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::bad_alloc();
  }
  const Bytes input(text.begin(), text.end());
  Bytes packed(deflateBound(&stream, input.size()));
  stream.next_in = input.data();
  stream.avail_in = static_cast<uInt>(input.size());
  stream.next_out = packed.data();
  stream.avail_out = static_cast<uInt>(packed.size());
  deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

// Gunzip takes one gzip member, whole and alone, of at most kMaxFileSizeBytes.
std::optional<std::string> Gunzip(const Bytes& packed) {
  z_stream stream{};
  if (inflateInit2(&stream, kGzip) != Z_OK) throw std::bad_alloc();
  stream.next_in = packed.data();
  stream.avail_in = static_cast<uInt>(packed.size());
  std::string text;
  int status = Z_OK;
  while (status == Z_OK && text.size() <= kMaxFileSizeBytes) {
    std::uint8_t part[16384];
    stream.next_out = part;
    stream.avail_out = sizeof part;
    status = inflate(&stream, Z_NO_FLUSH);
    text.append(AsText({part, sizeof part - stream.avail_out}));
  }
  const bool whole = status == Z_STREAM_END && stream.avail_in == 0;
  inflateEnd(&stream);
  if (!whole || text.size() > kMaxFileSizeBytes) return std::nullopt;
  return text;
}

// ---- L0, L1 and H apart: each alone, so that none is base64 of another

// TakeOut empties the string value of `member` in the JSON text, whose strings hold no quotation
// mark, and returns it decoded.
std::optional<std::string> TakeOut(std::string& json, std::string_view member) {
  const std::string quoted = "\"" + std::string(member) + "\"";
  const std::size_t name = json.find(quoted);
  if (name == std::string::npos) return std::nullopt;
  const std::size_t begin = json.find('"', name + quoted.size());
  const std::size_t end = begin == std::string::npos ? begin : json.find('"', begin + 1);
  if (end == std::string::npos) return std::nullopt;
  const auto inner = DecodeBase64Url(std::string_view(json).substr(begin + 1, end - begin - 1));
  if (!inner || inner->empty()) return std::nullopt;
  json.erase(begin + 1, end - begin - 1);
  return std::string(AsText(*inner));
}

// PutBack fills the only empty string of the JSON text with `inner` in base64url.
bool PutBack(std::string& json, std::string_view inner) {
  const std::size_t place = json.find("\"\"");
  if (place == std::string::npos || json.find("\"\"", place + 1) != std::string::npos) return false;
  json.insert(place + 1, EncodeBase64Url(AsBytes(inner)));
  return true;
}

std::optional<std::string> Assemble(std::string_view parts) {
  const std::size_t first = parts.find('\n');
  const std::size_t second = first == std::string_view::npos ? first : parts.find('\n', first + 1);
  if (second == std::string_view::npos) return std::nullopt;
  std::string l0(parts.substr(0, first));
  std::string l1(parts.substr(first + 1, second - first - 1));
  if (!PutBack(l1, parts.substr(second + 1)) || !PutBack(l0, l1)) return std::nullopt;
  return l0;
}

// ---- lines

Error Invalid(std::string message, std::string hint) {
  return FormatError(std::move(message)).WithHint(std::move(hint));
}

struct SheetLine {
  std::size_t index = 0;
  std::size_t count = 0;
  std::string_view set;
  std::string_view data;
};

// TakeField returns what stands before the next '/', and takes both off.
std::string_view TakeField(std::string_view& rest) {
  const std::size_t slash = rest.find('/');
  const std::string_view field = rest.substr(0, slash);
  rest.remove_prefix(slash == std::string_view::npos ? rest.size() : slash + 1);
  return field;
}

std::size_t ParseCount(std::string_view text) {
  std::size_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool canonical = !text.empty() && text.front() != '0' && text.size() <= 4;
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return canonical && whole && number <= kMaxSheetLines ? number : 0;
}

Result<SheetLine> ParseLine(std::string_view text, std::size_t number) {
  std::string_view rest = text.substr(kMark.size());
  SheetLine line;
  line.index = ParseCount(TakeField(rest));
  line.count = ParseCount(TakeField(rest));
  line.set = TakeField(rest);
  const std::string_view check = TakeField(rest);
  line.data = rest;
  if (line.index == 0 || line.index > line.count || line.set.size() != kSetDigits ||
      check.size() != kCheckDigits || line.data.empty()) {
    return Invalid(fmt::format("line {} is not KE1/I/N/SET/CHECK/DATA as on the sheet", number),
                   "scan the codes again; a line is one code, whole and unchanged");
  }
  if (HashDigits(line.data, kCheckDigits) != check) {
    return Invalid(
        fmt::format("line {} (code {} of {}) is not what was printed", number, line.index,
                    line.count),
        "scan this code again; a typed line: compare it with the sheet letter by letter");
  }
  return line;
}

std::string Trim(std::string_view line) {
  const std::size_t begin = line.find_first_not_of(kWhiteSpace);
  if (begin == std::string_view::npos) return "";
  line = line.substr(begin, line.find_last_not_of(kWhiteSpace) - begin + 1);
  if (line.starts_with(kScannerPrefix)) line.remove_prefix(kScannerPrefix.size());
  return std::string(line);
}

Error Incomplete(const std::map<std::size_t, std::string>& found, std::size_t count) {
  std::string list;
  std::size_t num_missing = 0;
  for (std::size_t index = 1; index <= count; ++index) {
    if (found.contains(index)) continue;
    if (++num_missing <= kMaxMissingShown)
      list += fmt::format("{}{}", list.empty() ? "" : ", ", index);
  }
  if (num_missing > kMaxMissingShown)
    list += fmt::format(" and {} more", num_missing - kMaxMissingShown);
  return Error(ErrorCode::kEnvelopeUnreadable, Action::kFixInput,
               fmt::format("of the sheet's {} codes, {} {}: {}", count, num_missing,
                           num_missing == 1 ? "is missing" : "are missing", list),
               "scan what is missing, from a picture of another resolution if need be, and add its "
               "lines to the file, in any order");
}

}  // namespace

Result<std::string> PackForSheet(ByteView envelope) {
  std::string l0(AsText(envelope));
  if (l0.ends_with('\n')) l0.pop_back();
  const std::string whole = l0;
  const auto l1 = TakeOut(l0, "payload");
  std::string outer = l1.value_or("");
  const auto header = TakeOut(outer, "aad");
  const std::string parts = l0 + "\n" + outer + "\n" + header.value_or("");
  if (!l1 || !header || Assemble(parts) != whole) {
    return FormatError("the envelope does not come apart into its three texts");
  }
  return EncodeBase32(Gzip(parts));
}

std::vector<std::string> CutSheetLines(std::string_view packed, std::size_t num_lines) {
  const std::string set = HashDigits(packed, kSetDigits);
  std::vector<std::string> lines;
  for (std::size_t index = 0; index < num_lines; ++index) {
    const std::size_t begin = packed.size() * index / num_lines;
    const std::size_t end = packed.size() * (index + 1) / num_lines;
    const std::string_view data = packed.substr(begin, end - begin);
    lines.push_back(fmt::format("{}{}/{}/{}/{}/{}", kMark, index + 1, num_lines, set,
                                HashDigits(data, kCheckDigits), data));
  }
  return lines;
}

bool LooksLikeSheet(ByteView file) {
  std::string_view text = AsText(file);
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  if (text.starts_with(kScannerPrefix)) text.remove_prefix(kScannerPrefix.size());
  return text.starts_with(kMark) || text.starts_with(kSheetTitle);
}

Result<Bytes> JoinSheetLines(std::string_view text) {
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  const bool is_text_form = text.starts_with(kSheetTitle);
  std::map<std::size_t, std::string> found;
  std::size_t count = 0;
  std::string set;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string trimmed = Trim(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (trimmed.empty()) continue;
    if (!trimmed.starts_with(kMark)) {
      if (is_text_form) continue;
      return Invalid(
          fmt::format("line {} is not of a recovery sheet: its lines begin with {}", number, kMark),
          "leave in the file only what was read from its QR codes, each on a line: scanners see "
          "other bar codes where there are none (zbarimg -Sdisable -Sqrcode.enable does not)");
    }
    ASSIGN_OR_RETURN(const SheetLine line, ParseLine(trimmed, number));
    if (count == 0) {
      count = line.count;
      set = line.set;
    }
    if (line.count != count || line.set != set) {
      return Invalid(fmt::format("line {} is of another sheet: {}, and those before it {}", number,
                                 std::string(line.set), set),
                     "keep the lines of one sheet; the third field of a line tells which it is");
    }
    const auto [place, is_new] = found.emplace(line.index, line.data);
    if (!is_new && place->second != line.data) {
      return Invalid(
          fmt::format("line {} contradicts an earlier line of code {}", number, line.index),
          "scan this code again and keep one line of it");
    }
  }
  if (found.size() < count) return Incomplete(found, count);
  std::string packed;
  for (const auto& [index, data] : found) packed += data;
  const Error bad = Invalid("the sheet's lines do not add up to an envelope",
                            "a line was changed: scan all codes again");
  if (packed.empty() || HashDigits(packed, kSetDigits) != set) return bad;
  const auto bytes = DecodeBase32(packed);
  const auto parts = bytes ? Gunzip(*bytes) : std::nullopt;
  const auto envelope = parts ? Assemble(*parts) : std::nullopt;
  if (!envelope || envelope->size() > kMaxFileSizeBytes) return bad;
  return Bytes(envelope->begin(), envelope->end());
}

}  // namespace keyescrow::envelope
