#include "agent/usecases/state_use.h"

#include <atomic>
#include <fstream>
#include <thread>
#include <vector>

#include "tests/unit/store/state_fixture.h"

namespace keyescrow::agent {
namespace {

using std::chrono::milliseconds;

// Boots stand for kernels: a lock of this process is as good as one of another machine.
const StateUse::User kHere{"boot-1", "machine-a", "db1"};
const StateUse::User kHereRebooted{"boot-2", "machine-a", "db1"};
const StateUse::User kElsewhere{"boot-3", "machine-b", "db2"};

Result<StateUse> Claim(const TemporaryFolder& folder, const StateUse::User& user,
                       milliseconds patience = milliseconds(20)) {
  return StateUse::Claim(folder.path, user, patience);
}

TEST(StateUse, IsSharedByTheCommandsOfOneKernel) {
  TemporaryFolder folder;
  const auto first = Claim(folder, kHere);
  const auto second = Claim(folder, kHere);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->warning() + second->warning(), "");
}

TEST(StateUse, RefusesAnotherKernelWhileOneWorks) {
  TemporaryFolder folder;
  auto here = std::make_optional(*Claim(folder, kHere));
  for (const StateUse::User& other : {kElsewhere, kHereRebooted}) {
    const auto refused = Claim(folder, other);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::kStoreBusy);
    EXPECT_EQ(refused.error().action(), Action::kCheckSystemState);
    EXPECT_NE(refused.error().message().find("the host db1"), std::string::npos);
  }
  here.reset();
  EXPECT_TRUE(Claim(folder, kElsewhere));
}

TEST(StateUse, SaysOnceThatAnotherMachineWasHere) {
  TemporaryFolder folder;
  EXPECT_EQ(Claim(folder, kHere)->warning(), "");
  EXPECT_NE(Claim(folder, kElsewhere)->warning().find("the host db1"), std::string::npos);
  EXPECT_EQ(Claim(folder, kElsewhere)->warning(), "");
  EXPECT_NE(Claim(folder, kHere)->warning().find("the host db2"), std::string::npos);
}

TEST(StateUse, SaysNothingOfARebootAndOfAMachineWithoutAnId) {
  TemporaryFolder folder;
  EXPECT_EQ(Claim(folder, kHere)->warning(), "");
  EXPECT_EQ(Claim(folder, kHereRebooted)->warning(), "");
  EXPECT_EQ(Claim(folder, {"boot-4", "", "db1"})->warning(), "");
  EXPECT_EQ(Claim(folder, kElsewhere)->warning(), "");
}

TEST(StateUse, WaitsForACommandThatIsAboutToEnd) {
  TemporaryFolder folder;
  auto here = std::make_optional(*Claim(folder, kHere));
  std::thread end([&] {
    std::this_thread::sleep_for(milliseconds(50));
    here.reset();
  });
  EXPECT_TRUE(Claim(folder, kElsewhere, milliseconds(20'000)));
  end.join();
}

TEST(StateUse, TakesARecordThatIsNoneForNobody) {
  for (const std::string& left :
       {std::string(), std::string(40, '\0'), std::string("{\"boot\":"), std::string("[1]"),
        std::string("{\"boot\":7,\"pid\":\"x\"}"), std::string(5000, '{')}) {
    TemporaryFolder folder;
    std::ofstream(folder.path + "/in-use") << left;
    const auto use = Claim(folder, kHere);
    ASSERT_TRUE(use) << left;
    EXPECT_EQ(use->warning(), "");
    EXPECT_FALSE(Claim(folder, kElsewhere)) << "the record was not mended: " << left;
  }
}

TEST(StateUse, IsAdvisoryWhereThereCanBeNoLock) {
  TemporaryFolder folder;
  ASSERT_EQ(symlink("/etc/passwd", (folder.path + "/in-use").c_str()), 0);
  EXPECT_TRUE(Claim(folder, kHere));  // and the link was not followed: nothing is written there
  EXPECT_TRUE(StateUse::Claim(folder.path + "/nowhere", kHere, milliseconds(1)));
  EXPECT_TRUE(Claim(folder, {"", "machine-a", "db1"}));  // no /proc
}

TEST(StateUse, LetsTheFirstCommandsAfterABootThroughAllAtOnce) {
  TemporaryFolder folder;
  EXPECT_TRUE(Claim(folder, kHere));
  std::atomic<int> num_let_in{0};
  std::vector<std::thread> commands;
  for (int index = 0; index < 16; ++index) {
    commands.emplace_back([&] {
      const auto use = Claim(folder, kHereRebooted, milliseconds(20'000));
      num_let_in += use ? 1 : 0;
      std::this_thread::sleep_for(milliseconds(20));
    });
  }
  for (std::thread& command : commands) command.join();
  EXPECT_EQ(num_let_in, 16);
}

}  // namespace
}  // namespace keyescrow::agent
