#include "envelope/kdf.h"

#include <gtest/gtest.h>

#include "tests/thread_limit.h"

namespace keyescrow::envelope {
namespace {

// Stretched stretches a password that is no secret; empty where that fails. A fork has no secrets.
Bytes Stretched() {
  const auto password = SecretBytes::CopyOf(AsBytes("a password"));
  const PasswordRecord record{Argon2idParameters{2, 19456, 4}, "00112233445566778899aabbccddeeff"};
  const auto stretched = StretchPassword(*password, record);
  return stretched ? ToBytes(stretched->Expose()) : Bytes();
}

TEST(Kdf, WhereThreadsAreFewItTakesFewer) {
  const Bytes expected = Stretched();
  ASSERT_FALSE(expected.empty());
  for (const rlim_t count : {1, 2, 3, 4, 5}) {
    EXPECT_EQ(WithNumThreads(count, [&] { return Stretched() == expected ? 0 : 1; }), 0) << count;
  }
}

TEST(Kdf, EachRecordHasASaltOfItsOwn) {
  const auto one = NewPasswordRecord(Argon2idParameters{2, 19456, 1}, SystemRandom());
  const auto other = NewPasswordRecord(Argon2idParameters{2, 19456, 1}, SystemRandom());
  ASSERT_TRUE(one && other);
  EXPECT_EQ(one->salt.size(), 32U);
  EXPECT_NE(one->salt.substr(0, 16), other->salt.substr(0, 16));
  EXPECT_NE(one->salt.substr(16), other->salt.substr(16));
}

}  // namespace
}  // namespace keyescrow::envelope
