// The lines of a recovery sheet, and what is packed in them.
#include "envelope/header.h"
#include "envelope/sheet_lines.h"
#include "tests/fuzz/fuzz.h"

namespace keyescrow::fuzz {

const Limits kLimits{.max_len = 16384, .memory_mib = 64, .cpu_s = 2};
void Prepare() {}

void VisitLargest(Feed feed) {
  const auto feed_text = [feed](const std::string& text) { feed(AsBytes(text)); };
  feed_text(std::string(3 << 20, 'A'));
  feed_text("KE1/1/4096/00000000/0000/" + std::string(3 << 20, 'A'));
  std::string blanks;
  while (blanks.size() < 1 << 20) blanks += " \r\n";
  feed_text(blanks);
  const std::string letters(1 << 20, 'x');
  const auto packed = envelope::PackForSheet(
      AsBytes("{\"payload\":\"eyJhYWQiOiJlMzAifQ\",\"x\":\"" + letters + "\"}"));
  FUZZ_CHECK(packed);
  for (const std::string& line : envelope::CutSheetLines(*packed, 1)) feed_text(line);
}

}  // namespace keyescrow::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace keyescrow;
  const ByteView bytes(data, size);
  const auto joined = envelope::JoinSheetLines(AsText(bytes));
  if (joined) {
    FUZZ_CHECK(joined->size() <= envelope::kMaxFileSizeBytes);
  } else {
    fuzz::CheckError(joined.error());
  }
  // What packs comes back, in any number of lines.
  const auto packed = envelope::PackForSheet(bytes);
  if (!packed) return 0;
  const std::size_t num_lines = 1 + size % std::min<std::size_t>(packed->size(), 100);
  std::string text;
  for (const std::string& line : envelope::CutSheetLines(*packed, num_lines)) text += line + "\n";
  const auto back = envelope::JoinSheetLines(text);
  FUZZ_CHECK(back);
  std::string_view whole = AsText(bytes);
  if (whole.ends_with('\n')) whole.remove_suffix(1);
  FUZZ_CHECK(AsText(*back) == whole);
  return 0;
}
