// One store under two processes with eight threads each: no update is lost, no commit waits for
// ever, and the log stays one chain.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "tests/unit/store/state_fixture.h"

namespace keyescrow::agent {
namespace {

constexpr int kNumProcesses = 2;
constexpr int kNumThreads = 8;
constexpr int kNumCommits = 10;

std::string KeyName(int process, int thread) {
  return "race/" + std::to_string(process) + "/" + std::to_string(thread);
}

// Commit has one thread escrow its own versions; each opens the store for itself, as a command
// does.
bool Commit(StateFixture& fixture, int process, int thread) {
  auto signer = FileSigner::Load(fixture.state, *LoadAgentIdentity(fixture.state));
  if (!signer) return false;
  for (int round = 0; round < kNumCommits; ++round) {
    auto journal = fixture.OpenWith(&*signer);
    if (!journal) return false;
    store::Change change;
    change.envelopes.push_back(
        MakeEnvelope(KeyName(process, thread), static_cast<std::uint32_t>(round + 1), 0));
    audit::Event event = MakeEvent(audit::EventType::kEscrowCreated, KeyName(process, thread));
    if (const auto done = journal->Append(std::move(event), change); !done) {
      ADD_FAILURE() << done.error().message();
      return false;
    }
  }
  return true;
}

bool RunThreads(StateFixture& fixture, int process) {
  std::atomic<int> num_done{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kNumThreads; ++thread) {
    threads.emplace_back([&, thread] { num_done += Commit(fixture, process, thread) ? 1 : 0; });
  }
  for (std::thread& thread : threads) thread.join();
  return num_done == kNumThreads;
}

TEST(OneStore, LosesNoUpdateOfTwoProcessesAndEightThreads) {
  StateFixture fixture;
  std::vector<pid_t> children;
  for (int process = 1; process < kNumProcesses; ++process) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) _exit(RunThreads(fixture, process) ? 0 : 1);
    children.push_back(child);
  }
  EXPECT_TRUE(RunThreads(fixture, 0));
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }

  auto journal = fixture.Open();
  ASSERT_TRUE(journal) << journal.error().message();
  constexpr std::size_t kNumAll = kNumProcesses * kNumThreads * kNumCommits;
  std::set<std::string> seen;
  store::EscrowStore::EnvelopeQuery query;
  query.all_revisions = true;
  ASSERT_TRUE(journal->store().Envelopes(query, [&](const store::EnvelopeRecord& record) {
    seen.insert(record.key_name + "@" + std::to_string(record.key_version));
    return true;
  }));
  EXPECT_EQ(seen.size(), kNumAll);
  const auto verified = journal->VerifyAll();
  ASSERT_TRUE(verified);
  EXPECT_TRUE(verified->Intact());
  EXPECT_EQ(journal->store().Head()->size, kNumAll);
}

}  // namespace
}  // namespace keyescrow::agent
