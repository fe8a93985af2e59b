#include "agent/key_locations/file_location.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <atomic>
#include <thread>
#include <vector>

#include "agent/key_locations/crash_safe_file.h"
#include "tests/unit/key_locations/before_call.h"
#include "tests/unit/key_locations/scratch_folder.h"

namespace keyescrow::agent {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class FileLocation : public ScratchFolder {
 protected:
  Result<WriteOutcome> Write(const std::string& name, std::string_view key, bool replace = false) {
    return MakeFileLocation(At(name))->Write(Secret(key), {.replace = replace});
  }
  ErrorCode WriteError(const std::string& name, std::string_view key, bool replace = false) {
    auto outcome = Write(name, key, replace);
    EXPECT_FALSE(outcome);
    return outcome ? ErrorCode::kInternal : outcome.error().code();
  }
};

TEST_F(FileLocation, ReadsWhatStandsThere) {
  Put("key", std::string("a\0b\n", 4));
  EXPECT_EQ(Text(*MakeFileLocation(At("key"))->Read()), std::string("a\0b\n", 4));
  symlink("key", At("link").c_str());
  EXPECT_TRUE(MakeFileLocation(At("link"))->Read());
}

TEST_F(FileLocation, RefusesSizesThatNoKeyHas) {
  Put("empty", "");
  Put("largest", std::string(kMaxKeyBytes, 'k'));
  Put("larger", std::string(kMaxKeyBytes + 1, 'k'));
  EXPECT_EQ(MakeFileLocation(At("empty"))->Read().error().code(), ErrorCode::kSourceSize);
  EXPECT_EQ(MakeFileLocation(At("larger"))->Read().error().code(), ErrorCode::kSourceSize);
  EXPECT_EQ(MakeFileLocation(At("largest"))->Read()->size(), kMaxKeyBytes);
  EXPECT_EQ(MakeFileLocation("/dev/zero")->Read().error().code(), ErrorCode::kSourceSize);
  EXPECT_EQ(MakeFileLocation(At("none"))->Read().error().code(), ErrorCode::kSourceUnreadable);
  EXPECT_EQ(MakeFileLocation(folder_)->Read().error().code(), ErrorCode::kSourceUnreadable);
}

TEST_F(FileLocation, WritesANewFileForItsOwnerAlone) {
  const mode_t before = umask(0);
  auto outcome = Write("key", "secret");
  umask(before);
  ASSERT_TRUE(outcome);
  EXPECT_TRUE(outcome->written);
  EXPECT_EQ(Get("key"), "secret");
  EXPECT_EQ(ModeOf("key"), 0600u);
  EXPECT_THAT(Names(), ElementsAre("key"));
}

// What ends a process in an orderly way waits until no copy of the key stands under another name.
TEST_F(FileLocation, ASignalLeavesNoHalfWrittenKey) {
  int num_written = 0;
  for (int round = 0; round < 40; ++round) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const std::string key(200'000, 'k');
      for (int i = 0; i < 1000; ++i) {
        const std::string name = "key" + std::to_string(i % 2);
        unlink(At(name + kPreviousSuffix).c_str());
        if (!Write(name, key + std::to_string(i), true)) _exit(1);
      }
      _exit(0);
    }
    usleep(static_cast<useconds_t>(3000 + round * 700));
    const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    kill(child, numbers[round % 3]);
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status)) << status;
    for (const std::string& name : Names()) {
      EXPECT_EQ(name.find(".keyescrow-tmp"), std::string::npos) << name;
      ++num_written;
    }
  }
  EXPECT_GT(num_written, 0);
}

TEST_F(FileLocation, IsDoneWhenTheSameBytesStandThere) {
  Put("key", "secret", 0640);
  struct stat before {
  }, after{};
  stat(At("key").c_str(), &before);
  auto outcome = Write("key", "secret");
  ASSERT_TRUE(outcome);
  EXPECT_TRUE(outcome->already_same);
  EXPECT_FALSE(outcome->written);
  stat(At("key").c_str(), &after);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_THAT(Names(), ElementsAre("key"));
}

TEST_F(FileLocation, LeavesAnotherKeyAlone) {
  Put("key", "other");
  auto outcome = Write("key", "secret");
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().code(), ErrorCode::kDestinationOtherKey);
  EXPECT_THAT(outcome.error().hint(), HasSubstr("--replace"));
  EXPECT_EQ(Get("key"), "other");
  EXPECT_THAT(Names(), ElementsAre("key"));
}

TEST_F(FileLocation, ReplaceKeepsOwnerModeAndTheOldKey) {
  Put("key", "other", 0640);
  if (geteuid() == 0) {
    ASSERT_EQ(chown(At("key").c_str(), 1234, 4321), 0);
  }
  struct stat before {
  }, after{};
  stat(At("key").c_str(), &before);
  auto outcome = Write("key", "secret", true);
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_TRUE(outcome->written);
  EXPECT_EQ(outcome->previous_path, At("key.keyescrow-previous"));
  EXPECT_EQ(Get("key"), "secret");
  EXPECT_EQ(Get("key.keyescrow-previous"), "other");
  EXPECT_EQ(ModeOf("key.keyescrow-previous"), 0600u);
  stat(At("key").c_str(), &after);
  EXPECT_EQ(after.st_mode, before.st_mode);
  EXPECT_EQ(after.st_uid, before.st_uid);
  EXPECT_EQ(after.st_gid, before.st_gid);
  EXPECT_THAT(Names(), ElementsAre("key", "key.keyescrow-previous"));
}

TEST_F(FileLocation, ReplaceNeverOverwritesAKeyPutAsideEarlier) {
  Put("key", "second");
  Put("key.keyescrow-previous", "first");
  EXPECT_EQ(WriteError("key", "third", true), ErrorCode::kDestinationOtherKey);
  EXPECT_EQ(Get("key"), "second");
  EXPECT_EQ(Get("key.keyescrow-previous"), "first");

  Put("key.keyescrow-previous", "second");  // an interrupted run's copy
  auto outcome = Write("key", "third", true);
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->previous_path, At("key.keyescrow-previous"));
  EXPECT_EQ(Get("key"), "third");
  EXPECT_EQ(Get("key.keyescrow-previous"), "second");
}

TEST_F(FileLocation, ReplaceTakesBackWhatWasPutAside) {
  Put("key", "second");
  Put("key.keyescrow-previous", "first");
  auto outcome = Write("key", "first", true);
  ASSERT_TRUE(outcome) << outcome.error().message();
  EXPECT_EQ(outcome->previous_path, At("key.keyescrow-previous"));
  EXPECT_EQ(Get("key"), "first");
  EXPECT_EQ(Get("key.keyescrow-previous"), "second");
  EXPECT_EQ(ModeOf("key.keyescrow-previous"), 0600u);
  EXPECT_THAT(Names(), ElementsAre("key", "key.keyescrow-previous"));
}

TEST_F(FileLocation, FillsAnEmptyFileThatWasPreparedForTheKey) {
  Put("key", "", 0640);
  auto outcome = Write("key", "secret");
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->previous_path, "");
  EXPECT_EQ(Get("key"), "secret");
  EXPECT_EQ(ModeOf("key"), 0640u);
}

TEST_F(FileLocation, RefusesWhatIsNotARegularFile) {
  mkdir(At("folder").c_str(), 0700);
  Put("target", "other");
  symlink("target", At("link").c_str());
  symlink("nowhere", At("dangling").c_str());
  mkfifo(At("pipe").c_str(), 0600);
  const std::pair<const char*, ErrorCode> cases[] = {
      {"folder", ErrorCode::kDestinationIsFolder},
      {"folder/", ErrorCode::kDestinationIsFolder},
      {"folder/.", ErrorCode::kDestinationIsFolder},
      {"link", ErrorCode::kDestinationIsSymlink},
      {"dangling", ErrorCode::kDestinationIsSymlink},
      {"pipe", ErrorCode::kDestinationNotRegular},
      {"none/key", ErrorCode::kDestinationUnwritable},
      {"target/key", ErrorCode::kDestinationUnwritable}};
  for (const auto& [name, code] : cases) {
    EXPECT_EQ(WriteError(name, "secret", true), code) << name;
    auto writable = MakeFileLocation(At(name))->CheckWritable();
    ASSERT_FALSE(writable) << name;
    EXPECT_EQ(writable.error().code(), code) << name;
  }
  EXPECT_EQ(MakeFileLocation("/dev/null")->CheckWritable().error().code(),
            ErrorCode::kDestinationNotRegular);
  EXPECT_THAT(MakeFileLocation(At("none/key"))->CheckWritable().error().message(),
              HasSubstr("folder " + At("none")));
  EXPECT_EQ(Get("target"), "other");
}

TEST_F(FileLocation, RefusesToReplaceWhatIsTooLargeForAKey) {
  Put("data", std::string(kMaxKeyBytes + 1, 'd'));
  EXPECT_EQ(WriteError("data", "secret", true), ErrorCode::kDestinationOtherKey);
  EXPECT_THAT(Names(), ElementsAre("data"));
}

TEST_F(FileLocation, CheckWritableLeavesNothingBehind) {
  EXPECT_TRUE(MakeFileLocation(At("key"))->CheckWritable());
  EXPECT_TRUE(Names().empty());
  Put("key", "other", 0640);
  EXPECT_TRUE(MakeFileLocation(At("key"))->CheckWritable());
  EXPECT_EQ(Get("key"), "other");
  EXPECT_THAT(Names(), ElementsAre("key"));
}

TEST_F(FileLocation, RemovesWhatAKilledWriterLeft) {
  Put(".key.keyescrow-tmp", "half");
  ASSERT_TRUE(Write("key", "secret"));
  EXPECT_THAT(Names(), ElementsAre("key"));
}

TEST_F(FileLocation, ItsModeIsNotTheUmasksAffair) {
  const mode_t before = umask(0777);
  const bool written = Write("key", "secret").has_value();
  umask(before);
  EXPECT_TRUE(written);
  EXPECT_EQ(ModeOf("key"), 0600u);
}

// Everybody who may read the folder can lock it for ever.
TEST_F(FileLocation, GoesOnWithoutALockThatSomebodyKeeps) {
  Put("old", "the old key");
  Put("empty", "");
  Put("raced", "before");
  Put(".new.keyescrow-tmp1", "what a killed writer left");
  const int folder = open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_EQ(flock(folder, LOCK_EX), 0);
  Put(".busy.keyescrow-tmp1", "what another writer is at");
  const int busy = open(At(".busy.keyescrow-tmp1").c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_EQ(flock(busy, LOCK_EX), 0);

  std::vector<std::thread> writers;
  writers.emplace_back([&] { EXPECT_TRUE(Write("new", "a new key")); });
  writers.emplace_back([&] { EXPECT_TRUE(Write("old", "the next key", true)); });
  writers.emplace_back([&] { EXPECT_TRUE(Write("empty", "a key")); });
  writers.emplace_back([&] { EXPECT_TRUE(Write("busy", "a key")); });
  writers.emplace_back([&] {
    auto late = FileReplacement::Open(At("raced"));
    ASSERT_TRUE(late);
    struct stat found {};
    ASSERT_TRUE(*late->Inspect(&found));
    ASSERT_TRUE(late->Stage(AsBytes("late")));
    Put("other", "of another program");
    ASSERT_EQ(rename(At("other").c_str(), At("raced").c_str()), 0);
    const auto published = late->Publish(FileReplacement::Existing::kReplace);
    ASSERT_FALSE(published);
    EXPECT_EQ(published.error().code(), ErrorCode::kDestinationOtherKey);
  });
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(Get("new"), "a new key");
  EXPECT_EQ(Get("old"), "the next key");
  EXPECT_EQ(Get("old.keyescrow-previous"), "the old key");
  EXPECT_EQ(Get("empty"), "a key");
  EXPECT_EQ(Get("busy"), "a key");
  EXPECT_EQ(Get("raced"), "of another program");
  EXPECT_EQ(Get(".busy.keyescrow-tmp1"), "what another writer is at");
  close(busy);
  close(folder);
  EXPECT_TRUE(Write("busy", "a key", true));  // under the lock, nothing of the dead is left
  EXPECT_TRUE(Write("busy", "another key", true));
  EXPECT_THAT(Names(), ElementsAre("busy", "busy.keyescrow-previous", "empty", "new", "old",
                                   "old.keyescrow-previous", "raced"));
}

// Another program puts its key there before each system call in turn. The last look and the rename
// are not one call: of what comes between them, in three calls, nothing is known.
TEST_F(FileLocation, AKeyThatAnotherProgramPutsThereMeanwhileStays) {
  const std::string theirs = "their key", ours = "our key";  // theirs is as long as an older one
  struct Case {
    const char* old;
    bool in_place;  // they write into the file; else they rename a new one to its name
  };
  for (const auto& [old, in_place] :
       {Case{"the older", false}, Case{"", false}, Case{"the older", true}}) {
    int num_refused = 0, num_overwritten = 0;
    for (int n = 1;; ++n) {
      Put("key", old);
      const timespec long_ago[2] = {{1, 0}, {1, 0}};  // of the copy that keeps its time, too
      Put("theirs", theirs);
      for (const char* name : {"key", "theirs"}) {
        ASSERT_EQ(utimensat(AT_FDCWD, At(name).c_str(), long_ago, 0), 0);
      }
      unlink(At("key.keyescrow-previous").c_str());
      const auto done = BeforeCall(
          n,
          [&] {
            const auto outcome = Write("key", ours, true);
            if (outcome) return 0;
            return outcome.error().code() == ErrorCode::kDestinationOtherKey ? 1 : 2;
          },
          [&, in_place = in_place] {
            if (in_place) Put("key", theirs);
            if (!in_place) rename(At("theirs").c_str(), At("key").c_str());
          });
      if (!done) break;
      ASSERT_TRUE(*done == 0 || *done == 1) << *done << " at call " << n;
      if (*done == 1) {
        ++num_refused;
        EXPECT_EQ(Get("key"), theirs) << n;
      }
      if (Get("key") != theirs && Get("key.keyescrow-previous") != theirs) ++num_overwritten;
      EXPECT_FALSE(Names().contains(".key.keyescrow-tmp")) << n;
    }
    EXPECT_GT(num_refused, 3) << old;
    EXPECT_LE(num_overwritten, 3) << old;
    EXPECT_EQ(Get("key"), ours);
  }
}

TEST_F(FileLocation, KeepsAnAccessListAndNotItsMaskAsTheGroupsRights) {
  // user::rw- user:4321:r-- group::--- mask::r-- other::---
  constexpr unsigned char kList[] = {
      2, 0,    0,    0,    1,    0,    6,    0, 0xff, 0xff, 0xff, 0xff, 2,    0,    4,
      0, 0xe1, 0x10, 0,    0,    4,    0,    0, 0,    0xff, 0xff, 0xff, 0xff, 0x10, 0,
      4, 0,    0xff, 0xff, 0xff, 0xff, 0x20, 0, 0,    0,    0xff, 0xff, 0xff, 0xff};
  Put("key", "other");
  if (setxattr(At("key").c_str(), "system.posix_acl_access", kList, sizeof kList, 0) != 0) {
    GTEST_SKIP() << "this file system has no access lists";
  }
  ASSERT_EQ(ModeOf("key"), 0640u);
  ASSERT_TRUE(Write("key", "secret", true));
  unsigned char list[256];
  const ssize_t size = getxattr(At("key").c_str(), "system.posix_acl_access", list, sizeof list);
  EXPECT_EQ(std::string(list, list + size), std::string(kList, kList + sizeof kList));
}

TEST_F(FileLocation, WritersTakeTurns) {
  std::vector<std::thread> writers;
  std::atomic<int> num_written = 0;
  for (int i = 0; i < 8; ++i) {
    writers.emplace_back([&, i] {
      auto outcome = Write("key", "key of writer " + std::to_string(i));
      if (outcome) {
        ++num_written;
      } else {
        EXPECT_EQ(outcome.error().code(), ErrorCode::kDestinationOtherKey);
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(num_written, 1);
  EXPECT_THAT(Names(), ElementsAre("key"));
}

// InTinyFileSystem runs `body` in a child whose `folder` is a file system of 16 KiB; its exit
// status is the number of the expectation that failed, 0 for none.
template <typename Body>
int InTinyFileSystem(const std::string& folder, Body body) {
  const pid_t pid = fork();
  if (pid == 0) {
    if (unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("none", folder.c_str(), "tmpfs", 0, "size=16k") != 0) {
      _exit(99);
    }
    _exit(body());
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 98;
}

TEST_F(FileLocation, LeavesNothingHalfWrittenOnAFullDisk) {
  const int result = InTinyFileSystem(folder_, [&] {
    auto large = MakeFileLocation(At("key"))->Write(Secret(std::string(100000, 'k')), {});
    if (large || large.error().code() != ErrorCode::kDestinationFull) return 1;
    if (!Names().empty()) return 2;
    if (!MakeFileLocation(At("key"))->CheckWritable()) return 3;

    // The new key fits, the old one's copy does not.
    Put("key", std::string(4096, 'o'));
    Put("ballast", std::string(4096, 'b'));
    auto replaced =
        MakeFileLocation(At("key"))->Write(Secret(std::string(8192, 'n')), {.replace = true});
    if (replaced || replaced.error().code() != ErrorCode::kDestinationFull) return 4;
    if (Get("key") != std::string(4096, 'o')) return 5;
    if (Names() != std::set<std::string>{"ballast", "key"}) return 6;

    Put("more", std::string(8192, 'b'));
    auto writable = MakeFileLocation(At("new"))->CheckWritable();
    if (writable || writable.error().code() != ErrorCode::kDestinationFull) return 7;
    if (Names() != std::set<std::string>{"ballast", "key", "more"}) return 8;
    return 0;
  });
  if (result == 99) GTEST_SKIP() << "needs the right to mount";
  EXPECT_EQ(result, 0);
}

TEST_F(FileLocation, TellsAReadOnlyFileSystem) {
  const int result = InTinyFileSystem(folder_, [&] {
    Put("key", "same");
    if (mount("none", folder_.c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr) != 0) return 99;
    auto outcome = MakeFileLocation(At("new"))->Write(Secret("secret"), {});
    if (outcome || outcome.error().code() != ErrorCode::kDestinationUnwritable) return 1;
    if (outcome.error().native_code() != EROFS) return 2;
    return MakeFileLocation(At("key"))->Write(Secret("same"), {}) ? 0 : 3;
  });
  if (result == 99) GTEST_SKIP() << "needs the right to mount";
  EXPECT_EQ(result, 0);
}

TEST_F(FileLocation, AnUnprivilegedWriterIsToldOfPermissions) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root, to become somebody else";
  Put("key", "other", 0644);
  chmod(folder_.c_str(), 0755);
  const pid_t pid = fork();
  if (pid == 0) {
    if (setresgid(65534, 65534, 65534) != 0 || setresuid(65534, 65534, 65534) != 0) _exit(99);
    auto closed = MakeFileLocation(At("new"))->CheckWritable();
    _exit(closed || closed.error().code() != ErrorCode::kDestinationUnwritable ? 1 : 0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace keyescrow::agent
