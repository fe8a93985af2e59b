#include "agent/key_locations/crash_safe_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <initializer_list>
#include <thread>
#include <utility>
#include <vector>

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

// Refuse makes the system calls fail for this process from now on, as file systems do that lack
// what they ask for: (number, errno).
void Refuse(std::initializer_list<std::pair<unsigned, unsigned>> calls) {
  std::vector<sock_filter> program = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
  for (const auto& [number, error_number] : calls) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error_number));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog all{static_cast<unsigned short>(program.size()), program.data()};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) std::abort();
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all) != 0) std::abort();
}

// Exit leaves a child of a test: 0 where all of it held.
[[noreturn]] void Exit(bool all_held) { _exit(all_held ? 0 : 1); }

TEST_F(CrashSafeFile, AFileSystemWithoutExclusiveRenamesAndLinks) {
  const auto write = [&] {
    Refuse({{SYS_renameat2, EINVAL}, {SYS_linkat, EPERM}});
    const bool written =
        WriteFileDurably(At("a"), AsBytes("text"), {.exclusive = true}).has_value();
    auto replacement = FileReplacement::Open(At("b"));
    const bool staged = replacement && replacement->Stage(AsBytes("ours"));
    Put("b", "theirs");
    const auto published = replacement->Publish(FileReplacement::Existing::kKeep);
    Exit(written && staged && !published && published.error().code() == ErrorCode::kAlreadyExists);
  };
  EXPECT_EXIT(write(), testing::ExitedWithCode(0), "");
  EXPECT_EQ(Get("a"), "text");
  EXPECT_EQ(Get("b"), "theirs");
}

TEST_F(CrashSafeFile, AFileSystemThatKeepsNoModes) {
  const auto write = [&] {
    Put("kept", "old", 0600);
    Put("read-by-others", "old", 0644);
    Refuse({{SYS_fchmod, EPERM}});
    const auto writes = [&](const char* name) {
      return WriteFileDurably(At(name), AsBytes("text"), {.mode = 0600}).has_value();
    };
    Exit(writes("a") && writes("kept") && !writes("read-by-others"));
  };
  EXPECT_EXIT(write(), testing::ExitedWithCode(0), "");
  EXPECT_EQ(Get("a"), "text");
  EXPECT_EQ(ModeOf("a"), 0600u);
  EXPECT_EQ(Get("kept"), "text");
  EXPECT_EQ(Get("read-by-others"), "old");
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

TEST_F(CrashSafeFile, ALineThatFoundNoRoomIsNotLeftByHalf) {
  Put("events", "first\n");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old = signal(SIGXFSZ, SIG_IGN);
  const rlimit small{10, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const auto added = AppendLineDurably(At("events"), "second, which is longer");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  signal(SIGXFSZ, old);
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code(), ErrorCode::kDestinationFull);
  ASSERT_TRUE(AppendLineDurably(At("events"), "third"));
  EXPECT_EQ(Get("events"), "first\nthird\n");
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
