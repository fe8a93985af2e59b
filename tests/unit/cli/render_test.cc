#include "agent/cli/render.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "agent/cli/terminal_text.h"

namespace keyescrow::agent {
namespace {

TEST(Render, DocumentsCarryTheirSchemaFirst) {
  Json document = NewDocument("token add");
  document["name"] = "ops";
  EXPECT_EQ(DumpDocument(document),
            "{\n  \"schema\": \"keyescrow/token-add/1\",\n  \"name\": \"ops\"\n}\n");
}

TEST(Render, InvalidUtf8NeverThrows) {
  Json document = NewDocument("list");
  document["name"] = "a\xff\xc0z";
  EXPECT_NE(DumpDocument(document).find("\xef\xbf\xbd"), std::string::npos);
  const Column columns[] = {{"name", "NAME"}, {"deep", "DEEP"}};
  document["deep"] = Json::object({{"x", "\xff"}});
  EXPECT_NO_THROW(RenderTable(Json::array({document}), columns));
}

TEST(Render, TablesAlignByDisplayWidthAndEscape) {
  const Json rows = Json::array({
      Json{{"key", {{"name", "prod/鍵"}}}, {"size", 32}, {"proven", true}, {"paths", {"a", "b"}}},
      Json{{"key", {{"name", "e\xcc\x81\x1b[2J"}}},
           {"size", 2048},
           {"proven", false},
           {"paths", Json::array()}},
  });
  const Column columns[] = {{"key.name", "NAME"},
                            {"size", "SIZE", CellFormat::kBytes, true},
                            {"proven", "PROVEN"},
                            {"paths", "PATHS"},
                            {"missing.member", "NOTE"}};
  EXPECT_EQ(RenderTable(rows, columns),
            "NAME          SIZE  PROVEN  PATHS  NOTE\n"
            "prod/鍵   32 bytes  yes     a, b   -\n"
            "e\xcc\x81\\x1b[2J   2.0 KiB  no      -      -\n");
  EXPECT_EQ(RenderTable(Json::array(), columns), "");
  EXPECT_EQ(RenderTable(Json("no array"), columns), "");
}

TEST(Render, FieldsLeaveOutWhatIsNotThere) {
  const Json object = Json{{"name", "ops"},
                           {"note", "two\nlines"},
                           {"created", "2026-01-01T00:00:00Z"},
                           {"nothing", nullptr}};
  const Column fields[] = {{"name", "name"},
                           {"note", "long title"},
                           {"nothing", "nothing"},
                           {"created", "created", CellFormat::kAge}};
  EXPECT_EQ(RenderFields(object, fields, 1767225600 + 3 * 86400),
            "name:        ops\n"
            "long title:  two\n"
            "             lines\n"
            "created:     3 days ago\n");
}

TEST(Render, DurationsAgesAndSizes) {
  EXPECT_EQ(FormatDuration(0), "0 seconds");
  EXPECT_EQ(FormatDuration(1), "1 second");
  EXPECT_EQ(FormatDuration(119), "1 minute");
  EXPECT_EQ(FormatDuration(7200), "2 hours");
  EXPECT_EQ(FormatDuration(364 * 86400LL), "364 days");
  EXPECT_EQ(FormatDuration(800 * 86400LL), "2 years");
  EXPECT_EQ(FormatDuration(-5), "0 seconds");
  EXPECT_EQ(FormatAge(100, 105), "just now");
  EXPECT_EQ(FormatAge(100, 100 + 3 * 86400), "3 days ago");
  EXPECT_EQ(FormatAge(100 + 7200, 100), "in 2 hours");
  EXPECT_EQ(FormatByteSize(1), "1 byte");
  EXPECT_EQ(FormatByteSize(1023), "1023 bytes");
  EXPECT_EQ(FormatByteSize(1536), "1.5 KiB");
  EXPECT_EQ(FormatByteSize(1048575), "1.0 MiB");
  EXPECT_EQ(FormatByteSize(~0ULL), "16.0 EiB");
}

TEST(Render, DisplayWidthCountsWideAndCombining) {
  EXPECT_EQ(DisplayWidth("abc"), 3U);
  EXPECT_EQ(DisplayWidth("鍵"), 2U);
  EXPECT_EQ(DisplayWidth("e\xcc\x81"), 1U);
  EXPECT_EQ(DisplayWidth("\xf0\x9f\x94\x91"), 2U);  // a key
  EXPECT_EQ(DisplayWidth("\xff"), 1U);
}

}  // namespace
}  // namespace keyescrow::agent
