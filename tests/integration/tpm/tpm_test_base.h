// TpmTest: a fresh swtpm, a device on it, and short ways to ask for what the tests ask for.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "envelope/base/random.h"
#include "envelope/factor.h"
#include "simulators/counting_tcti.h"
#include "simulators/swtpm_fixture.h"
#include "tpm/agent_key.h"
#include "tpm/tpm_factor.h"

namespace keyescrow::tpm {

// ASSERT_OK_AND_ASSIGN(auto x, F()) or a fatal failure that shows the error.
#define ASSERT_OK_AND_ASSIGN(declaration, expression) \
  ASSERT_OK_AND_ASSIGN_IMPL(KEYESCROW_CONCAT(result_, __LINE__), declaration, expression)
#define ASSERT_OK_AND_ASSIGN_IMPL(temporary, declaration, expression) \
  auto temporary = (expression);                                      \
  ASSERT_TRUE(temporary.has_value()) << temporary.error().message();  \
  declaration = std::move(*temporary)
#define EXPECT_OK(expression)                                                        \
  do {                                                                               \
    auto expect_ok_result = (expression);                                            \
    EXPECT_TRUE(expect_ok_result.has_value()) << expect_ok_result.error().message(); \
  } while (false)

class TpmTest : public testing::Test {
 protected:
  void SetUp() override {
    log_ = std::make_shared<simulators::CommandLog>();
    // Nothing is touched that does not say that it is a simulator.
    auto tpm = Open({});
    const auto state = tpm->Inspect();
    ASSERT_TRUE(state.has_value());
    ASSERT_TRUE(state->simulator) << state->manufacturer << " / " << state->vendor;
    EXPECT_OK(tpm->device()->PersistSrk());
    auto parent = tpm->StorageParent();
    ASSERT_TRUE(parent.has_value());
    srk_ = *parent;
    log_->Reset();
  }

  // Open opens the fixture's TPM; the bus is logged.
  std::unique_ptr<Tpm> Open(const Bytes& pinned_srk) { return Open(swtpm_, pinned_srk); }
  std::unique_ptr<Tpm> Open(const simulators::SwtpmFixture& swtpm, const Bytes& pinned_srk) {
    DeviceOptions options;
    options.tcti = swtpm.tcti();
    options.pinned_srk = pinned_srk;
    options.decorate = simulators::CountingDecorator(log_);
    auto tpm = Tpm::Open(std::move(options));
    EXPECT_TRUE(tpm.has_value()) << tpm.error().message();
    return std::move(*tpm);
  }
  std::unique_ptr<Tpm> Open() { return Open(srk_); }

  static SecretBytes Random(std::size_t size) {
    auto secret = RandomSecret(SystemRandom(), size);
    EXPECT_TRUE(secret.has_value());
    return std::move(*secret);
  }

  Result<envelope::Tpm2Record> Seal(Tpm& tpm, const SecretBytes* auth,
                                    std::vector<std::uint8_t> pcrs = {}) {
    return tpm.Seal(
        {.secret = &secret_, .auth_value = auth, .host = "web1", .pcrs = std::move(pcrs)});
  }

  // ExpectOpens unseals and compares.
  void ExpectOpens(Tpm& tpm, const envelope::Tpm2Record& record, const SecretBytes* auth) {
    auto opened = tpm.Unseal(record, {.auth_value = auth});
    ASSERT_TRUE(opened.has_value()) << opened.error().message();
    EXPECT_TRUE(opened->EqualsConstantTime(secret_));
  }

  // ExpectNothingLeft checks that no object and no session stays in the TPM.
  void ExpectNothingLeft() {
    EXPECT_THAT(swtpm_.TransientObjects(), testing::IsEmpty());
    EXPECT_THAT(swtpm_.LoadedSessions(), testing::IsEmpty());
  }

  void Flush(std::uint32_t handle) {
    const auto byte = [handle](int shift) { return static_cast<std::uint8_t>(handle >> shift); };
    swtpm_.Command(
        Bytes{0x80, 1, 0, 0, 0, 14, 0, 0, 0x01, 0x65, byte(24), byte(16), byte(8), byte(0)});
  }

  simulators::SwtpmFixture swtpm_;
  std::shared_ptr<simulators::CommandLog> log_;
  Bytes srk_;
  SecretBytes secret_ = Random(32);
  SecretBytes auth_ = Random(32);
  SecretBytes wrong_auth_ = Random(32);
};

}  // namespace keyescrow::tpm
