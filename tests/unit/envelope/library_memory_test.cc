// What libcrypto is left with: no block of its memory keeps a secret of ours, and none is given
// back with one in it. The test is the library's allocator.
#include "envelope/base/library_memory.h"

#include <gtest/gtest.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "envelope/base/aes.h"
#include "envelope/base/hash.h"
#include "envelope/base/p256.h"
#include "envelope/base/random.h"
#include "envelope/signing_key.h"

namespace keyescrow {
namespace {

constexpr std::size_t kPart = 8;
constexpr std::size_t kMaxParts = 256;

// Of the library's memory: which blocks live, what is looked for, and how often it was given back.
struct Watch {
  std::mutex mutex;
  std::set<void*> live;
  std::uint8_t parts[kMaxParts][kPart] = {};
  std::size_t num_parts = 0;
  int num_freed = 0;

  bool Holds(const void* block) const {
    const std::size_t size = malloc_usable_size(const_cast<void*>(block));
    return std::any_of(parts, parts + num_parts, [&](const std::uint8_t* part) {
      return memmem(block, size, part, kPart) != nullptr;
    });
  }
  void Ends(void* block) {
    if (block == nullptr) return;
    const std::lock_guard lock(mutex);
    live.erase(block);
    if (Holds(block)) ++num_freed;
  }
  void* Begins(void* block) {
    const std::lock_guard lock(mutex);
    if (block != nullptr) live.insert(block);
    return block;
  }
};

Watch& TheWatch() {
  static Watch* const watch = new Watch;
  return *watch;
}

void* Allocate(std::size_t size) { return TheWatch().Begins(std::calloc(1, size)); }
void GiveBack(void* block) {
  TheWatch().Ends(block);
  std::free(block);
}

// Before the library's first block.
const bool kIsWatched = WipeLibraryMemory({&Allocate, &GiveBack});

class WatchedLibrary : public testing::Test {
 protected:
  WatchedLibrary() { EXPECT_TRUE(kIsWatched); }
  ~WatchedLibrary() override { TheWatch().num_parts = 0; }

  // LookFor adds a secret as it is, and as the words in which libcrypto computes, in its order and
  // in that of a big number.
  void LookFor(ByteView secret) {
    for (const std::size_t word : {1, 4, 8}) {
      Bytes bytes(secret.begin(), secret.end());
      for (std::size_t at = 0; at + word <= bytes.size(); at += word) {
        std::reverse(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                     bytes.begin() + static_cast<std::ptrdiff_t>(at + word));
      }
      for (std::size_t at = 0; at + kPart <= bytes.size(); at += kPart) {
        Watch& watch = TheWatch();
        ASSERT_LT(watch.num_parts, kMaxParts);
        std::copy_n(bytes.data() + at, kPart, watch.parts[watch.num_parts++]);
      }
    }
    TheWatch().num_freed = 0;
  }
  int NumFreed() const { return TheWatch().num_freed; }
  int NumKept() const {
    Watch& watch = TheWatch();
    const std::lock_guard lock(watch.mutex);
    return static_cast<int>(std::count_if(watch.live.begin(), watch.live.end(),
                                          [&](const void* block) { return watch.Holds(block); }));
  }
};

SecretBytes Random(std::size_t size) { return *RandomSecret(SystemRandom(), size); }

TEST_F(WatchedLibrary, WipesWhatItGivesBack) {
  const SecretBytes secret = Random(64);
  LookFor(secret.Expose());
  void* block = OPENSSL_malloc(200);
  EXPECT_EQ(NumKept(), 0);
  std::memcpy(static_cast<std::uint8_t*>(block) + 31, secret.Expose().data() + 8, 24);
  EXPECT_EQ(NumKept(), 1);
  block = OPENSSL_realloc(block, 100'000);
  EXPECT_EQ(std::memcmp(static_cast<std::uint8_t*>(block) + 31, secret.Expose().data() + 8, 24), 0);
  EXPECT_EQ(NumKept(), 1);
  OPENSSL_free(block);
  EXPECT_EQ(NumKept(), 0);
  EXPECT_EQ(NumFreed(), 0);

  block = Allocate(200);
  std::memcpy(block, secret.Expose().data(), 64);
  GiveBack(block);  // what must not be done
  EXPECT_EQ(NumFreed(), 1);
}

TEST_F(WatchedLibrary, KeepsNoDigest) {
  const SecretBytes input = Random(200);
  const auto digest = Sha256Secret({input.Expose()});
  ASSERT_TRUE(digest);
  LookFor(input.Expose());
  LookFor(digest->Expose());
  ASSERT_TRUE(Sha256Secret({input.Expose()}));
  EXPECT_EQ(NumKept(), 0);
  EXPECT_EQ(NumFreed(), 0);
}

TEST_F(WatchedLibrary, KeepsNoKeyOfAnHmacAndNoTag) {
  const SecretBytes key = Random(64), text = Random(48);
  const auto short_tag = HmacSha256(key.Expose(), {text.Expose()});
  const auto long_tag = HmacSha512(key.Expose(), {text.Expose()});
  for (const ByteView secret :
       {key.Expose(), text.Expose(), ByteView(short_tag), ByteView(long_tag)}) {
    LookFor(secret);
  }
  HmacSha256(key.Expose(), {text.Expose()});
  HmacSha512(key.Expose(), {text.Expose()});
  EXPECT_EQ(NumKept(), 0);
  EXPECT_EQ(NumFreed(), 0);
}

TEST_F(WatchedLibrary, KeepsNoKeyOfAnHkdfAndNoOutput) {
  const SecretBytes key = Random(32);
  const auto output = HkdfSha512(key, "info", 96);
  ASSERT_TRUE(output);
  LookFor(key.Expose());
  LookFor(output->Expose());
  ASSERT_TRUE(HkdfSha512(key, "info", 96));
  EXPECT_EQ(NumKept(), 0);
  EXPECT_EQ(NumFreed(), 0);
}

TEST_F(WatchedLibrary, KeepsNoKeyOfACipherAndNoText) {
  const SecretBytes key = Random(32), text = Random(64);
  const Bytes iv(16);
  Bytes ciphertext(64);
  LookFor(key.Expose());
  LookFor(text.Expose());
  ASSERT_TRUE(Aes256Cbc(CipherDirection::kEncrypt, key.Expose(), iv, text.Expose(), ciphertext));
  auto again = SecretBytes::Allocate(64);
  ASSERT_TRUE(
      Aes256Cbc(CipherDirection::kDecrypt, key.Expose(), iv, ciphertext, again->ExposeMutable()));
  EXPECT_EQ(NumKept(), 0);
  EXPECT_EQ(NumFreed(), 0);
}

TEST_F(WatchedLibrary, KeepsNoScalarOfASignatureOrAProduct) {
  const auto pair = P256KeyPair::Generate();
  const auto other = P256KeyPair::Generate();
  ASSERT_TRUE(pair && other);
  const auto scalar = pair->Scalar();
  const auto shared = pair->SharedX(other->Public());
  ASSERT_TRUE(scalar && shared);
  LookFor(scalar->Expose());
  LookFor(shared->Expose());
  ASSERT_TRUE(P256KeyPair::FromScalar(*scalar));
  EXPECT_EQ(NumFreed(), 0);
  ASSERT_TRUE(pair->SharedX(other->Public()));
  EXPECT_EQ(NumFreed(), 0);
  ASSERT_TRUE(pair->SignEs256(Sha256(AsBytes("text"))));
  EXPECT_EQ(NumFreed(), 0);
  EXPECT_EQ(NumKept(), 0);
}

TEST_F(WatchedLibrary, KeepsNoScalarOfASigningKey) {
  BIO* const bio = BIO_new(BIO_s_mem());
  EVP_PKEY* const key = EVP_EC_gen("P-256");
  ASSERT_EQ(PEM_write_bio_PKCS8PrivateKey(bio, key, nullptr, nullptr, 0, nullptr, nullptr), 1);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio, &text);
  const auto pem =
      SecretBytes::CopyOf({reinterpret_cast<std::uint8_t*>(text), static_cast<std::size_t>(size)});
  BIGNUM* number = nullptr;
  ASSERT_EQ(EVP_PKEY_get_bn_param(key, "priv", &number), 1);
  Bytes32 scalar;
  ASSERT_EQ(BN_bn2binpad(number, scalar.data(), 32), 32);
  BN_clear_free(number);
  EVP_PKEY_free(key);
  BIO_free(bio);
  LookFor(scalar);
  ASSERT_TRUE(envelope::SigningKey::FromPem(*pem, "alice"));
  EXPECT_EQ(NumKept(), 0);
  EXPECT_EQ(NumFreed(), 0);
}

}  // namespace
}  // namespace keyescrow
