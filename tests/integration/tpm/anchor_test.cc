#include "tpm/anchor.h"

#include "envelope/base/hash.h"
#include "tests/integration/tpm/tpm_test_base.h"

namespace keyescrow::tpm {
namespace {

using testing::ElementsAre;

constexpr std::string_view kOrigin = "keyescrow.log/web1/abc";
constexpr std::uint32_t kStart = 0x176, kLoad = 0x157, kFlush = 0x165;
constexpr std::uint32_t kIncrement = 0x134, kRead = 0x14e, kCertify = 0x184;

class TpmAnchorTest : public TpmTest {
 protected:
  SecretBytes Auth() { return std::move(*SecretBytes::CopyOf(auth_.Expose())); }
  Result<CreatedAnchor> Create(Tpm& tpm, std::string_view origin = kOrigin) {
    return TpmAnchor::Create(*tpm.device(), auth_, origin);
  }
  // Counted is Create and the first count: `base` is where the counter is.
  Result<CreatedAnchor> Counted(Tpm& tpm) {
    ASSIGN_OR_RETURN(CreatedAnchor created, Create(tpm));
    ASSIGN_OR_RETURN(const auto anchor, Use(tpm, created));
    ASSIGN_OR_RETURN(created.base, anchor->Increment(created.base));
    RETURN_IF_ERROR(anchor->Close());
    return created;
  }
  Result<std::unique_ptr<TpmAnchor>> Use(Tpm& tpm, const CreatedAnchor& created) {
    return TpmAnchor::Open(tpm.device(), created.blob, created.base, Auth(), std::string(kOrigin));
  }
};

TEST_F(TpmAnchorTest, CountsAndCertifiesWhatAnyVerifierCanCheck) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor created, Counted(*tpm));
  EXPECT_EQ(created.blob.key.nv_index, kFirstAnchorIndex);
  ExpectNothingLeft();
  ASSERT_OK_AND_ASSIGN(auto anchor, Use(*tpm, created));
  log_->Reset();
  ASSERT_OK_AND_ASSIGN(const std::uint64_t before, anchor->Read());
  EXPECT_EQ(before, created.base);
  ASSERT_OK_AND_ASSIGN(const std::uint64_t counted, anchor->Increment(before));
  EXPECT_EQ(counted, before + 1);
  ASSERT_OK_AND_ASSIGN(const envelope::AnchorStatement statement, anchor->Certify(Bytes32{7}));
  EXPECT_THAT(log_->command_codes(),
              ElementsAre(kStart, kRead, kIncrement, kLoad, kCertify, kFlush));
  ExpectNothingLeft();
  ASSERT_OK_AND_ASSIGN(const envelope::AnchorFacts facts,
                       envelope::CheckAnchorStatement(created.blob.key, kOrigin, statement));
  EXPECT_EQ(facts.counter, counted);
  EXPECT_EQ(facts.checkpoint_hash, Bytes32{7});
  EXPECT_TRUE(facts.clock_safe);
  // What it signed is this log's counter alone.
  EXPECT_FALSE(
      envelope::CheckAnchorStatement(created.blob.key, "keyescrow.log/web1/abd", statement));
  envelope::AnchorStatement changed = statement;
  changed.attest.back() ^= 1;
  EXPECT_EQ(envelope::CheckAnchorStatement(created.blob.key, kOrigin, changed).error().code(),
            ErrorCode::kAnchorInvalid);
}

TEST_F(TpmAnchorTest, TheAuthValueNeverCrossesTheBus) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor created, Counted(*tpm));
  ASSERT_OK_AND_ASSIGN(auto anchor, Use(*tpm, created));
  ASSERT_OK_AND_ASSIGN(const std::uint64_t before, anchor->Read());
  EXPECT_OK(anchor->Increment(before));
  EXPECT_OK(anchor->Certify(Bytes32{1}));
  for (std::size_t at = 0; at + 8 <= 32; at += 8) {
    EXPECT_FALSE(log_->Saw(auth_.Expose().subspan(at, 8)));
  }
  // The recorder does see what passes: the index's public area.
  EXPECT_TRUE(log_->Saw(envelope::AnchorIndexPublic(kFirstAnchorIndex, kOrigin, false)));
}

TEST_F(TpmAnchorTest, TheCounterOutlivesPowerAndRefusesAnotherAuth) {
  CreatedAnchor created;
  {
    auto tpm = Open();
    ASSERT_OK_AND_ASSIGN(created, Counted(*tpm));
    ASSERT_OK_AND_ASSIGN(auto anchor, Use(*tpm, created));
    for (std::uint64_t step = 0; step < 3; ++step)
      EXPECT_OK(anchor->Increment(created.base + step));
  }
  swtpm_.Kill();  // without TPM2_Shutdown: an ORDERLY counter would jump
  swtpm_.Start();
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto anchor, Use(*tpm, created));
  ASSERT_OK_AND_ASSIGN(const std::uint64_t value, anchor->Read());
  EXPECT_EQ(value, created.base + 3);
  ASSERT_OK_AND_ASSIGN(auto stranger,
                       TpmAnchor::Open(tpm->device(), created.blob, created.base,
                                       std::move(wrong_auth_), std::string(kOrigin)));
  EXPECT_EQ(stranger->Read().error().code(), ErrorCode::kAnchorMissing);
  EXPECT_EQ(swtpm_.LockoutCounter(), 0U) << "a refusal costs no try";
  EXPECT_OK(anchor->Close());
  ExpectNothingLeft();
}

TEST_F(TpmAnchorTest, AHandleOfAnotherIsLeftAloneAndTheNextOneIsTaken) {
  ASSERT_EQ(swtpm_.Tool("tpm2_nvdefine -C o -s 8 -a 'ownerread|ownerwrite|nt=counter' 0x1804b45 "
                        "&& tpm2_nvincrement -C o 0x1804b45"),
            0);
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor created, Create(*tpm));
  EXPECT_EQ(created.blob.key.nv_index, kFirstAnchorIndex + 1);
  // A second log on this host takes the third.
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor second, Create(*tpm, "keyescrow.log/web1/second"));
  EXPECT_EQ(second.blob.key.nv_index, kFirstAnchorIndex + 2);
  ASSERT_EQ(
      swtpm_.Tool(
          "test $(tpm2_nvread -C o 0x1804b45 | od -An -tx1 | tr -d ' \\n') = 0000000000000001"),
      0)
      << "what is not ours was not touched";
  ExpectNothingLeft();
}

TEST_F(TpmAnchorTest, ACounterBeginsWhereItsProbeTold) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor first, Create(*tpm));
  ASSERT_OK_AND_ASSIGN(auto found, TpmAnchor::Find(*tpm->device(), kOrigin));
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].handle, first.blob.key.nv_index);
  EXPECT_FALSE(found[0].counted);
  ASSERT_OK_AND_ASSIGN(auto anchor, Use(*tpm, first));
  ASSERT_OK_AND_ASSIGN(const std::uint64_t before, anchor->Read());
  EXPECT_EQ(before, first.base);
  ASSERT_OK_AND_ASSIGN(const std::uint64_t counted, anchor->Increment(before));
  EXPECT_EQ(counted, first.base + 1);
  EXPECT_OK(anchor->Certify(Bytes32{1}));
  ASSERT_OK_AND_ASSIGN(found, TpmAnchor::Find(*tpm->device(), kOrigin));
  ASSERT_EQ(found.size(), 1U);
  EXPECT_TRUE(found[0].counted);
  ExpectNothingLeft();
  // Whoever knows that it has counted does not take one that has not for it.
  EXPECT_OK(TpmAnchor::Remove(*tpm->device(), first.blob.key.nv_index, kOrigin));
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor again, Create(*tpm));
  EXPECT_EQ(again.blob.key.nv_index, first.blob.key.nv_index);
  EXPECT_GT(again.base, counted);
  ASSERT_OK_AND_ASSIGN(anchor,
                       TpmAnchor::Open(tpm->device(), again.blob, 0, Auth(), std::string(kOrigin)));
  EXPECT_EQ(anchor->Read().error().code(), ErrorCode::kAnchorMissing);
  EXPECT_OK(anchor->Close());
  ExpectNothingLeft();
}

TEST_F(TpmAnchorTest, AnotherCreateLeavesACounterThatHasCounted) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor first, Create(*tpm));
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor again, Create(*tpm));
  EXPECT_EQ(again.blob.key.nv_index, first.blob.key.nv_index) << "it never counted";
  ASSERT_OK_AND_ASSIGN(auto anchor, Use(*tpm, again));
  ASSERT_OK_AND_ASSIGN(const std::uint64_t before, anchor->Read());
  EXPECT_OK(anchor->Increment(before));
  EXPECT_OK(anchor->Close());
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor other, Create(*tpm));
  EXPECT_EQ(other.blob.key.nv_index, first.blob.key.nv_index + 1);
  ASSERT_OK_AND_ASSIGN(const auto found, TpmAnchor::Find(*tpm->device(), kOrigin));
  EXPECT_EQ(found.size(), 2U);
  EXPECT_EQ(TpmAnchor::Remove(*tpm->device(), first.blob.key.nv_index, "keyescrow.log/web1/abd")
                .error()
                .code(),
            ErrorCode::kAnchorMissing);
  ExpectNothingLeft();
}

TEST_F(TpmAnchorTest, AProbeThatAKilledCreateLeftIsRemoved) {
  auto fault = std::make_shared<simulators::Fault>();
  fault->before = [](std::size_t, ByteView command) -> Status {
    if (command[8] == 0x01 && command[9] == 0x34) {
      return Error(ErrorCode::kTpmUnavailable, Action::kReconnect, "killed", "start it");
    }
    return Ok();
  };
  DeviceOptions options;
  options.tcti = swtpm_.tcti();
  options.pinned_srk = srk_;
  options.decorate = simulators::FaultyDecorator(fault);
  {
    auto faulty = Tpm::Open(std::move(options));
    ASSERT_TRUE(faulty);
    EXPECT_FALSE(Create(**faulty));
  }
  for (const std::uint32_t handle : swtpm_.LoadedSessions()) Flush(handle);
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor created, Create(*tpm));
  EXPECT_EQ(created.blob.key.nv_index, kFirstAnchorIndex);
  EXPECT_GT(created.base, 0U);
  ASSERT_EQ(swtpm_.Tool("test $(tpm2_getcap handles-nv-index | grep -ci 1804b) = 1"), 0);
}

TEST_F(TpmAnchorTest, AnOwnersPasswordIsToldAndNothingIsMade) {
  swtpm_.SetOwnerAuth("owned");
  auto tpm = Open();
  EXPECT_EQ(Create(*tpm).error().code(), ErrorCode::kTpmOwnerAuth);
  ExpectNothingLeft();
  ASSERT_EQ(swtpm_.Tool("test -z \"$(tpm2_getcap handles-nv-index | grep -i 1804b)\""), 0);
}

TEST_F(TpmAnchorTest, AClearedTpmIsToldFromARollback) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor created, Counted(*tpm));
  swtpm_.Clear();
  ASSERT_OK_AND_ASSIGN(auto anchor, Use(*tpm, created));
  EXPECT_EQ(anchor->Read().error().code(), ErrorCode::kAnchorMissing);
  EXPECT_FALSE(anchor->Certify(Bytes32{1}));
  ExpectNothingLeft();
}

TEST_F(TpmAnchorTest, AnIndexThatWasMadeAnewNeverCountsLower) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor created, Counted(*tpm));
  ASSERT_OK_AND_ASSIGN(auto anchor, Use(*tpm, created));
  EXPECT_OK(anchor->Increment(created.base));
  EXPECT_OK(anchor->Close());
  // The owner may remove an index; the TPM remembers the highest count of all that were removed.
  ASSERT_EQ(swtpm_.Tool("tpm2_nvundefine -C o 0x1804b45"), 0);
  EXPECT_EQ(anchor->Read().error().code(), ErrorCode::kAnchorMissing);
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor again, Create(*tpm));
  EXPECT_GT(again.base, created.base);
}

TEST_F(TpmAnchorTest, ALostAnswerIsAskedAboutAndNothingIsCountedTwice) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor created, Counted(*tpm));
  tpm.reset();
  auto fault = std::make_shared<simulators::Fault>();
  bool spoiled = false;
  bool is_increment = false;
  fault->before = [&](std::size_t, ByteView command) -> Status {
    is_increment = command[8] == 0x01 && command[9] == 0x34;
    return Ok();
  };
  fault->after = [&](std::size_t, Bytes& response) -> Status {
    if (is_increment && !spoiled) {
      spoiled = true;
      response.back() ^= 1;  // the answer's HMAC
    }
    return Ok();
  };
  DeviceOptions options;
  options.tcti = swtpm_.tcti();
  options.pinned_srk = srk_;
  options.decorate = simulators::FaultyDecorator(fault);
  ASSERT_OK_AND_ASSIGN(auto faulty, Tpm::Open(std::move(options)));
  ASSERT_OK_AND_ASSIGN(auto anchor, Use(*faulty, created));
  ASSERT_OK_AND_ASSIGN(const std::uint64_t counted, anchor->Increment(created.base));
  EXPECT_TRUE(spoiled);
  EXPECT_EQ(counted, created.base + 1);
  ASSERT_OK_AND_ASSIGN(const std::uint64_t value, anchor->Read());
  EXPECT_EQ(value, created.base + 1);
  EXPECT_OK(anchor->Close());
  ExpectNothingLeft();
}

// Neither the command nor its answer came through: what the TPM says afterwards is the old value.
TEST_F(TpmAnchorTest, ALostCommandCountsNothing) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor created, Counted(*tpm));
  tpm.reset();
  auto fault = std::make_shared<simulators::Fault>();
  bool is_increment = false;
  int num_lost = 0;
  fault->before = [&](std::size_t, ByteView command) -> Status {
    is_increment = command[8] == 0x01 && command[9] == 0x34;
    if (is_increment) const_cast<std::uint8_t&>(command.back()) ^= 1;  // its HMAC
    return Ok();
  };
  fault->after = [&](std::size_t, Bytes& response) -> Status {
    if (!is_increment) return Ok();
    ++num_lost;
    response.resize(4);
    return Ok();
  };
  DeviceOptions options;
  options.tcti = swtpm_.tcti();
  options.pinned_srk = srk_;
  options.decorate = simulators::FaultyDecorator(fault);
  ASSERT_OK_AND_ASSIGN(auto faulty, Tpm::Open(std::move(options)));
  ASSERT_OK_AND_ASSIGN(auto anchor, Use(*faulty, created));
  const auto counted = anchor->Increment(created.base);
  EXPECT_EQ(num_lost, 1);
  ASSERT_FALSE(counted);
  EXPECT_EQ(counted.error().code(), ErrorCode::kTpmResponse);
  ASSERT_OK_AND_ASSIGN(const std::uint64_t value, anchor->Read());
  EXPECT_EQ(value, created.base);
  EXPECT_OK(anchor->Close());
}

TEST_F(TpmAnchorTest, EveryFailingCommandLeavesNothingBehind) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(const CreatedAnchor created, Counted(*tpm));
  tpm.reset();
  for (std::size_t failing = 0; failing < 6; ++failing) {
    auto fault = std::make_shared<simulators::Fault>();
    fault->after = [failing](std::size_t index, Bytes& response) -> Status {
      if (index == failing) response = {0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x01, 0x01};
      return Ok();
    };
    DeviceOptions options;
    options.tcti = swtpm_.tcti();
    options.pinned_srk = srk_;
    options.decorate = simulators::FaultyDecorator(fault);
    ASSERT_OK_AND_ASSIGN(auto faulty, Tpm::Open(std::move(options)));
    ASSERT_OK_AND_ASSIGN(auto anchor, Use(*faulty, created));
    const auto run = [&]() -> Status {
      ASSIGN_OR_RETURN(const std::uint64_t before, anchor->Read());
      ASSIGN_OR_RETURN(const std::uint64_t counted, anchor->Increment(before));
      static_cast<void>(counted);
      RETURN_IF_ERROR(anchor->Certify(Bytes32{1}));
      return Ok();
    };
    const Status done = run();
    EXPECT_EQ(done.has_value(), failing == 5) << failing;  // the flush's answer is not needed
    static_cast<void>(anchor->Close());  // what is left in the TPM is judged below, not its answer
    // The TPM did what it was told, and the answer was replaced: what it made in that command is
    // not known here.
    for (const std::uint32_t handle : swtpm_.LoadedSessions()) {
      EXPECT_EQ(failing, 0U);
      Flush(handle);
    }
    for (const std::uint32_t handle : swtpm_.TransientObjects()) {
      EXPECT_EQ(failing, 3U);
      Flush(handle);
    }
  }
}

}  // namespace
}  // namespace keyescrow::tpm
