// The store on a bad day: no permission, no space, another holder, damage.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <future>
#include <thread>

#include "agent/store/schema.h"
#include "tests/unit/store/state_fixture.h"

namespace keyescrow::agent {
namespace {

using audit::EventType;
using std::chrono::milliseconds;

// CodeInChild runs `body` in a child process and returns the error code that it ended with.
ErrorCode CodeInChild(const std::function<Status()>& body) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto status = body();
    const auto code = status ? UINT16_MAX : static_cast<std::uint16_t>(status.error().code());
    _exit(write(ends[1], &code, sizeof code) == sizeof code ? 0 : 1);
  }
  close(ends[1]);
  std::uint16_t code = UINT16_MAX - 1;
  EXPECT_EQ(read(ends[0], &code, sizeof code), static_cast<ssize_t>(sizeof code));
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return static_cast<ErrorCode>(code);
}

Status AppendAlone(const StateFixture& fixture) {
  ASSIGN_OR_RETURN(auto journal, fixture.OpenWith(nullptr));
  RETURN_IF_ERROR(journal.Append(MakeEvent(EventType::kRestoreRequested)));
  return Ok();
}

TEST(StatePermissions, WhatOthersCanReadIsRefusedWithTheCommandToRun) {
  StateFixture fixture;
  ASSERT_TRUE(fixture.Open()->Append(MakeEvent(EventType::kAgentStarted)));
  for (const std::string name : {"", "/store.db", "/store.db-wal", "/agent.json"}) {
    const std::string path = fixture.state + name;
    for (const mode_t mode : {0640U, 0604U, 0620U}) {
      const mode_t right = name.empty() ? 0700 : 0600;
      ASSERT_EQ(chmod(path.c_str(), name.empty() ? mode | 0100 : mode), 0) << path;
      const auto journal = fixture.Open();
      ASSERT_FALSE(journal) << path;
      EXPECT_EQ(journal.error().code(), ErrorCode::kStatePermissions) << path;
      EXPECT_NE(journal.error().hint().find("chmod"), std::string::npos);
      if (name != "/agent.json") {  // which is not the store's
        const auto store = store::SqliteStore::Open(fixture.state);
        ASSERT_FALSE(store) << path;
        EXPECT_EQ(store.error().code(), ErrorCode::kStatePermissions) << path;
      }
      ASSERT_EQ(chmod(path.c_str(), right), 0);
    }
  }
  ASSERT_TRUE(fixture.Open());
  ASSERT_EQ(chmod((fixture.state + "/ed25519.seed").c_str(), 0644), 0);
  EXPECT_EQ(LoadEd25519Seed(fixture.state).error().code(), ErrorCode::kStatePermissions);
}

TEST(StatePermissions, FilesAreCreatedPrivateWhateverTheUmask) {
  for (const mode_t mask : {0000U, 0377U}) {
    const mode_t before = umask(mask);
    StateFixture fixture;
    EXPECT_TRUE(fixture.Open()->Append(MakeEvent(EventType::kAgentStarted)));
    umask(before);
    struct stat info {};
    ASSERT_EQ(stat(fixture.state.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, 0700u);
    for (const auto& entry : std::filesystem::directory_iterator(fixture.state)) {
      ASSERT_EQ(stat(entry.path().c_str(), &info), 0);
      EXPECT_EQ(info.st_mode & 07777, 0600u) << entry.path();
    }
  }
}

// What lies where a store is to be made is not ours: its mode stays.
TEST(StatePermissions, AFileInTheStoresPlaceKeepsItsMode) {
  TemporaryFolder folder;
  const std::string path = folder.path + "/store.db";
  std::ofstream(path) << "somebody's file";
  ASSERT_EQ(chmod(path.c_str(), 0400), 0);
  EXPECT_FALSE(store::SqliteStore::Create(folder.path));
  struct stat info {};
  ASSERT_EQ(stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0400u);
}

TEST(StatePermissions, SymbolicLinksAreRefused) {
  StateFixture fixture;
  for (const char* name : {"/store.db", "/agent.json"}) {
    const std::string path = fixture.state + name;
    std::filesystem::rename(path, fixture.folder.path + "/elsewhere");
    std::filesystem::create_symlink(fixture.folder.path + "/elsewhere", path);
    const auto journal = fixture.Open();
    ASSERT_FALSE(journal) << name;
    EXPECT_EQ(journal.error().code(), ErrorCode::kStatePermissions) << name;
    EXPECT_NE(journal.error().message().find("is not a regular file"), std::string::npos) << name;
    std::filesystem::remove(path);
    std::filesystem::rename(fixture.folder.path + "/elsewhere", path);
  }
  EXPECT_TRUE(fixture.Open());
}

TEST(StatePermissions, ForeignOwnersAreRefused) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to give a file away";
  StateFixture fixture;
  ASSERT_EQ(chown(fixture.StoreFile().c_str(), 65534, 65534), 0);
  EXPECT_EQ(fixture.Open().error().code(), ErrorCode::kStatePermissions);
}

TEST(StoreFaults, AReadOnlyStoreReadsAndSaysThatItCannotWrite) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become somebody whom modes bind";
  StateFixture fixture;
  ASSERT_TRUE(fixture.Open()->Append(MakeEvent(EventType::kAgentStarted)));
  ASSERT_EQ(chmod(fixture.folder.path.c_str(), 0755), 0);
  for (const auto& entry : std::filesystem::directory_iterator(fixture.state)) {
    ASSERT_EQ(chown(entry.path().c_str(), 65534, 65534), 0);
    ASSERT_EQ(chmod(entry.path().c_str(), 0400), 0);
  }
  ASSERT_EQ(chown(fixture.state.c_str(), 65534, 65534), 0);
  const auto as_nobody = [&](const std::function<Status()>& body) {
    return CodeInChild([&]() -> Status {
      if (setgid(65534) != 0 || setuid(65534) != 0) _exit(3);
      return body();
    });
  };
  EXPECT_EQ(as_nobody([&] { return AppendAlone(fixture); }), ErrorCode::kStoreReadOnly);
  EXPECT_EQ(as_nobody([&]() -> Status {
              ASSIGN_OR_RETURN(auto journal, fixture.OpenWith(nullptr));
              return journal.store().CheckWritable();
            }),
            ErrorCode::kStoreReadOnly);
}

TEST(StoreFaults, AFullDiskIsToldAndNothingIsLost) {
  StateFixture fixture;
  ASSERT_TRUE(fixture.Open()->Append(MakeEvent(EventType::kAgentStarted)));
  // RLIMIT_FSIZE gives EFBIG where a full disk gives ENOSPC, in the middle of a commit.
  const ErrorCode code = CodeInChild([&]() -> Status {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{400 * 1024, 400 * 1024};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(3);
    for (int i = 0; i < 1000; ++i) RETURN_IF_ERROR(AppendAlone(fixture));
    return Ok();
  });
  EXPECT_EQ(code, ErrorCode::kStoreFull);
  auto journal = fixture.Open();
  ASSERT_TRUE(journal->Append(MakeEvent(EventType::kRestoreRequested)));
  EXPECT_TRUE(journal->VerifyAll()->Intact());
}

TEST(StoreFaults, ARealFullFileSystemIsStoreFull) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to mount a small file system";
  TemporaryFolder folder;
  StateFixture model;
  const ErrorCode code = CodeInChild([&]() -> Status {
    if (unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", folder.path.c_str(), "tmpfs", 0, "size=1m,mode=0700") != 0) {
      _exit(3);
    }
    std::filesystem::copy(model.state, folder.path, std::filesystem::copy_options::recursive);
    ASSIGN_OR_RETURN(AgentIdentity identity, LoadAgentIdentity(folder.path));
    ASSIGN_OR_RETURN(SecretBytes seed, LoadEd25519Seed(folder.path));
    JournalOptions options;
    options.state_dir = folder.path;
    options.identity = std::move(identity);
    options.ed25519_seed = std::move(seed);
    ASSIGN_OR_RETURN(Journal journal, Journal::Open(std::move(options)));
    for (int i = 0; i < 1000; ++i) {
      const auto receipt = journal.Append(MakeEvent(EventType::kRestoreRequested));
      if (receipt) continue;
      if (receipt.error().code() != ErrorCode::kStoreFull) return receipt.error();
      return journal.store().CheckWritable();
    }
    return Ok();
  });
  EXPECT_EQ(code, ErrorCode::kStoreFull);
}

TEST(StoreFaults, AnotherWriterMakesItBusyAndReadsGoOn) {
  StateFixture fixture;
  auto journal = fixture.Open({.busy_timeout = milliseconds(50)});
  ASSERT_TRUE(journal->Append(MakeEvent(EventType::kAgentStarted)));
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(fixture.StoreFile().c_str(), &other), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(other, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr), SQLITE_OK);
  EXPECT_EQ(journal->Append(MakeEvent(EventType::kAgentStopped)).error().code(),
            ErrorCode::kStoreBusy);
  EXPECT_EQ(journal->store().CheckWritable().error().code(), ErrorCode::kStoreBusy);
  EXPECT_EQ(journal->store().Head()->size, 1u);
  sqlite3_close(other);
  EXPECT_TRUE(journal->store().CheckWritable());
  EXPECT_TRUE(journal->Append(MakeEvent(EventType::kAgentStopped)));
}

TEST(StoreFaults, AFileThatIsNoStoreIsDamage) {
  StateFixture fixture;
  for (const char* suffix : {"-wal", "-shm"}) std::filesystem::remove(fixture.StoreFile() + suffix);
  std::ofstream(fixture.StoreFile(), std::ios::trunc) << std::string(40000, 'x');
  EXPECT_EQ(fixture.Open().error().code(), ErrorCode::kStoreDamaged);
}

TEST(StoreFaults, ASchemaThatNoVersionWritesIsDamage) {
  StateFixture fixture;
  ASSERT_EQ(fixture.Tamper("PRAGMA user_version = -1"), SQLITE_OK);
  const auto journal = fixture.Open();
  ASSERT_FALSE(journal);
  EXPECT_EQ(journal.error().code(), ErrorCode::kStoreDamaged);
}

// Two processes of a new version open an old store at once: who waited finds it upgraded.
TEST(StoreFaults, AnUpgradeThatAnotherProcessDidIsNotDoneAgain) {
  StateFixture fixture;
  ASSERT_EQ(fixture.Tamper("PRAGMA user_version = 11"), SQLITE_OK);
  sqlite3* other = nullptr;
  ASSERT_EQ(sqlite3_open(fixture.StoreFile().c_str(), &other), SQLITE_OK);
  const auto run = [other](const std::string& sql) {
    return sqlite3_exec(other, sql.c_str(), nullptr, nullptr, nullptr);
  };
  ASSERT_EQ(run("BEGIN IMMEDIATE"), SQLITE_OK);
  ASSERT_EQ(run("PRAGMA user_version = " + std::to_string(store::kSchemaVersion)), SQLITE_OK);
  auto opened = std::async(std::launch::async, [&] {
    const auto journal = fixture.Open();
    return journal ? std::string() : journal.error().message();
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // it has seen the old number
  EXPECT_EQ(run("COMMIT"), SQLITE_OK);
  EXPECT_EQ(opened.get(), "");
  sqlite3_close(other);
}

}  // namespace
}  // namespace keyescrow::agent
