// Archives as a pack needs them: one form for each, and nothing else is taken.
#include "agent/report/ustar.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <utility>
#include <vector>

namespace keyescrow::agent::report {
namespace {

constexpr std::int64_t kTime = 1'800'000'000;
constexpr std::size_t kBlock = 512;
// Offsets of fields in a header.
constexpr std::size_t kModeAt = 100, kSizeAt = 124, kTimeAt = 136, kChecksumAt = 148, kTypeAt = 156,
                      kLinkAt = 157, kMagicAt = 257, kOwnerNameAt = 265, kPrefixAt = 345;

using Members = std::vector<std::pair<std::string, std::string>>;

Result<std::string> Written(const Members& members, std::int64_t time = kTime,
                            const std::string& folder = "keyescrow-db1-7") {
  std::string archive;
  TarWriter writer(folder, time, [&](ByteView bytes) -> Status {
    archive += AsText(bytes);
    return Ok();
  });
  for (const auto& [name, bytes] : members) RETURN_IF_ERROR(writer.Add(name, bytes));
  RETURN_IF_ERROR(writer.Finish());
  EXPECT_EQ(writer.size_bytes(), archive.size());
  return archive;
}

Result<TarReader> Opened(std::string_view archive) {
  const int fd = memfd_create("archive", MFD_CLOEXEC);
  EXPECT_GE(fd, 0);
  EXPECT_EQ(write(fd, archive.data(), archive.size()), static_cast<ssize_t>(archive.size()));
  return TarReader::FromDescriptor(fd);
}

void ExpectRefused(std::string_view archive, std::string_view words) {
  const auto reader = Opened(archive);
  ASSERT_FALSE(reader) << words;
  EXPECT_EQ(reader.error().code(), ErrorCode::kLogDamaged);
  EXPECT_NE(reader.error().message().find(words), std::string::npos) << reader.error().message();
}

// WithChecksum makes the header at `at` right again after it was changed.
void WithChecksum(std::string& archive, std::size_t at) {
  archive.replace(at + kChecksumAt, 8, 8, ' ');
  unsigned sum = 0;
  for (std::size_t i = 0; i < kBlock; ++i) sum += static_cast<unsigned char>(archive[at + i]);
  std::array<char, 8> digits{};
  std::snprintf(digits.data(), digits.size(), "%06o", sum);
  archive.replace(at + kChecksumAt, 6, digits.data(), 6);
  archive[at + kChecksumAt + 6] = '\0';
  archive[at + kChecksumAt + 7] = ' ';
}

const Members& Sample() {
  static const Members kSample = {{"README.txt", "what this is\n"},
                                  {"entries/000000000000.jsonl", std::string(1024, 'x')},
                                  {"tile/0/x001/067.p/5", ""}};
  return kSample;
}

// Changed writes the sample and puts `bytes` into its first header.
std::string Changed(std::size_t at, std::string_view bytes) {
  std::string archive = *Written(Sample());
  archive.replace(at, bytes.size(), bytes);
  WithChecksum(archive, 0);
  return archive;
}

TEST(Ustar, ReadsBackWhatItWrote) {
  const auto archive = Written(Sample());
  ASSERT_TRUE(archive);
  EXPECT_EQ(archive->size(), 3 * kBlock + kBlock + 1024 + 2 * kBlock);
  const auto reader = Opened(*archive);
  ASSERT_TRUE(reader) << reader.error().message();
  EXPECT_EQ(reader->folder(), "keyescrow-db1-7");
  EXPECT_EQ(reader->time(), kTime);
  ASSERT_EQ(reader->names().size(), Sample().size());
  for (std::size_t i = 0; i < Sample().size(); ++i) {
    EXPECT_EQ(reader->names()[i], Sample()[i].first);
    EXPECT_EQ(reader->Read(Sample()[i].first).value(), Sample()[i].second);
  }
  const auto missing = reader->Read("MANIFEST");
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message().find("MANIFEST is missing"), std::string::npos);
}

TEST(Ustar, TheSameMembersAreTheSameBytes) {
  EXPECT_EQ(*Written(Sample()), *Written(Sample()));
  EXPECT_NE(*Written(Sample()), *Written(Sample(), kTime + 1));
}

TEST(Ustar, ReadsAfterItWasMoved) {
  auto reader = Opened(*Written(Sample()));
  ASSERT_TRUE(reader);
  const TarReader moved = std::move(*reader);
  EXPECT_EQ(moved.names().front(), "README.txt");
  EXPECT_EQ(moved.Read("README.txt").value(), "what this is\n");
}

TEST(Ustar, WritesNoNameThatLeavesTheFolder) {
  for (const char* name : {"", "/etc/passwd", "../x", "a/../x", "a//b", "a/", ".", "a/./b", "a b",
                           "a\\b", "\xc3\xa9"}) {
    const auto written = Written({{name, "x"}});
    ASSERT_FALSE(written) << name;
    EXPECT_EQ(written.error().code(), ErrorCode::kInternal);
  }
  EXPECT_FALSE(Written({{std::string(101, 'a'), "x"}}));
  EXPECT_TRUE(Written({{std::string(100, 'a'), "x"}}));
  EXPECT_FALSE(Written({{"a", "x"}}, -1));
  EXPECT_FALSE(Written({{"a", "x"}}, kTime, "two/folders"));
  EXPECT_FALSE(Written({{"a", "x"}}, kTime, ".."));
  EXPECT_FALSE(Written({{"a", "x"}}, kTime, ""));
}

TEST(Ustar, RefusesAWrongChecksum) {
  std::string archive = *Written(Sample());
  archive[kChecksumAt] = archive[kChecksumAt] == '0' ? '1' : '0';
  ExpectRefused(archive, "no header that a pack has at byte 0");
}

TEST(Ustar, RefusesEveryChangedByteOfAHeader) {
  const std::string archive = *Written(Sample());
  for (std::size_t at = 0; at < kBlock; ++at) {
    std::string changed = archive;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    EXPECT_FALSE(Opened(changed)) << at;
  }
}

TEST(Ustar, RefusesPathsThatLeaveTheFolder) {
  for (const std::string name : {"/etc/passwd", "../README", "a/../../b", "a//b"}) {
    ExpectRefused(Changed(0, name + std::string(20, '\0')), "no header");
  }
  for (const std::string folder : {"..", ".", "/etc", "a/b"}) {
    ExpectRefused(Changed(kPrefixAt, folder + std::string(20, '\0')), "no header");
  }
  ExpectRefused(Changed(kPrefixAt, std::string(20, '\0')), "no header");
}

TEST(Ustar, RefusesWhatIsNoRegularFile) {
  // Links, devices, folders, pipes, contiguous files, and the headers of pax and GNU.
  for (const char type : {'\0', '1', '2', '3', '4', '5', '6', '7', 'x', 'g', 'L', 'K', 'S'}) {
    ExpectRefused(Changed(kTypeAt, std::string(1, type)), "no header");
  }
  ExpectRefused(Changed(kLinkAt, "/etc/passwd"), "no header");
  ExpectRefused(Changed(kModeAt, "0004755"), "no header");
  ExpectRefused(Changed(kOwnerNameAt, "root"), "no header");
  ExpectRefused(Changed(kMagicAt, "ustar  "), "no header");
}

TEST(Ustar, RefusesOtherNumbers) {
  const std::string base256 = "\x80" + std::string(10, '\0') + "\x0d";
  for (const std::string& size :
       {base256, std::string("         15\0", 12), std::string("00000000015 ", 12),
        std::string("-0000000015\0", 12), std::string("0000000001z\0", 12), std::string(12, '7')}) {
    ExpectRefused(Changed(kSizeAt, size), "no header");
    ExpectRefused(Changed(kTimeAt, size), "no header");
  }
}

TEST(Ustar, RefusesASizeBeyondTheArchive) {
  ExpectRefused(Changed(kSizeAt, "77777777777"), "cut off in README.txt");
  ExpectRefused(Changed(kSizeAt, "00000010000"), "cut off in README.txt");
}

TEST(Ustar, RefusesAMemberTwice) {
  ExpectRefused(*Written({{"a", "1"}, {"b", "2"}, {"a", "1"}}), "two members a");
}

TEST(Ustar, RefusesASecondFolderOrTime) {
  const std::string first = *Written({{"a", "1"}});
  const std::string head = first.substr(0, first.size() - 2 * kBlock);
  ExpectRefused(head + *Written({{"b", "2"}}, kTime, "other"), "b is of another folder");
  ExpectRefused(head + *Written({{"b", "2"}}, kTime + 1), "b is of another folder or time");
  EXPECT_TRUE(Opened(head + *Written({{"b", "2"}})));
}

TEST(Ustar, RefusesEveryTruncation) {
  const std::string archive = *Written(Sample());
  for (std::size_t size = 0; size < archive.size(); size += 64) {
    EXPECT_FALSE(Opened(std::string_view(archive).substr(0, size))) << size;
  }
  ExpectRefused(archive.substr(0, archive.size() - 1), "cut off");
}

TEST(Ustar, RefusesWhatIsHiddenBehindAMemberOrTheEnd) {
  std::string archive = *Written(Sample());
  archive[kBlock + Sample()[0].second.size()] = 'x';
  ExpectRefused(archive, "behind the end of README.txt");
  archive = *Written(Sample());
  archive.back() = 'x';
  ExpectRefused(archive, "behind the end of the pack");
  ExpectRefused(*Written(Sample()) + std::string(kBlock, '\0'), "behind the end of the pack");
  ExpectRefused(*Written(Sample()) + *Written(Sample()), "behind the end of the pack");
}

TEST(Ustar, OpensRegularFilesAlone) {
  const auto folder = TarReader::Open("/");
  ASSERT_FALSE(folder);
  EXPECT_EQ(folder.error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(TarReader::Open("/nonexistent/pack.tar").error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(TarReader::Open("/dev/null").error().code(), ErrorCode::kNotFound);
  EXPECT_FALSE(IsTar("/"));
  EXPECT_FALSE(IsTar("/dev/zero"));
}

}  // namespace
}  // namespace keyescrow::agent::report
