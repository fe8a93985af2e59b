#include "agent/key_locations/crash_safe_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "tests/unit/key_locations/scratch_folder.h"

namespace keyescrow::agent {
namespace {

using testing::ElementsAre;

using CrashSafeFile = ScratchFolder;

TEST_F(CrashSafeFile, WritesWithTheModeAsked) {
  ASSERT_TRUE(WriteFileDurably(At("a.escrow"), AsBytes("text"), {.mode = 0640}));
  EXPECT_EQ(Get("a.escrow"), "text");
  EXPECT_EQ(ModeOf("a.escrow"), 0640u);
  EXPECT_THAT(Names(), ElementsAre("a.escrow"));
}

TEST_F(CrashSafeFile, ReplacesAndKeepsTheModeThatWasThere) {
  Put("a", "old", 0604);
  ASSERT_TRUE(WriteFileDurably(At("a"), AsBytes("new"), {.mode = 0644}));
  EXPECT_EQ(Get("a"), "new");
  EXPECT_EQ(ModeOf("a"), 0604u);
}

TEST_F(CrashSafeFile, WaitsForWhoHoldsTheFolder) {
  const int other = open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_EQ(flock(other, LOCK_EX), 0);
  std::thread writer([&] { EXPECT_TRUE(WriteFileDurably(At("a"), AsBytes("text"), {})); });
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_THAT(Names(), ElementsAre());
  ASSERT_EQ(flock(other, LOCK_UN), 0);
  writer.join();
  close(other);
  EXPECT_EQ(Get("a"), "text");
}

TEST_F(CrashSafeFile, ExclusiveRefusesANameThatIsTaken) {
  ASSERT_TRUE(WriteFileDurably(At("event"), AsBytes("1"), {.exclusive = true}));
  auto again = WriteFileDurably(At("event"), AsBytes("2"), {.exclusive = true});
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), ErrorCode::kAlreadyExists);
  EXPECT_EQ(Get("event"), "1");
}

TEST_F(CrashSafeFile, PublishKeepSeesANameThatAppearedMeanwhile) {
  auto replacement = FileReplacement::Open(At("a"));
  ASSERT_TRUE(replacement);
  ASSERT_TRUE(replacement->Stage(AsBytes("ours")));
  Put("a", "theirs");
  auto published = replacement->Publish(FileReplacement::Existing::kKeep);
  ASSERT_FALSE(published);
  EXPECT_EQ(published.error().code(), ErrorCode::kAlreadyExists);
  EXPECT_EQ(Get("a"), "theirs");
}

// Both ways to a name: where it is to be kept if taken, and where it is replaced.
TEST_F(CrashSafeFile, ANameThatCannotBeTakenIsAnError) {
  for (const auto existing :
       {FileReplacement::Existing::kReplace, FileReplacement::Existing::kKeep}) {
    auto replacement = FileReplacement::Open(At("a"));
    ASSERT_TRUE(replacement);
    ASSERT_TRUE(replacement->Stage(AsBytes("ours")));
    ASSERT_EQ(mkdir(At("a").c_str(), 0700), 0);
    EXPECT_FALSE(replacement->Publish(existing));
    ASSERT_EQ(rmdir(At("a").c_str()), 0);
  }
  EXPECT_THAT(Names(), ElementsAre());
}

TEST_F(CrashSafeFile, AFolderIsNoName) {
  for (const char* name : {".", "..", "b/", "b/.", "b/.."}) {
    const auto written = WriteFileDurably(At(name), AsBytes("text"), {});
    ASSERT_FALSE(written) << name;
    EXPECT_EQ(written.error().code(), ErrorCode::kDestinationIsFolder) << name;
  }
}

TEST_F(CrashSafeFile, APairIsReplacedTogetherAndKeepsItsModes) {
  ASSERT_TRUE(WritePairDurably(At("a"), AsBytes("1"), ".receipt", AsBytes("of 1"), {.mode = 0640}));
  EXPECT_EQ(chmod(At("a.receipt").c_str(), 0600), 0);
  ASSERT_TRUE(WritePairDurably(At("a"), AsBytes("2"), ".receipt", AsBytes("of 2"), {.mode = 0640}));
  EXPECT_EQ(Get("a"), "2");
  EXPECT_EQ(Get("a.receipt"), "of 2");
  EXPECT_EQ(ModeOf("a"), 0640u);
  EXPECT_EQ(ModeOf("a.receipt"), 0600u);
  EXPECT_THAT(Names(), ElementsAre("a", "a.receipt"));
}

TEST_F(CrashSafeFile, WhereOneOfAPairCannotBeWrittenBothAreAsTheyWere) {
  Put("a", "1");
  std::filesystem::create_directory(At("a.receipt"));
  EXPECT_FALSE(WritePairDurably(At("a"), AsBytes("2"), ".receipt", AsBytes("of 2"), {}));
  EXPECT_EQ(Get("a"), "1");
  EXPECT_THAT(Names(), ElementsAre("a", "a.receipt"));
  Put("b.receipt", "of b");
  std::filesystem::create_directory(At("b"));
  EXPECT_FALSE(WritePairDurably(At("b"), AsBytes("2"), ".receipt", AsBytes("of 2"), {}));
  EXPECT_EQ(Get("b.receipt"), "of b");
}

TEST_F(CrashSafeFile, AnUnpublishedFileIsRemoved) {
  {
    auto replacement = FileReplacement::Open(At("a"));
    ASSERT_TRUE(replacement);
    ASSERT_TRUE(replacement->Stage(AsBytes("text")));
    EXPECT_EQ(Names().size(), 1u);
    const FileReplacement moved = std::move(*replacement);
    EXPECT_EQ(Names().size(), 1u);
  }
  EXPECT_TRUE(Names().empty());
}

TEST_F(CrashSafeFile, TakesNamesOfTheGreatestLength) {
  const std::string name(255, 'n');
  ASSERT_TRUE(WriteFileDurably(At(name), AsBytes("text"), {}));
  EXPECT_EQ(Get(name), "text");
  auto longer = WriteFileDurably(At(name + "n"), AsBytes("text"), {});
  EXPECT_EQ(longer.error().code(), ErrorCode::kDestinationUnwritable);
}

}  // namespace
}  // namespace keyescrow::agent
