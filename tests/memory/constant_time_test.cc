// Comparison and un-padding under valgrind, with the secrets marked as undefined: memcheck reports
// each jump and each address that depends on one. Run as `valgrind constant_time_test NAME`.
#include <valgrind/memcheck.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "envelope/base/aes.h"
#include "envelope/base/hash.h"
#include "envelope/base/random.h"
#include "envelope/base/rsa.h"
#include "envelope/base/secret_bytes.h"
#include "envelope/jwe.h"

namespace keyescrow {
namespace {

void Require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "%s\n", what);
  std::exit(1);
}

void Hide(const SecretBytes& secret) {
  VALGRIND_MAKE_MEM_UNDEFINED(secret.Expose().data(), secret.size());
}

// Told is what an attacker may learn: the outcome, once it stands.
bool Told(bool outcome) {
  VALGRIND_MAKE_MEM_DEFINED(&outcome, sizeof outcome);
  return outcome;
}

SecretBytes Random(std::size_t size_bytes) {
  auto secret = RandomSecret(SystemRandom(), size_bytes);
  Require(secret.has_value(), "no random bytes");
  return *std::move(secret);
}

SecretBytes CopyOf(const SecretBytes& secret) {
  auto copy = SecretBytes::CopyOf(secret.Expose());
  Require(copy.has_value(), "no memory");
  return *std::move(copy);
}

// Both outcomes, the difference early and late.
template <typename Equal>
void CheckComparison(Equal equal) {
  const SecretBytes left = Random(64);
  const SecretBytes same = CopyOf(left);
  SecretBytes early = CopyOf(left);
  early.ExposeMutable()[0] ^= 1;
  SecretBytes late = CopyOf(left);
  late.ExposeMutable()[63] ^= 0x80;
  for (const SecretBytes* secret : {&left, &same, &static_cast<const SecretBytes&>(early),
                                    &static_cast<const SecretBytes&>(late)}) {
    Hide(*secret);
  }
  Require(Told(equal(left, same)), "equal bytes compare as different");
  Require(!Told(equal(left, early)) && !Told(equal(left, late)), "different bytes compare equal");
}

void SecretBytesEqual() {
  CheckComparison([](const SecretBytes& left, const SecretBytes& right) {
    return left.EqualsConstantTime(right);
  });
}

void BytesEqual() {
  CheckComparison([](const SecretBytes& left, const SecretBytes& right) {
    return EqualConstantTime(left.Expose(), right.Expose());
  });
}

// What the test would say of a comparison that leaks: it must be reported.
void LeakingComparison() {
  CheckComparison([](const SecretBytes& left, const SecretBytes& right) {
    const ByteView one = left.Expose();
    const ByteView two = right.Expose();
    for (std::size_t index = 0; index < one.size(); ++index) {
      if (one[index] != two[index]) return false;
    }
    return true;
  });
}

void JweTag() {
  const SecretBytes key = Random(64);
  const SecretBytes plaintext = Random(32);
  constexpr std::string_view kAad = "additional data";
  const auto jwe = envelope::EncryptJwe(key, kAad, plaintext, SystemRandom());
  Require(jwe.has_value(), "no JWE");
  Bytes32 tag = jwe->tag;
  Bytes32 other = jwe->tag;
  other[0] ^= 1;
  Hide(key);
  Require(Told(envelope::VerifyJweTag(key, kAad, jwe->iv, jwe->ciphertext, tag)), "right tag");
  Require(!Told(envelope::VerifyJweTag(key, kAad, jwe->iv, jwe->ciphertext, other)), "wrong tag");
}

void Hkdf() {
  const SecretBytes input = Random(96);
  Hide(input);
  const auto output = HkdfSha512(input, "info", 96);
  Require(output.has_value(), "no HKDF");
}

void AesCbc() {
  const SecretBytes key = Random(32);
  SecretBytes text = Random(64);
  Hide(key);
  Hide(text);
  const Bytes16 iv{};
  SecretBytes out = Random(64);
  for (const auto direction : {CipherDirection::kEncrypt, CipherDirection::kDecrypt}) {
    Require(Aes256Cbc(direction, key.Expose(), iv, text.Expose(), out.ExposeMutable()).has_value(),
            "no AES");
  }
}

// Mgf1 is RFC 8017, B.2.1, with SHA-256.
void Mask(ByteView seed, std::span<std::uint8_t> data) {
  for (std::size_t at = 0; at < data.size(); ++at) {
    const auto block = static_cast<std::uint8_t>(at / 32);
    const std::uint8_t counter[4] = {0, 0, 0, block};
    data[at] = static_cast<std::uint8_t>(data[at] ^ Sha256({seed, counter})[at % 32]);
  }
}

// A block as the token's raw operation gives it: 00 ‖ masked seed ‖ masked (hash, 00…, 01, S).
SecretBytes OaepBlock(ByteView message, std::uint8_t first, std::uint8_t marker) {
  SecretBytes block = Random(256);
  const auto bytes = block.ExposeMutable();
  bytes[0] = first;
  const auto data = bytes.subspan(33);
  std::memset(data.data(), 0, data.size());
  const Bytes32 label = Sha256(ByteView());
  std::memcpy(data.data(), label.data(), label.size());
  data[data.size() - message.size() - 1] = marker;
  std::memcpy(data.data() + (data.size() - message.size()), message.data(), message.size());
  Mask(bytes.subspan(1, 32), data);
  Mask(data, bytes.subspan(1, 32));
  return block;
}

void OaepPadding() {
  const SecretBytes message = Random(32);
  struct Case {
    std::uint8_t first, marker;
    bool good;
  };
  for (const Case& one : {Case{0, 1, true}, Case{1, 1, false}, Case{0, 2, false}}) {
    const SecretBytes block = OaepBlock(message.Expose(), one.first, one.marker);
    Hide(block);
    const auto plaintext = RemoveOaepPadding(OaepHash::kSha256, block);
    Require(Told(plaintext.has_value()) == one.good, "the padding is judged wrongly");
    if (!one.good) continue;
    VALGRIND_MAKE_MEM_DEFINED(&*plaintext, sizeof *plaintext);  // its length, not its bytes
    Require(Told(plaintext->EqualsConstantTime(message)), "the padding is removed wrongly");
  }
}

struct Named {
  std::string_view name;
  void (*run)();
};
constexpr Named kCases[] = {
    {"secret_bytes_equal", SecretBytesEqual},
    {"bytes_equal", BytesEqual},
    {"jwe_tag", JweTag},
    {"hkdf", Hkdf},
    {"aes_cbc", AesCbc},
    {"oaep_padding", OaepPadding},
    {"leak_is_reported", LeakingComparison},
};

int Main(int argc, char** argv) {
  Require(RUNNING_ON_VALGRIND != 0, "not under valgrind: nothing would be seen");
  for (const Named& one : kCases) {
    if (argc != 2 || one.name != argv[1]) continue;
    one.run();
    return 0;
  }
  Require(false, "name a case");
  return 1;
}

}  // namespace
}  // namespace keyescrow

int main(int argc, char** argv) { return keyescrow::Main(argc, argv); }
