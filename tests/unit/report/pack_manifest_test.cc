// MANIFEST and what is signed over it: each has one form.
#include "agent/report/pack_manifest.h"

#include <gtest/gtest.h>

#include "agent/report/ustar.h"
#include "envelope/base/clock.h"
#include "envelope/base/hash.h"

namespace keyescrow::agent::report {
namespace {

constexpr std::string_view kEmptySha256 =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

PackStatement Sample() {
  return {"keyescrow.log/db1/x", 7, Sha256(AsBytes("manifest")), *ParseUtc("2026-11-26T04:00:00Z")};
}

TEST(PackManifest, ReadsLinesAsSha256sumWritesThem) {
  const std::string text =
      FormatManifestLine("README.txt", "") + FormatManifestLine("tile/0/x001/067.p/5", "a");
  EXPECT_TRUE(text.starts_with(std::string(kEmptySha256) + "  README.txt\n"));
  const auto lines = ParseManifest(text);
  ASSERT_TRUE(lines);
  ASSERT_EQ(lines->size(), 2U);
  EXPECT_EQ((*lines)[0].name, "README.txt");
  EXPECT_EQ((*lines)[0].sha256_hex, kEmptySha256);
  EXPECT_EQ((*lines)[1].name, "tile/0/x001/067.p/5");
  EXPECT_TRUE(ParseManifest("")->empty());
}

TEST(PackManifest, RefusesOtherLines) {
  const std::string digest(kEmptySha256);
  for (const std::string& line :
       {digest + "  README.txt", digest + " README.txt\n", digest + " *README.txt\n",
        digest + "  \n", digest + "  ../README.txt\n", digest + "  /README.txt\n",
        digest + "  a b\n", digest + "  a\r\n", digest.substr(1) + "  README.txt\n",
        "E" + digest.substr(1) + "  README.txt\n", std::string("\n"),
        "\\" + digest + "  README.txt\n"}) {
    const auto lines = ParseManifest(line);
    ASSERT_FALSE(lines) << line;
    EXPECT_EQ(lines.error().code(), ErrorCode::kLogDamaged);
    EXPECT_NE(lines.error().message().find("MANIFEST"), std::string::npos);
  }
}

// Each line has its file read and hashed, before anybody vouched for any of it.
TEST(PackManifest, NamesNoFileTwice) {
  const std::string one = FormatManifestLine("entries/a", "") + FormatManifestLine("entries/b", "");
  ASSERT_TRUE(ParseManifest(one));
  for (const char* name : {"entries/a", "entries/b"}) {
    const std::string text = one + FormatManifestLine(name, "other");
    const auto lines = ParseManifest(text);
    ASSERT_FALSE(lines) << name;
    EXPECT_NE(lines.error().message().find(std::string("MANIFEST names ") + name + " twice"),
              std::string::npos)
        << lines.error().message();
  }
}

TEST(PackStatement, ReadsBackWhatItWrote) {
  const std::string text = FormatPackStatement(Sample());
  EXPECT_EQ(text,
            "keyescrow-pack/1\nkeyescrow.log/db1/x\n7\n"
            "BbOr8leaXrZkA814vlV/2GBjOh/iEDx2QgMN7+MsZX8=\n2026-11-26T04:00:00Z\n");
  const auto read = ParsePackStatement(text);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->origin, Sample().origin);
  EXPECT_EQ(read->log_size, 7U);
  EXPECT_EQ(read->manifest_sha256, Sample().manifest_sha256);
  EXPECT_EQ(read->time, Sample().time);
}

TEST(PackStatement, RefusesOtherTexts) {
  const std::string text = FormatPackStatement(Sample());
  const auto replaced = [&](std::string_view from, std::string_view to) {
    std::string changed = text;
    changed.replace(changed.find(from), from.size(), to);
    return changed;
  };
  for (const std::string& other :
       {std::string(), text + "\n", text.substr(0, text.size() - 1), "\n" + text,
        replaced("pack/1", "pack/2"), replaced("\n7\n", "\n07\n"), replaced("\n7\n", "\n+7\n"),
        replaced("\n7\n", "\n18446744073709551616\n"), replaced("\n7\n", "\n\n"),
        replaced("sZX8=", "sZX9="), replaced("sZX8=", "sZX8"), replaced("T04", " 04"),
        replaced("2026-11-26", "2026-02-30"), replaced("2026-11-26", "1926-11-26")}) {
    const auto read = ParsePackStatement(other);
    ASSERT_FALSE(read) << other;
    EXPECT_EQ(read.error().code(), ErrorCode::kLogDamaged);
  }
}

}  // namespace
}  // namespace keyescrow::agent::report
