#include "agent/usecases/fingerprint.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "agent/usecases/agent_state.h"
#include "tests/unit/store/state_fixture.h"

namespace keyescrow::agent {
namespace {

SecretBytes Secret(std::string_view text) { return *SecretBytes::CopyOf(AsBytes(text)); }

// WithKnownKey is a state folder whose fingerprint.key is 00 01 … 1f.
struct WithKnownKey : StateFixture {
  WithKnownKey() { Put(state); }
  static void Put(const std::string& state) {
    const std::string path = state + "/fingerprint.key";
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    for (int byte = 0; byte < 32; ++byte) file.put(static_cast<char>(byte));
    file.close();
    chmod(path.c_str(), 0600);
  }
};

TEST(Fingerprint, IsTheMacThatTheHeaderDefines) {
  const WithKnownKey fixture;
  const auto fingerprinter = Fingerprinter::Load(fixture.state);
  ASSERT_TRUE(fingerprinter) << fingerprinter.error().message();
  // Python's hmac, over the same parts.
  EXPECT_EQ(ToHex(fingerprinter->Of("prod/db", 3, Secret("the key"))),
            "6792fe3469800b3463557b412e2bdfbad08e8560a825364cf81adb54567ac76c");
  EXPECT_EQ(ToHex(fingerprinter->id()), "b38b37d1b28f2fb22697d6355fae8b92");
}

TEST(Fingerprint, IsBoundToNameAndVersion) {
  const WithKnownKey fixture;
  const auto fingerprinter = Fingerprinter::Load(fixture.state);
  const Bytes32 one = fingerprinter->Of("a", 1, Secret("key"));
  EXPECT_NE(one, fingerprinter->Of("a", 2, Secret("key")));
  EXPECT_NE(one, fingerprinter->Of("b", 1, Secret("key")));
  EXPECT_NE(one, fingerprinter->Of("a", 1, Secret("kez")));
  store::FingerprintRecord record;
  record.key_name = "a";
  record.key_version = 1;
  record.mac = one;
  EXPECT_FALSE(fingerprinter->Matches(record, Secret("key"))) << "of another fingerprint.key";
  record.mac_key_id = fingerprinter->id();
  EXPECT_TRUE(fingerprinter->Matches(record, Secret("key")));
  EXPECT_FALSE(fingerprinter->Matches(record, Secret("other")));
}

TEST(Fingerprint, ItsKeyIsMadeOnceAndKept) {
  const StateFixture fixture;
  EXPECT_EQ(Fingerprinter::Load(fixture.state).error().code(), ErrorCode::kNotFound);
  const auto made = EnsureFingerprintKey(fixture.state, SystemRandom());
  ASSERT_TRUE(made) << made.error().message();
  EXPECT_EQ(made->size(), 32u);
  EXPECT_TRUE(made->EqualsConstantTime(*EnsureFingerprintKey(fixture.state, SystemRandom())));
  struct stat status {};
  ASSERT_EQ(stat((fixture.state + "/fingerprint.key").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777u, 0600u);
  EXPECT_FALSE(std::filesystem::exists(fixture.state + "/fingerprint.key.new"));
  // One that was cut off is as good as lost.
  std::filesystem::resize_file(fixture.state + "/fingerprint.key", 31);
  EXPECT_EQ(LoadFingerprintKey(fixture.state).error().code(), ErrorCode::kNotFound);
  const auto again = EnsureFingerprintKey(fixture.state, SystemRandom());
  ASSERT_TRUE(again) << again.error().message();
  EXPECT_FALSE(again->EqualsConstantTime(*made));
  EXPECT_TRUE(again->EqualsConstantTime(*LoadFingerprintKey(fixture.state)));
  ASSERT_EQ(chmod((fixture.state + "/fingerprint.key").c_str(), 0640), 0);
  EXPECT_EQ(LoadFingerprintKey(fixture.state).error().code(), ErrorCode::kStatePermissions);
}

TEST(Fingerprint, ItsKeyIsThatOfWhoWasFirst) {
  const StateFixture fixture;
  const int folder = open(fixture.state.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_EQ(flock(folder, LOCK_EX), 0);
  std::optional<SecretBytes> made;
  std::thread second([&] { made.emplace(*EnsureFingerprintKey(fixture.state, SystemRandom())); });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // it waits for the first
  WithKnownKey::Put(fixture.state);
  close(folder);
  second.join();
  EXPECT_TRUE(made->EqualsConstantTime(*LoadFingerprintKey(fixture.state)));
  std::ifstream file(fixture.state + "/fingerprint.key", std::ios::binary);
  EXPECT_EQ(file.seekg(31).get(), 31);
}

TEST(Fingerprint, TheStoreKeepsAndReplacesIt) {
  StateFixture fixture;
  auto journal = fixture.Open();
  ASSERT_TRUE(journal);
  store::FingerprintRecord record;
  record.key_name = "a/key";
  record.key_version = 2;
  record.mac_key_id = {1, 2};
  record.mac = {3, 4};
  record.machine = "m";
  record.source = "/etc/key";
  record.access = store::FingerprintRecord::SourceAccess{1, 2, 0640};
  record.time = 7;
  const auto put = [&] {
    store::Change change;
    change.fingerprints.push_back(record);
    return journal->Append(MakeEvent(audit::EventType::kEscrowCreated), change).has_value();
  };
  ASSERT_TRUE(put());
  record.key_version = 1;
  record.access.reset();
  ASSERT_TRUE(put());
  record.source = "";
  ASSERT_TRUE(put());
  const auto found = journal->store().Fingerprints("a/key");
  ASSERT_TRUE(found);
  ASSERT_EQ(found->size(), 2u);
  EXPECT_EQ((*found)[0].source, "");
  EXPECT_FALSE((*found)[0].access);
  EXPECT_EQ((*found)[1].mac, record.mac);
  EXPECT_EQ((*found)[1].mac_key_id, record.mac_key_id);
  EXPECT_EQ((*found)[1].access, (store::FingerprintRecord::SourceAccess{1, 2, 0640}));
  EXPECT_EQ(journal->store().Fingerprints("").value().size(), 2u);
  EXPECT_TRUE(journal->store().Fingerprints("a").value().empty());
}

}  // namespace
}  // namespace keyescrow::agent
