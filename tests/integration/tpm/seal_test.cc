#include "envelope/base/byte_reader.h"
#include "tests/integration/tpm/tpm_test_base.h"
#include "tpm/anchor.h"

namespace keyescrow::tpm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::uint32_t kGetCapability = 0x17a;
constexpr std::uint32_t kLoad = 0x157;
constexpr std::uint32_t kStart = 0x176;
constexpr std::uint32_t kPolicyPcr = 0x17f;
constexpr std::uint32_t kPolicyAuthValue = 0x16b;
constexpr std::uint32_t kUnseal = 0x15e;
constexpr std::uint32_t kFlush = 0x165;
constexpr std::uint32_t kCreate = 0x153;
constexpr std::uint32_t kPcrRead = 0x17e;
constexpr std::uint32_t kDefineSpace = 0x12a;

using TpmSeal = TpmTest;
using TpmUnseal = TpmTest;
using TpmSrk = TpmTest;

TEST_F(TpmSeal, OpensAgainWithAuth) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_));
  EXPECT_TRUE(record.auth);
  EXPECT_EQ(record.object_public.size(), 80U);
  EXPECT_EQ(record.parent_public, srk_);
  ExpectOpens(*tpm, record, &auth_);
  ExpectNothingLeft();
  EXPECT_EQ(swtpm_.LockoutCounter(), 0U);
}

TEST_F(TpmSeal, OpensAgainWithoutAuthAndWithPcrs) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto plain, Seal(*tpm, nullptr));
  ExpectOpens(*tpm, plain, nullptr);
  ASSERT_OK_AND_ASSIGN(auto bound, Seal(*tpm, &auth_, {0, 7}));
  EXPECT_EQ(bound.pcrs, "sha256:0,7");
  ExpectOpens(*tpm, bound, &auth_);
  ExpectNothingLeft();
}

TEST_F(TpmSeal, TakesEveryLengthAtTheEdgesAndAuthWithTrailingZeros) {
  auto tpm = Open();
  for (std::size_t size : {1U, 31U, 128U}) {
    secret_ = Random(size);
    auth_.ExposeMutable()[31] = 0;
    auth_.ExposeMutable()[30] = 0;
    ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_));
    ExpectOpens(*tpm, record, &auth_);
  }
  secret_ = Random(129);
  EXPECT_EQ(Seal(*tpm, &auth_).error().code(), ErrorCode::kInternal);
}

TEST_F(TpmSeal, BindsToMorePcrsThanOneResponseHolds) {
  auto tpm = Open();
  std::vector<std::uint8_t> pcrs;
  for (std::uint8_t pcr = 0; pcr < 12; ++pcr) pcrs.push_back(pcr);
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_, pcrs));
  ExpectOpens(*tpm, record, &auth_);
}

TEST_F(TpmSeal, CostsTwoCommandsAndThreeWithPcrs) {
  auto tpm = Open();
  EXPECT_EQ(log_->count(), 0U);
  ASSERT_TRUE(Seal(*tpm, &auth_));
  EXPECT_THAT(log_->command_codes(), ElementsAre(kStart, kCreate));
  log_->Reset();
  ASSERT_TRUE(Seal(*tpm, &auth_, {7}));
  EXPECT_THAT(log_->command_codes(), ElementsAre(kPcrRead, kStart, kCreate));
}

TEST_F(TpmUnseal, CostsFiveCommandsAndOneEachForPcrsDaStateAndFirstUseAfterABoot) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto plain, Seal(*tpm, nullptr));
  ASSERT_OK_AND_ASSIGN(auto pcrs, Seal(*tpm, nullptr, {7}));
  ASSERT_OK_AND_ASSIGN(auto full, Seal(*tpm, &auth_, {7}));
  swtpm_.PowerCycle();

  log_->Reset();
  ExpectOpens(*tpm, plain, nullptr);
  EXPECT_THAT(log_->command_codes(), ElementsAre(kLoad, kStart, kPolicyAuthValue, kUnseal, kFlush));
  log_->Reset();
  ExpectOpens(*tpm, pcrs, nullptr);
  EXPECT_THAT(log_->command_codes(),
              ElementsAre(kLoad, kStart, kPolicyPcr, kPolicyAuthValue, kUnseal, kFlush));
  log_->Reset();
  ExpectOpens(*tpm, full, &auth_);
  EXPECT_THAT(log_->command_codes(), ElementsAre(kGetCapability, kLoad, kStart, kPolicyPcr,
                                                 kPolicyAuthValue, kUnseal, kUnseal, kFlush));
  EXPECT_EQ(log_->entries()[5].response_code, 0x922U);
  log_->Reset();
  ExpectOpens(*tpm, full, &auth_);
  EXPECT_EQ(log_->count(), 7U);
}

TEST_F(TpmUnseal, LeavesNoSecretOnTheBus) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_, {7}));
  ExpectOpens(*tpm, record, &auth_);
  EXPECT_EQ(tpm->Unseal(record, {.auth_value = &wrong_auth_}).error().code(),
            ErrorCode::kTpmWrongAuth);
  for (const SecretBytes* secret : {&secret_, &auth_, &wrong_auth_}) {
    // Any eight bytes in a row would be too many.
    for (std::size_t at = 0; at + 8 <= secret->size(); at += 4) {
      EXPECT_FALSE(log_->Saw(secret->Expose().subspan(at, 8)));
    }
  }
  EXPECT_TRUE(log_->Saw(record.object_public)) << "the log does see the bus";
}

// What a listener can guess the session's key from: nothing, where it is salted to the storage key;
// the auth value, or nothing at all, where it is not. Bound to the object, the right auth value
// would be refused.
TEST_F(TpmUnseal, EverySessionThatHidesASecretIsSaltedToTheStorageKeyAndUnbound) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto with_auth, Seal(*tpm, &auth_));
  ASSERT_OK_AND_ASSIGN(auto plain, Seal(*tpm, nullptr));
  ExpectOpens(*tpm, with_auth, &auth_);
  ExpectOpens(*tpm, plain, nullptr);
  ASSERT_TRUE(TpmAgentKey::Create(*tpm->device(), auth_));
  ASSERT_TRUE(TpmAnchor::Create(*tpm->device(), auth_, "keyescrow.log/web1/abc"));
  bool is_salted = false;
  int num_hidden = 0;
  for (const simulators::CommandLog::Entry& entry : log_->entries()) {
    ByteReader reader(entry.command);
    reader.Take(10);
    if (entry.command_code == kStart) {
      const auto salt_key = reader.TakeU32();
      EXPECT_EQ(reader.TakeU32(), 0x40000007U) << "bound";  // TPM_RH_NULL
      reader.Take(reader.TakeU16().value_or(0));            // nonceCaller
      is_salted = salt_key == 0x81000001U && reader.TakeU16().value_or(0) == 68;
    }
    const bool hides = entry.command_code == kCreate || entry.command_code == kUnseal ||
                       entry.command_code == kDefineSpace;
    if (!hides) continue;
    ++num_hidden;
    EXPECT_TRUE(is_salted) << std::hex << entry.command_code;
    // One session, of its handle, nonce and attributes: decrypt, encrypt.
    reader.Take(4 + 4 + 4);
    reader.Take(reader.TakeU16().value_or(0));
    const std::uint8_t wanted = entry.command_code == kCreate   ? 0x60
                                : entry.command_code == kUnseal ? 0x40
                                                                : 0x20;
    EXPECT_EQ(reader.TakeU8(), wanted) << std::hex << entry.command_code;
  }
  EXPECT_GE(num_hidden, 2 + 3 + 2 + 2);
}

TEST_F(TpmUnseal, WrongAuthCostsOneTryAndTellsTheNumbers) {
  swtpm_.SetDaParameters(5, 600, 1000);
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_));
  const auto refused = tpm->Unseal(record, {.auth_value = &wrong_auth_});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kTpmWrongAuth);
  EXPECT_EQ(refused.error().action(), Action::kReauthenticate);
  EXPECT_THAT(refused.error().message(), HasSubstr("1 of 5 tries used"));
  EXPECT_EQ(refused.error().native_code(), 0x98eU);
  EXPECT_EQ(swtpm_.LockoutCounter(), 1U);
  ExpectNothingLeft();
  ExpectOpens(*tpm, record, &auth_);
}

TEST_F(TpmUnseal, RefusesTheLastTryUntilAskedAndThenTellsTheLockout) {
  swtpm_.SetDaParameters(2, 600, 1000);
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_));
  EXPECT_FALSE(tpm->Unseal(record, {.auth_value = &wrong_auth_}));
  log_->Reset();
  const auto last = tpm->Unseal(record, {.auth_value = &auth_});
  ASSERT_FALSE(last);
  EXPECT_EQ(last.error().code(), ErrorCode::kTpmLastTry);
  EXPECT_THAT(log_->command_codes(), ElementsAre(kGetCapability));
  EXPECT_EQ(swtpm_.LockoutCounter(), 1U);

  EXPECT_EQ(tpm->Unseal(record, {.auth_value = &wrong_auth_, .use_last_try = true}).error().code(),
            ErrorCode::kTpmWrongAuth);
  log_->Reset();
  const auto locked = tpm->Unseal(record, {.auth_value = &auth_, .use_last_try = true});
  ASSERT_FALSE(locked);
  EXPECT_EQ(locked.error().code(), ErrorCode::kTpmLockout);
  EXPECT_EQ(locked.error().action(), Action::kWaitForLockout);
  EXPECT_THAT(locked.error().hint(), HasSubstr("every 600 s"));
  EXPECT_THAT(locked.error().hint(), HasSubstr("1200 s"));
  EXPECT_THAT(log_->command_codes(), ElementsAre(kGetCapability)) << "no try on a locked TPM";

  swtpm_.ResetDa();
  ExpectOpens(*tpm, record, &auth_);
  ExpectNothingLeft();
}

TEST_F(TpmUnseal, AMachineSecretWithoutAuthOpensWhileLocked) {
  swtpm_.SetDaParameters(1, 600, 1000);
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto plain, Seal(*tpm, nullptr));
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_));
  EXPECT_FALSE(tpm->Unseal(record, {.auth_value = &wrong_auth_, .use_last_try = true}));
  EXPECT_EQ(tpm->Unseal(record, {.auth_value = &auth_}).error().code(), ErrorCode::kTpmLockout);
  ExpectOpens(*tpm, plain, nullptr);
}

TEST_F(TpmUnseal, TellsAChangedPcrAndSpendsNoTry) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_, {7}));
  swtpm_.ExtendPcr(7, Bytes32{1, 2, 3});
  for (const SecretBytes* auth : {&auth_, &wrong_auth_}) {
    const auto refused = tpm->Unseal(record, {.auth_value = auth});
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ErrorCode::kTpmPcrMismatch);
    EXPECT_EQ(refused.error().action(), Action::kCheckSystemState);
    EXPECT_THAT(refused.error().message(), HasSubstr("sha256:7"));
  }
  EXPECT_EQ(swtpm_.LockoutCounter(), 0U);
  ExpectNothingLeft();
}

TEST_F(TpmUnseal, RunsAgainWhenAPcrIsExtendedInTheMiddle) {
  // PCR 1 is not bound, but its extension invalidates the session (TPM_RC_PCR_CHANGED).
  int races = 0;
  auto fault = std::make_shared<simulators::Fault>();
  fault->before = [&](std::size_t, ByteView command) -> Status {
    if (command[8] == 0x01 && command[9] == 0x5e && races < 2) {
      ++races;
      swtpm_.ExtendPcr(1, Bytes32{9});
    }
    return Ok();
  };
  ASSERT_OK_AND_ASSIGN(auto tpm, Tpm::Open({.tcti = swtpm_.tcti(),
                                            .pinned_srk = srk_,
                                            .decorate = simulators::FaultyDecorator(fault)}));
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_, {7}));
  ExpectOpens(*tpm, record, &auth_);
  EXPECT_EQ(races, 2);
  EXPECT_EQ(swtpm_.LockoutCounter(), 0U);
  ExpectNothingLeft();
}

TEST_F(TpmUnseal, AnotherTpmIsTheWrongDeviceBeforeAnyCommand) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_));
  simulators::SwtpmFixture other_swtpm;
  auto other = Open(other_swtpm, {});
  ASSERT_TRUE(other->StorageParent());
  log_->Reset();
  const auto refused = other->Unseal(record, {.auth_value = &auth_});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kTpmWrongDevice);
  EXPECT_EQ(refused.error().action(), Action::kWrongDevice);
  EXPECT_EQ(log_->count(), 0U);
}

TEST_F(TpmUnseal, AClearedTpmIsTheWrongDevice) {
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*Open(), &auth_));
  swtpm_.Clear();
  EXPECT_THAT(swtpm_.PersistentObjects(), IsEmpty());
  auto pinned = Open();
  EXPECT_EQ(pinned->Unseal(record, {.auth_value = &auth_}).error().code(),
            ErrorCode::kTpmWrongDevice);
  EXPECT_EQ(Seal(*pinned, &auth_).error().code(), ErrorCode::kTpmWrongDevice);
  auto unpinned = Open(Bytes());
  EXPECT_EQ(unpinned->Unseal(record, {.auth_value = &auth_}).error().code(),
            ErrorCode::kTpmWrongDevice);
  // Another's key of the same template at the handle changes nothing.
  EXPECT_OK(unpinned->device()->PersistSrk());
  auto again = Open();
  EXPECT_EQ(again->Unseal(record, {.auth_value = &auth_}).error().code(),
            ErrorCode::kTpmWrongDevice);
  pinned.reset();
  unpinned.reset();
  again.reset();
  ExpectNothingLeft();
}

TEST_F(TpmUnseal, ADamagedBlobOfThisTpmIsToldAndNothingStays) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_));
  auto damaged = record;
  damaged.object_private[40] ^= 1;
  EXPECT_EQ(tpm->Unseal(damaged, {.auth_value = &auth_}).error().code(),
            ErrorCode::kTpmWrongDevice);
  damaged = record;
  damaged.object_public[20] ^= 1;  // policy
  EXPECT_EQ(tpm->Unseal(damaged, {.auth_value = &auth_}).error().code(), ErrorCode::kFactorBad);
  EXPECT_EQ(tpm->Unseal(record, {}).error().code(), ErrorCode::kFactorMissing);
  ExpectNothingLeft();
  EXPECT_EQ(swtpm_.LockoutCounter(), 0U);
}

TEST_F(TpmUnseal, OpensAfterAPowerCycleAndAfterAPowerCut) {
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_));
  swtpm_.PowerCycle();
  ExpectOpens(*tpm, record, &auth_);
  swtpm_.Kill();
  swtpm_.Start();
  ExpectOpens(*Open(), record, &auth_);
}

TEST_F(TpmSrk, IsTheTemplatesKeyAndTransientWhereTheHandleIsEmpty) {
  simulators::SwtpmFixture fresh;
  {
    auto tpm = Open(fresh, {});
    ASSERT_OK_AND_ASSIGN(auto parent, tpm->StorageParent());
    EXPECT_EQ(parent.size(), 92U);
    ASSERT_OK_AND_ASSIGN(auto record, Seal(*tpm, &auth_));
    ExpectOpens(*tpm, record, &auth_);
    EXPECT_THAT(fresh.PersistentObjects(), IsEmpty());
    EXPECT_OK(tpm->device()->PersistSrk());
    EXPECT_THAT(fresh.PersistentObjects(), ElementsAre(0x81000001));
    ExpectOpens(*tpm, record, &auth_);
    EXPECT_OK(tpm->device()->PersistSrk());
    ASSERT_OK_AND_ASSIGN(auto again, tpm->StorageParent());
    EXPECT_EQ(again, parent) << "persistent and transient are one key";
  }
  EXPECT_THAT(fresh.TransientObjects(), IsEmpty());
}

TEST_F(TpmSrk, LeavesAnothersKeyAtTheHandleAlone) {
  simulators::SwtpmFixture fresh;
  ASSERT_EQ(fresh.Tool("tpm2_createprimary -C o -G rsa -c p.ctx && tpm2_flushcontext -t && "
                       "tpm2_evictcontrol -C o -c p.ctx 0x81000001 && tpm2_flushcontext -t && "
                       "tpm2_readpublic -c 0x81000001 -o before.pub"),
            0);
  Bytes parent;
  envelope::Tpm2Record record;
  {
    auto tpm = Open(fresh, {});
    ASSERT_OK_AND_ASSIGN(auto state, tpm->Inspect());
    EXPECT_TRUE(state.srk_handle_occupied);
    EXPECT_FALSE(state.srk_persistent);
    EXPECT_OK(tpm->device()->PersistSrk());
    ASSERT_OK_AND_ASSIGN(parent, tpm->StorageParent());
    ASSERT_OK_AND_ASSIGN(record, Seal(*tpm, &auth_));
  }
  {
    auto pinned = Open(fresh, parent);
    ExpectOpens(*pinned, record, &auth_);
  }
  {
    auto sealing = Open(fresh, parent);
    ASSERT_TRUE(Seal(*sealing, &auth_));
  }
  EXPECT_THAT(fresh.TransientObjects(), IsEmpty());
  EXPECT_THAT(fresh.LoadedSessions(), IsEmpty());
  EXPECT_EQ(fresh.LockoutCounter(), 0U);
  EXPECT_EQ(fresh.Tool("tpm2_readpublic -c 0x81000001 -o after.pub && cmp before.pub after.pub"),
            0);
}

TEST_F(TpmSrk, AnotherStorageKeyAtTheHandleIsNotThePinnedOne) {
  simulators::SwtpmFixture fresh;
  Bytes parent;
  envelope::Tpm2Record record;
  {
    auto tpm = Open(fresh, {});
    ASSERT_OK_AND_ASSIGN(parent, tpm->StorageParent());
    ASSERT_OK_AND_ASSIGN(record, Seal(*tpm, &auth_));
  }
  // The template's key of another hierarchy, and so of another seed.
  ASSERT_EQ(fresh.Tool("tpm2_createprimary -C e -G ecc256:aes128cfb -c p.ctx -a "
                       "'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|"
                       "decrypt' && tpm2_flushcontext -t && "
                       "tpm2_evictcontrol -C o -c p.ctx 0x81000001 && tpm2_flushcontext -t"),
            0);
  {
    auto any = Open(fresh, {});
    ASSERT_OK_AND_ASSIGN(const Bytes found, any->StorageParent());
    ASSERT_NE(found, parent);
  }
  auto pinned = Open(fresh, parent);
  ExpectOpens(*pinned, record, &auth_);
}

TEST_F(TpmSrk, TellsThatTheOwnerHierarchyHasAPassword) {
  simulators::SwtpmFixture fresh;
  fresh.SetOwnerAuth("owner");
  auto tpm = Open(fresh, {});
  EXPECT_EQ(tpm->StorageParent().error().code(), ErrorCode::kTpmOwnerAuth);
  EXPECT_EQ(tpm->device()->PersistSrk().error().code(), ErrorCode::kTpmOwnerAuth);
  // With the SRK in place the owner's password is not needed.
  swtpm_.SetOwnerAuth("owner");
  auto placed = Open();
  ASSERT_OK_AND_ASSIGN(auto record, Seal(*placed, &auth_));
  ExpectOpens(*placed, record, &auth_);
}

TEST_F(TpmSrk, InspectTellsTheState) {
  swtpm_.SetDaParameters(7, 11, 13);
  auto tpm = Open();
  ASSERT_OK_AND_ASSIGN(auto before, tpm->Inspect());
  EXPECT_TRUE(before.simulator);
  EXPECT_TRUE(before.srk_persistent);
  EXPECT_FALSE(before.lockout_auth_set);
  EXPECT_FALSE(before.owner_auth_set);
  EXPECT_EQ(before.max_auth_fail, 7U);
  EXPECT_EQ(before.lockout_interval_s, 11U);
  EXPECT_EQ(before.lockout_recovery_s, 13U);
  swtpm_.SetLockoutAuth("lock");
  ASSERT_OK_AND_ASSIGN(auto after, tpm->Inspect());
  EXPECT_TRUE(after.lockout_auth_set);
}

}  // namespace
}  // namespace keyescrow::tpm
