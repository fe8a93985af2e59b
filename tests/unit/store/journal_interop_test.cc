// Verifiers written elsewhere agree with our log: golang.org/x/mod/sumdb, and Python with openssl.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <fstream>

#include "agent/audit/merkle.h"
#include "envelope/base/base64url.h"
#include "tests/unit/store/state_fixture.h"

namespace keyescrow::agent {
namespace {

constexpr std::uint64_t kEntries = 300;

std::string OutputOf(const std::string& command) {
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  std::string output;
  std::array<char, 4096> buffer;
  while (fgets(buffer.data(), buffer.size(), pipe) != nullptr) output += buffer.data();
  return pclose(pipe) == 0 ? output : "failed: " + output;
}

// Export writes entries, checkpoint, vkeys, receipts and consistency proofs into a folder.
void Export(Journal& journal, const std::string& folder) {
  std::ofstream entries(folder + "/entries");
  ASSERT_TRUE(journal.Events({}, [&](const LoggedEvent& logged) {
    entries << logged.line << "\n";
    return true;
  }));
  std::ofstream(folder + "/checkpoint") << *journal.LatestCheckpoint();
  std::ofstream vkeys(folder + "/vkeys");
  for (const auto& key : journal.Keys()) vkeys << key.Vkey() << "\n";
  for (const std::uint64_t seq : {std::uint64_t{0}, std::uint64_t{255}, kEntries - 1}) {
    std::ofstream(folder + "/receipt." + std::to_string(seq)) << *journal.Prove(seq);
  }
  const audit::TileReader read = [&](unsigned level, std::uint64_t index) {
    return journal.store().Tile(level, index);
  };
  std::filesystem::create_directory(folder + "/tiles");
  for (unsigned level = 0; level < 3; ++level) {
    for (std::uint64_t index = 0; index * audit::kTileWidth < kEntries; ++index) {
      const auto tile = journal.store().Tile(level, index);
      ASSERT_TRUE(tile);
      if (tile->empty()) continue;
      const auto name = std::to_string(level) + "." + std::to_string(index);
      std::ofstream(folder + "/tiles/" + name) << AsText(*tile);
    }
  }
  for (std::uint64_t old_size = 1; old_size < kEntries; old_size += 7) {
    std::ofstream file(folder + "/consistency." + std::to_string(old_size));
    const auto proof = audit::ConsistencyProof(old_size, kEntries, read);
    ASSERT_TRUE(proof);
    for (const Bytes32& hash : *proof) {
      file << EncodeBase64(hash) << "\n";
    }
  }
}

struct ExportedLog {
  StateFixture fixture;
  TemporaryFolder folder;
  ExportedLog() {
    auto journal = fixture.Open();
    for (std::uint64_t i = 0; i < kEntries; ++i) {
      EXPECT_TRUE(journal->Append(MakeEvent(audit::EventType::kDrillPassed)));
    }
    Export(*journal, folder.path);
  }
};

TEST(JournalInterop, GoSumdbVerifiesCheckpointTilesReceiptsAndConsistency) {
  if (!std::filesystem::exists("/usr/share/gocode/src/golang.org/x/mod/sumdb/tlog")) {
    GTEST_SKIP() << "golang-golang-x-mod-dev is not installed";
  }
  const ExportedLog log;
  const std::string output =
      OutputOf("GO111MODULE=off GOFLAGS= GOPATH=/usr/share/gocode GOCACHE=" + log.folder.path +
               "/cache go run " KEYESCROW_SOURCE_DIR "/tests/unit/store/testdata/verify_log.go " +
               log.folder.path);
  EXPECT_EQ(output, "verified 300 3 3\n");
}

TEST(JournalInterop, PythonAndOpensslVerifyTheCheckpoint) {
  const ExportedLog log;
  const std::string command =
      "python3 " KEYESCROW_SOURCE_DIR "/tests/unit/store/testdata/verify_log.py " + log.folder.path;
  EXPECT_EQ(OutputOf(command), "verified 300\n");
  // One bit of one entry: it must not agree by accident.
  std::fstream entries(log.folder.path + "/entries", std::ios::in | std::ios::out);
  entries.seekp(100);
  entries.put('#');
  entries.close();
  EXPECT_TRUE(OutputOf(command).starts_with("failed"));
}

}  // namespace
}  // namespace keyescrow::agent
