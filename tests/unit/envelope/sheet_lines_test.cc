#include "envelope/sheet_lines.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace keyescrow::envelope {
namespace {

Bytes Fixture(const std::string& name) {
  std::ifstream file(KEYESCROW_SOURCE_DIR "/tests/fixtures/0.1.0/" + name, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(file), {});
}

std::vector<std::string> LinesOf(const Bytes& envelope, std::size_t num_lines) {
  const auto packed = PackForSheet(envelope);
  EXPECT_TRUE(packed);
  return packed ? CutSheetLines(*packed, num_lines) : std::vector<std::string>();
}

std::string Text(const std::vector<std::string>& lines, std::string_view end = "\n") {
  std::string text;
  for (const std::string& line : lines) text.append(line).append(end);
  return text;
}

void ExpectRefused(const std::string& text, ErrorCode code, std::string_view says) {
  const auto joined = JoinSheetLines(text);
  ASSERT_FALSE(joined) << text;
  EXPECT_EQ(joined.error().code(), code) << joined.error().message();
  EXPECT_NE(joined.error().message().find(says), std::string::npos) << joined.error().message();
}

TEST(SheetLines, AnyOrderRepeatedAndAsScannersGiveThem) {
  const Bytes envelope = Fixture("db-main-2.escrow");
  ASSERT_EQ(envelope.back(), '\n');
  const Bytes without(envelope.begin(), envelope.end() - 1);
  for (const std::size_t num_lines : {1U, 6U, 13U, 120U}) {
    std::vector<std::string> lines = LinesOf(envelope, num_lines);
    ASSERT_EQ(lines.size(), num_lines);
    std::reverse(lines.begin(), lines.end());
    lines.push_back(lines.front());
    EXPECT_EQ(JoinSheetLines(Text(lines)), without);
    EXPECT_EQ(JoinSheetLines("\xEF\xBB\xBF\r\n" + Text(lines, " \t\r\n\r\n")), without);
    EXPECT_EQ(JoinSheetLines("QR-Code:" + Text(lines, "\nQR-Code:") + lines[0]), without);
    EXPECT_TRUE(LooksLikeSheet(AsBytes(Text(lines))));
  }
  EXPECT_FALSE(LooksLikeSheet(envelope));
}

// Every valid envelope of the vectors comes back byte for byte, however another wrote it.
TEST(SheetLines, EveryValidVectorComesBack) {
  std::size_t num_valid = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(KEYESCROW_SOURCE_DIR "/tests/vectors")) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string text(std::istreambuf_iterator<char>(file), {});
    const std::size_t head = text.find("\n\n");
    if (head == std::string::npos || text.find("expect: ok\n") > head) continue;
    std::string envelope = text.substr(head + 2);
    if (envelope.find("\"payload\"") == std::string::npos) continue;  // large ones are compressed
    const auto lines = LinesOf(Bytes(envelope.begin(), envelope.end()), 7);
    if (envelope.ends_with('\n')) envelope.pop_back();
    const auto joined = JoinSheetLines(Text(lines));
    ASSERT_TRUE(joined) << entry.path();
    EXPECT_EQ(AsText(*joined), envelope) << entry.path();
    ++num_valid;
  }
  EXPECT_GE(num_valid, 75U);
}

TEST(SheetLines, SaysWhatIsMissingOrWrong) {
  const std::vector<std::string> lines = LinesOf(Fixture("db-main-1.escrow"), 6);
  std::vector<std::string> some = lines;
  some.erase(some.begin() + 4);
  some.erase(some.begin() + 1);
  ExpectRefused(Text(some), ErrorCode::kEnvelopeUnreadable,
                "of the sheet's 6 codes, 2 are missing: 2, 5");
  ExpectRefused(Text({lines[3]}), ErrorCode::kEnvelopeUnreadable, "1, 2, 3, 5, 6");

  some = lines;
  char& letter = some[2][60];
  letter = letter == 'A' ? 'B' : 'A';
  ExpectRefused(Text(some), ErrorCode::kEnvelopeFormat, "line 3 (code 3 of 6)");

  some = lines;
  some[5] = LinesOf(Fixture("app-signing.escrow"), 6)[5];
  ExpectRefused(Text(some), ErrorCode::kEnvelopeFormat, "line 6 is of another sheet");
  some[5] = "note to self";
  ExpectRefused(Text(some), ErrorCode::kEnvelopeFormat, "line 6 is not of a recovery sheet");
  some = lines;
  some[5] = lines[4];
  some[5][4] = '6';  // the data of code 5 as code 6
  ExpectRefused(Text(some), ErrorCode::kEnvelopeFormat, "do not add up");
  some.push_back(lines[5]);
  ExpectRefused(Text(some), ErrorCode::kEnvelopeFormat, "contradicts");
}

TEST(SheetLines, RefusesWhatIsNoLine) {
  const std::string line = LinesOf(Fixture("db-main-1.escrow"), 1)[0];
  for (const char* const begin : {"KE1/0/1/", "KE1/2/1/", "KE1/1/5000/", "KE1/01/1/", "KE1/1/",
                                  "KE1/", "KE1//1/", "KE1/1/1/1/"}) {
    ExpectRefused(begin + line.substr(8), ErrorCode::kEnvelopeFormat, "line 1 ");
  }
  ExpectRefused(line + "=", ErrorCode::kEnvelopeFormat, "line 1 ");
  ExpectRefused(line.substr(0, line.rfind('/') + 1), ErrorCode::kEnvelopeFormat, "line 1 ");
}

TEST(SheetLines, TextAroundTheLinesOnlyUnderTheTitle) {
  const Bytes envelope = Fixture("db-main-1.escrow");
  const std::string lines = Text(LinesOf(envelope, 40));
  EXPECT_TRUE(
      JoinSheetLines(std::string(kSheetTitle) + " of db\nsome text\n\n" + lines + "\nend\n"));
  ExpectRefused("some text\n" + lines, ErrorCode::kEnvelopeFormat, "line 1 ");
}

TEST(SheetLines, PacksEnvelopesAlone) {
  for (const std::string_view text :
       {"", "{}", "{\"payload\":\"\"}", "{\"payload\":\"e30\"}", "{\"payload\":\"!\"}"}) {
    const auto packed = PackForSheet(AsBytes(text));
    ASSERT_FALSE(packed) << text;
    EXPECT_EQ(packed.error().failure(), Failure::kFormat);
  }
}

}  // namespace
}  // namespace keyescrow::envelope
